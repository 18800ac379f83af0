"""One fingerprint is one work: what changes a result changes the fingerprint of some step, and nothing else does."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightpaff import Recipe
from lightpaff.pipeline.run import open_context, prepare

WORK = {
    "seeds.pretraining": 1,
    "seeds.fine_tuning": [1],
    "precision": "bf16",
    "student.layers": 2,
    "student.initialisation": "random",
    "teacher.pretraining.steps": 3,
    "teacher.from_scratch.layers": 1,
    "pretraining.sequence_length": 12,
    "pretraining.mask_rate": 0.3,
    "pretraining.validation_fraction": 0.2,
    "pretraining.corpus": [{"path": "train.jsonl", "text": "sentence"}],
    "pretraining.distillation.weight": 0.5,
    "pretraining.distillation": {"weight": 0.9, "temperature": 2.0},
    "pretraining.distillation.targets": {"kind": "sampled"},
    "pretraining.training.learning_rate": 1e-3,
    "fine_tuning.distillation.weight": 0.7,
    "fine_tuning.distillation": {"weight": 0.5, "temperature": 2.0},
    "fine_tuning.teacher_training.steps": 3,
    **{
        f"fine_tuning.training.{key}": value
        for key, value in {
            "steps": 4,
            "batch_size": 8,
            "micro_batch_tokens": 64,
            "learning_rate": 1e-3,
            "schedule": "cosine",
            "warmup": 0.2,
            "weight_decay": 0.1,
            "max_gradient_norm": 2.0,
            "dropout": 0.3,
            "evaluations": 3,
            "freeze_embeddings": True,
        }.items()
    },
    "tasks.0.max_length": 12,
    "tasks.0.labels": [1, 0],
    "tasks.0.metrics": ["f1"],
    "tasks.0.train": "train_pairs.jsonl",
    "tasks.0.validation": "train.jsonl",
    "tasks.0.test": "validation.jsonl",
    "tasks.0.unlabelled": ["unlabelled.jsonl"],
}
"""Keys of the tiny recipe, with another value that changes what is done."""
NO_WORK = {
    "name": "other",
    "tasks.0.name": "other",
    "fine_tuning.training.checkpoint_seconds": 1.0,
    "exports": None,
    "tasks.0.metrics": ["accuracy", "matthews"],
    # A CPU's bits are the same anyway, and a task with few classes keeps its soft targets whole.
    "deterministic": False,
    "fine_tuning.distillation.targets": {"kind": "sampled", "draws": 5},
}
"""The same with one that does not."""


def with_key(content: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    *parents, last = (int(part) if part.isdigit() else part for part in key.split("."))
    changed: dict[str, Any] = json.loads(json.dumps(content))
    changed["fine_tuning"].setdefault("teacher_training", dict(changed["fine_tuning"]["training"]))
    place: Any = changed
    for parent in parents:
        place = place.setdefault(parent, {}) if isinstance(place, dict) else place[parent]
    place[last] = value
    if key == "tasks.0.train":
        changed["tasks"][0]["columns"] = {"text": "first", "label": "same"}
        changed["tasks"][0]["validation"] = "validation_pairs.jsonl"
    return changed


def fingerprints(recipe: Any, key: str = "name", value: Any = "tiny") -> set[str]:
    """Of every step of the recipe with one key changed; nothing is trained."""
    changed = type(recipe)(recipe.folder, with_key(recipe.content, key, value))
    graph, _ = prepare(open_context(Recipe.load(changed.write("changed.yaml")), recipe.output), [])
    return {step.fingerprint for step in graph.steps}


@pytest.mark.parametrize("key", WORK)
def test_another_value_that_changes_the_work_changes_a_fingerprint(key: str, tiny_recipe: Any) -> None:
    assert fingerprints(tiny_recipe) != fingerprints(tiny_recipe, key, WORK[key])


@pytest.mark.parametrize("key", NO_WORK)
def test_what_changes_no_work_changes_no_fingerprint(key: str, tiny_recipe: Any) -> None:
    trained = fingerprints(tiny_recipe)
    assert fingerprints(tiny_recipe, key, NO_WORK[key]) == trained


def test_the_layers_that_a_student_takes_are_in_the_fingerprint(tiny_recipe: Any) -> None:
    tiny_recipe.set("teacher.from_scratch.layers", 3)
    sizes = {"layers": 2, "initialisation": "teacher"}
    lower, spaced, unnamed = (
        fingerprints(tiny_recipe, "student", {**sizes, "teacher_layers": named}) for named in ([0, 1], [0, 2], None)
    )
    assert lower != spaced == unnamed


STORED: dict[str, Any] = {"kind": "sampled", "draws": 12, "epochs": 2, "proposal": 1.0}


@pytest.mark.parametrize("change", [{"kind": "top-k"}, {"draws": 5}, {"epochs": 1}, {"proposal": 1.5}, {"store": "x"}])
def test_how_soft_targets_are_stored_is_in_the_fingerprint(change: dict[str, Any], tiny_recipe: Any) -> None:
    tiny_recipe.set("pretraining.training.steps", 40)
    key = "pretraining.distillation.targets"
    assert fingerprints(tiny_recipe, key, STORED) != fingerprints(tiny_recipe, key, {**STORED, **change})


def test_threads_versions_and_bits_of_the_environment_are_in_the_fingerprint(
    tiny_recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fingerprints(tiny_recipe)
    torch.set_num_threads(2)
    threads = fingerprints(tiny_recipe)
    torch.set_num_threads(1)
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert len({frozenset(found) for found in (plain, threads, fingerprints(tiny_recipe))}) == 3


def trainings_of(output: Path) -> dict[str, dict[str, Any]]:
    """What each fine-tuning of a run says of itself, by arm."""
    roles = json.loads((output / "run.json").read_text())["roles"]
    steps = output.parent / "steps"
    return {
        role["arm"]: json.loads((steps / role["folder"]).with_name("training.json").read_text())
        for role in roles
        if role["kind"] == "model"
    }


@pytest.fixture
def few_labels(tiny_recipe: Any) -> Any:
    """16 labelled rows, 80 without a label, two epochs of 8."""
    tiny_recipe.set("pretraining", None)
    tiny_recipe.content["teacher"]["source"] = None
    train = [json.loads(line) for line in (tiny_recipe.folder / "train.jsonl").read_text().splitlines()]
    (tiny_recipe.folder / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train[:16]))
    (tiny_recipe.folder / "rest.jsonl").write_text(
        "".join(json.dumps({"sentence": row["sentence"]}) + "\n" for row in train[16:])
    )
    tiny_recipe.set("tasks.0.train", "few.jsonl").set("tasks.0.unlabelled", ["rest.jsonl"])
    training = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "evaluations": 1}
    tiny_recipe.set("fine_tuning", {"training": training})
    return tiny_recipe


def test_rows_without_a_label_change_nothing_of_the_teacher(tiny_recipe: Any) -> None:
    (seed,) = Recipe.load(tiny_recipe.write()).seeds.fine_tuning

    def teacher_of(sources: list[Any]) -> tuple[set[str], set[str]]:
        tiny_recipe.set("tasks.0.unlabelled", sources)
        graph, _ = prepare(open_context(Recipe.load(tiny_recipe.write()), tiny_recipe.output), [])
        (task,) = graph.tasks
        own = {training.step.fingerprint for training in graph.trainings if not training.arm.is_small}
        kept = {task.predictions["teacher", seed].fingerprint, task.baseline.fingerprint if task.baseline else ""}
        return own | kept, {task.rows.fingerprint}

    found = [teacher_of(sources) for sources in ([], ["unlabelled.jsonl"], [{"path": "unlabelled.jsonl", "limit": 8}])]
    assert len({frozenset(teacher) for teacher, _ in found}) == 1
    assert len({frozenset(rows) for _, rows in found}) == 3


@pytest.mark.parametrize(("weight", "steps"), [(0.5, 24), (0.0, 4)])
def test_the_control_takes_the_steps_of_the_student(
    weight: float, steps: int, few_labels: Any, finished_run: Any, run_cli: Callable[..., Any]
) -> None:
    """96 rows with the teacher's answers; without the teacher only the 16 with a label, for both."""
    shutil.copytree(finished_run.output.parent / "steps", few_labels.output.parent / "steps")
    roles = json.loads((finished_run.output / "run.json").read_text())["steps"]
    teacher = few_labels.output.parent / "steps" / roles["pre-train the teacher"] / "model"
    few_labels.set("teacher", {"source": str(teacher)}).set("fine_tuning.distillation", {"weight": weight})
    assert run_cli("run", few_labels.write(), "--output", few_labels.output).code == 0
    trainings = trainings_of(few_labels.output)
    assert {arm: len(found["history"]) for arm, found in trainings.items()} == {
        "teacher": 4,
        "student": steps,
        "control": steps,
    }
    folders = {
        role["arm"]: role["folder"]
        for role in json.loads((few_labels.output / "run.json").read_text())["roles"]
        if role["kind"] == "model"
    }
    assert (folders["student"] == folders["control"]) == (weight == 0)


def test_settings_of_a_launcher_change_no_weights(
    tiny_recipe: Any, finished_run: Any, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.state import AcceleratorState

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        assert run_cli("run", tiny_recipe.write(), "--output", tiny_recipe.output).code == 0
        assert os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    found, expected = (
        load_file(output / "student" / "model.safetensors") for output in (tiny_recipe.output, finished_run.output)
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.slow
def test_benchmark_measures_a_ready_made_teacher(
    tiny_recipe: Any, finished_run: Any, run_cli: Callable[..., Any]
) -> None:
    roles = json.loads((finished_run.output / "run.json").read_text())["roles"]
    teacher = next(role["folder"] for role in roles if role.get("arm") == "teacher")
    source = finished_run.output.parent / "steps" / teacher
    tiny_recipe.set("teacher", {"source": str(source)}).set("pretraining", None).set("tasks.0.teacher", str(source))
    assert run_cli("run", tiny_recipe.write(), "--output", tiny_recipe.output).code == 0
    outcome = run_cli("benchmark", tiny_recipe.output, "--seconds", "0", "--json", "--length", "8", "--threads", "1")
    assert outcome.code == 0, outcome.stderr
    assert "teacher" in outcome.stdout
