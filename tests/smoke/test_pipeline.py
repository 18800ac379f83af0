"""The whole pipeline, from the recipe to the report and the student, with everything as small as it gets."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from safetensors.numpy import load_file

PAIRS = {"name": "pairs", "train": "train_pairs.jsonl", "validation": "validation_pairs.jsonl", "max_length": 24}
PAIR_COLUMNS = {"text": "first", "text_pair": "second", "label": "same"}
RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))

# What a user of the student runs: transformers alone, with lightpaff made impossible to import.
PLAIN_USER = """
import json, sys
sys.modules["lightpaff"] = None
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
torch.set_num_threads(1)
folder, texts = sys.argv[1], json.load(sys.stdin)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
with torch.inference_mode():
    logits = [model(**tokenizer(text, return_tensors="pt")).logits[0].tolist() for text in texts]
print(json.dumps({"logits": logits, "labels": [model.config.id2label[i] for i in range(len(logits[0]))]}))
"""


def values_of(report: dict[str, Any], **wanted: Any) -> list[float]:
    return [row["value"] for row in report["rows"] if all(row[key] == value for key, value in wanted.items())]


def test_report_and_student_are_complete(
    finished_run: Any, read_report: Callable[[Path], dict[str, Any]], check_report: Callable[..., None]
) -> None:
    output = finished_run.output
    report = read_report(output)
    check_report(report, finished_run.content)
    assert {path.name for path in (output / "report").iterdir()} == {
        "index.html",
        "report.md",
        "report.json",
        "report_data.json",
    }
    parameters = {row["arm"]: row["parameters"] for row in report["rows"]}
    sizes = {row["arm"]: row["bytes"] for row in report["rows"]}
    assert parameters["student"] == parameters["control"] < parameters["teacher"]
    assert sizes["student"] < sizes["teacher"]
    stored = load_file(output / "student" / "model.safetensors")
    assert sizes["student"] == 4 * sum(array.size for array in stored.values())
    assert {(curve["arm"], curve["stage"]) for curve in report["curves"]} == {
        (arm, stage) for arm in ("teacher", "student", "control") for stage in ("pre-training", "fine-tuning")
    }
    assert all(bool(curve["divergence"]) == (curve["arm"] == "student") for curve in report["curves"])
    assert not any(line["reused"] for line in report["steps"])
    assert not list(finished_run.folder.rglob("*.part"))


def test_student_needs_no_lightpaff(finished_run: Any) -> None:
    output = finished_run.output
    texts = [
        json.loads(line)["sentence"] for line in (finished_run.folder / "validation.jsonl").read_text().splitlines()
    ]
    finished = subprocess.run(
        [sys.executable, "-c", PLAIN_USER, str(output / "student")],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
        cwd=output,
    )
    answer = json.loads(finished.stdout)
    step = json.loads((output / "run.json").read_text())["steps"]["predict with the student on toy, seed 0"]
    predicted_NV = load_file(output.parent / "steps" / step / "validation.safetensors")["logits_NV"]
    np.testing.assert_allclose(answer["logits"], predicted_NV, rtol=1e-4, atol=1e-5)
    assert answer["labels"] == ["0", "1"]


@pytest.mark.parametrize(
    "architecture", ["roberta", "camembert", "mpnet", "deberta-v2", "electra", "distilbert", "modernbert"]
)
def test_every_architecture(architecture: str, finished_run: Any, run_recipe: Callable[[Any], dict[str, Any]]) -> None:
    content = deepcopy(finished_run.content)
    content["name"] = architecture
    content["teacher"]["from_scratch"]["architecture"] = architecture
    report = run_recipe(type(finished_run)(finished_run.folder, content))
    config = json.loads((finished_run.folder / "runs" / architecture / "student" / "config.json").read_text())
    assert config["model_type"] == architecture
    assert report["summary"]["teacher"] == f"pre-trained here, {architecture} 2 x 32, 2 heads, 64 feed-forward"


def test_ready_teacher_with_head(
    finished_run: Any, ready_recipe: Any, step_model: Callable[[str], Path], run_recipe: Callable[[Any], dict[str, Any]]
) -> None:
    ready_recipe.set("pretraining", finished_run.content["pretraining"])
    report = run_recipe(ready_recipe)
    assert str(step_model("pre-train the teacher")) in report["summary"]["teacher"]
    names = [line["name"] for line in report["steps"]]
    assert "pre-train the teacher" not in names
    assert "pre-train the student" in names


def test_ready_teacher_without_head_goes_on_training(
    finished_run: Any,
    ready_recipe: Any,
    step_model: Callable[[str], Path],
    run_cli: Callable[..., Any],
    run_recipe: Callable[[Any], dict[str, Any]],
) -> None:
    ready_recipe.set("pretraining", finished_run.content["pretraining"])
    ready_recipe.set("teacher.source", str(step_model("fine-tune the student on toy, seed 0")))
    refused = run_cli("run", ready_recipe.write("headless.yaml"), "--output", ready_recipe.folder / "runs" / "headless")
    assert refused.code == 2
    assert "teacher.source" in refused.message
    assert "add teacher.pretraining" in refused.message
    ready_recipe.set("teacher.pretraining", finished_run.content["teacher"]["pretraining"])
    report = run_recipe(ready_recipe)
    assert "pre-train the teacher" in [line["name"] for line in report["steps"]]


def test_no_pretraining_stage_and_unlabelled_rows(
    ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]]
) -> None:
    ready_recipe.set("tasks.0.unlabelled", ["unlabelled.jsonl"])
    ready_recipe.set("fine_tuning.training.steps", None)
    ready_recipe.set("fine_tuning.training.epochs", 2)
    report = run_recipe(ready_recipe)
    assert report["summary"]["distillation in pre-training"] == "no pre-training stage"
    assert {curve["stage"] for curve in report["curves"]} == {"fine-tuning"}
    cards = {card["name"]: card["facts"] for card in report["data_cards"]}
    assert cards["toy, train"]["rows"] == 96 + 32
    assert cards["toy, train"]["without a label"] == 32
    taken = {curve["arm"]: curve["steps"][-1] for curve in report["curves"]}
    # The control has fewer rows to learn from, and as many steps; the teacher has epochs of its own rows.
    assert taken["control"] == taken["student"] > taken["teacher"]


def test_pair_task_with_test_split(ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]]) -> None:
    test = {"path": "unlabelled_pairs.jsonl", "limit": 20}
    ready_recipe.set("tasks", [{**PAIRS, "test": test, "columns": PAIR_COLUMNS, "labels": ["no", "yes"]}])
    run_recipe(ready_recipe)
    config = json.loads(
        (ready_recipe.folder / "runs" / ready_recipe.content["name"] / "student/config.json").read_text()
    )
    assert config["id2label"] == {"0": "no", "1": "yes"}


def test_regression(ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]]) -> None:
    scores = {"name": "scores", "train": "train_scores.jsonl", "validation": "validation_scores.jsonl"}
    ready_recipe.set("tasks", [{**scores, "max_length": 16, "objective": "regress", "columns": {"label": "score"}}])
    report = run_recipe(ready_recipe)
    assert report["disagreements"] == []
    config = json.loads(
        (ready_recipe.folder / "runs" / ready_recipe.content["name"] / "student/config.json").read_text()
    )
    assert config["problem_type"] == "regression"


def test_two_tasks(ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]]) -> None:
    first = ready_recipe.content["tasks"][0]
    second = {**first, "name": "upside_down", "labels": [1, 0]}
    ready_recipe.set("tasks", [first, second])
    report = run_recipe(ready_recipe)
    assert [task["name"] for task in report["tasks"]] == ["toy", "upside_down"]
    student = ready_recipe.folder / "runs" / ready_recipe.content["name"] / "student"
    labels = {
        name: json.loads((student / name / "config.json").read_text())["id2label"] for name in ("toy", "upside_down")
    }
    assert labels == {"toy": {"0": "0", "1": "1"}, "upside_down": {"0": "1", "1": "0"}}


def test_several_seeds_have_mean_and_spread(ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]]) -> None:
    ready_recipe.set("seeds", {"fine_tuning": [3, 1]})
    report = run_recipe(ready_recipe)
    student = [row for row in report["rows"] if row["arm"] == "student" and row["metric"] == "accuracy"]
    by_seed = {row["seed"]: row for row in student}
    assert set(by_seed) == {3, 1, None}
    assert by_seed[None]["value"] == pytest.approx((by_seed[3]["value"] + by_seed[1]["value"]) / 2)
    assert by_seed[None]["spread"] is not None
    delivered = report["summary"]["delivered student, toy"]
    # Of equals, the validation loss decides.
    best = max(by_seed[3]["value"], by_seed[1]["value"])
    assert [seed for seed in (3, 1) if delivered.startswith(f"seed {seed},") and by_seed[seed]["value"] == best]


def test_ready_student_and_ready_task_teacher(
    ready_recipe: Any, step_model: Callable[[str], Path], run_recipe: Callable[[Any], dict[str, Any]]
) -> None:
    ready_recipe.set("student.initialisation", str(step_model("pre-train the control")))
    ready_recipe.set("tasks.0.teacher", str(step_model("fine-tune the teacher on toy, seed 0")))
    report = run_recipe(ready_recipe)
    assert not [line for line in report["steps"] if line["name"].startswith(("fine-tune the teacher", "make the"))]
    assert str(step_model("pre-train the control")) in report["summary"]["student"]


def test_student_of_another_architecture_on_pairs(
    ready_recipe: Any,
    step_model: Callable[[str], Path],
    run_cli: Callable[..., Any],
    tmp_path: Path,
    run_recipe: Callable[[Any], dict[str, Any]],
) -> None:
    """A DistilBERT that learns from a BERT: only the teacher knows which sentence is the second one."""
    from transformers import AutoTokenizer, DistilBertConfig, DistilBertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(step_model("pre-train the teacher"))
    sizes = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 32}
    DistilBertForMaskedLM(DistilBertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    ready_recipe.set("tasks", [{**PAIRS, "columns": PAIR_COLUMNS}])
    ready_recipe.set("student", {"layers": 1, "initialisation": str(tmp_path / "small")})
    report = run_recipe(ready_recipe)
    assert report["summary"]["student"].startswith("distilbert 1 x 16, 2 heads, 32 feed-forward")
    ready_recipe.set("student.layers", 2)
    refused = run_cli("plan", ready_recipe.write("refused.yaml"), "--output", ready_recipe.folder / "runs" / "refused")
    assert f"student.layers is 2, but {tmp_path / 'small'} has 1; set student.layers to that" in refused.message


def test_second_run_reuses_every_step(
    finished_run: Any,
    run_cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    read_report: Callable[[Path], dict[str, Any]],
) -> None:
    def fail(step: Any) -> None:
        raise AssertionError(f"{step.name} was done again")

    monkeypatch.setattr("lightpaff.pipeline.graph._do", fail)
    before = read_report(finished_run.output)
    other = finished_run.folder / "runs" / "again"
    # The recipe that a run keeps is the recipe: its paths are whole.
    outcome = run_cli("run", finished_run.output / "recipe.yaml", "--output", other)
    assert outcome.code == 0, outcome.stderr
    after = read_report(other)
    assert all(line["reused"] for line in after["steps"])
    assert [line["name"] for line in after["steps"]] == [line["name"] for line in before["steps"]]
    assert _without_command(after["rows"]) == _without_command(before["rows"])
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (other / "student" / name).read_bytes() == (finished_run.output / "student" / name).read_bytes()


def test_kept_steps_are_told_in_the_words_of_the_run(
    finished_run: Any,
    monkeypatch: pytest.MonkeyPatch,
    run_recipe: Callable[[Any], dict[str, Any]],
    read_report: Callable[[Path], dict[str, Any]],
) -> None:
    content = deepcopy(finished_run.content)
    content["name"] = "renamed"
    content["tasks"][0] |= {"name": "same", "train": "moved/train.jsonl"}
    (finished_run.folder / "moved").mkdir()
    shutil.copy(finished_run.folder / "train.jsonl", finished_run.folder / "moved")
    # As if this were another machine than that of the finished run.
    other = {"torch": "1.0", "threads": "7", "processor": "abacus"}
    monkeypatch.setattr("lightpaff.pipeline.outcome.describe_maker", lambda device: other)
    report = run_recipe(type(finished_run)(finished_run.folder, content))
    assert all(line["reused"] for line in report["steps"])
    assert not [line for line in report["steps"] if "toy" in line["name"]]
    cards = {card["name"]: card["facts"]["sources"] for card in report["data_cards"]}
    assert cards == {
        "pre-training text": str(finished_run.folder / "corpus.txt"),
        "same, train": str(finished_run.folder / "moved" / "train.jsonl"),
        "same, validation": str(finished_run.folder / "validation.jsonl"),
    }
    details = {line["name"]: line["detail"] for line in report["steps"]}
    version = report["environment"]["torch"]
    for name, detail in details.items():
        is_training = name.startswith(("pre-train", "fine-tune"))
        assert detail.startswith(f"made with torch {version}, threads: 1, ") == is_training, (name, detail)
        assert bool(detail) == is_training
    assert not any(line["detail"] for line in read_report(finished_run.output)["steps"])


def _without_command(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "command"} for row in rows]


@pytest.mark.parametrize("has_corpus", [True, False])
def test_a_narrower_student_is_cut_out_of_the_teacher(
    has_corpus: bool, ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]]
) -> None:
    """What is active is seen on the corpus, or without one on the task's rows."""
    if has_corpus:
        training = {"steps": 3, "batch_size": 16, "learning_rate": 0.003, "evaluations": 1}
        corpus = {"corpus": ["corpus.txt"], "sequence_length": 16, "validation_fraction": 0.1}
        ready_recipe.set("pretraining", {**corpus, "training": training})
    ready_recipe.set("student", {"layers": 1, "hidden_size": 16, "feed_forward": 24, "initialisation": "teacher"})
    report = run_recipe(ready_recipe)
    parameters = {row["arm"]: row["parameters"] for row in report["rows"]}
    assert parameters["student"] < parameters["teacher"] / 2


def test_another_student_shares_the_teacher(finished_run: Any, run_recipe: Callable[[Any], dict[str, Any]]) -> None:
    content = deepcopy(finished_run.content)
    content["name"] = "narrow"
    content["student"] = {"layers": 1, "hidden_size": 16}
    report = run_recipe(type(finished_run)(finished_run.folder, content))
    reused = {line["name"] for line in report["steps"] if line["reused"]}
    done_anew = {line["name"] for line in report["steps"] if not line["reused"]}
    assert reused == {
        "train the tokenizer",
        "prepare the pre-training text",
        "prepare the rows of toy",
        "fit the TF-IDF baseline for toy",
        "make the teacher",
        "pre-train the teacher",
        "fine-tune the teacher on toy, seed 0",
        "predict with the teacher on toy, seed 0",
        "capture the teacher's soft targets for toy",
    }
    assert "pre-train the student" in done_anew


def test_plan_trains_nothing(tiny_recipe: Any, run_cli: Callable[..., Any]) -> None:
    outcome = run_cli("plan", tiny_recipe.write(), "--output", tiny_recipe.output)
    assert outcome.code == 0, outcome.stderr
    shown = outcome.stdout + outcome.stderr
    for name in ("pre-train the teacher", "pre-train the control", "fine-tune the student on toy", "measure the speed"):
        assert name in shown
    assert "temperature: 1.0" in outcome.stdout  # The recipe with its defaults.
    kinds = {path.name.split("-")[0] for path in (tiny_recipe.folder / "runs" / "steps").glob("[a-z]*-*")}
    assert kinds == {"tokenizer", "corpus", "task"}
    assert not tiny_recipe.output.exists()
    # The models are tiny; torch and transformers are not.
    memory = re.search(r"about (\d+\.\d) GB of memory", " ".join(shown.split()))
    assert memory is not None
    assert 0.2 < float(memory[1]) < psutil.virtual_memory().total / 1e9


def test_teacher_learns(ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]]) -> None:
    training = {"steps": 60, "batch_size": 16, "learning_rate": 3e-3, "dropout": 0.0}
    ready_recipe.set("fine_tuning", {"training": training, "distillation": {"weight": 0.5}})
    ready_recipe.set("control", False)
    report = run_recipe(ready_recipe)
    [teacher] = values_of(report, arm="teacher", metric="accuracy")
    [student] = values_of(report, arm="student", metric="accuracy")
    assert teacher >= 0.9
    assert student >= 0.8


def test_an_arm_is_a_name_and_the_keys_that_it_overrides(
    tiny_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]]
) -> None:
    """The paper's ablation: distilled in one stage only."""
    tiny_recipe.set(
        "arms",
        {
            "pre-training only": {"fine_tuning.distillation.weight": 0},
            "fine-tuning only": {"pretraining.distillation.weight": 0},
            "longer by reverse KL": {
                "fine_tuning.training.steps": 9,
                "fine_tuning.distillation.divergence": "reverse_kl",
            },
        },
    )
    report = run_recipe(tiny_recipe)
    arms = ["teacher", "student", "control", "pre-training only", "fine-tuning only", "longer by reverse KL"]
    assert list(dict.fromkeys(row["arm"] for row in report["rows"] if row["arm"] != "tfidf")) == arms
    assert {line["arm"] for line in report["agreement"]} == set(arms)
    compared = {(line["first_arm"], line["second_arm"]) for line in report["comparisons"]}
    assert {pair for arm in arms[3:] for pair in (("student", arm), (arm, "control"))} <= compared
    heard = {(c["arm"], c["stage"]): bool(c["divergence"]) for c in report["curves"] if c["arm"] != "teacher"}
    assert {key for key, is_heard in heard.items() if is_heard} == {
        *((arm, "pre-training") for arm in ("student", "pre-training only", "longer by reverse KL")),
        *((arm, "fine-tuning") for arm in ("student", "fine-tuning only", "longer by reverse KL")),
    }
    steps = {c["arm"]: c["steps"][-1] for c in report["curves"] if c["stage"] == "fine-tuning"}
    assert {arm: steps[arm] for arm in arms[1:]} == dict.fromkeys(arms[1:5], 5) | {arms[5]: 9}
    # What arms have in common is done once; the longer one sees rows of which the teacher was not asked for the others.
    # In pre-training it is asked once too, for all arms.
    kinds = Counter(path.name.split("-")[0] for path in (tiny_recipe.folder / "runs" / "steps").glob("[a-z]*-*"))
    assert (kinds["pretrain"], kinds["finetune"], kinds["capture"]) == (3, 6, 3)
    assert report["summary"]["fine-tuning only"] == "the student with pretraining.distillation.weight: 0"
    page = (tiny_recipe.output / "report" / "index.html").read_text()
    assert all(arm in page for arm in arms[3:])


def test_python_interface(finished_run: Any) -> None:
    from lightpaff import Recipe, run

    result = run(Recipe.load(finished_run.output / "recipe.yaml"), finished_run.folder / "runs" / "from_python")
    assert result.page.read_text().startswith("<!doctype html>")
    assert result.student == result.directory / "student"
    assert {row.arm for row in result.report.rows} == {"teacher", "student", "control", "tfidf"}


def test_help_needs_no_torch() -> None:
    script = (
        "import sys; from lightpaff.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as ended: code = ended.code\n"
        "slow = {'torch', 'transformers', 'datasets', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert not slow, slow\n"
        "sys.exit(code)"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert all(command in finished.stdout for command in ("run", "plan", "schema", "version"))


def test_the_version_is_told(run_cli: Callable[..., Any]) -> None:
    told = run_cli("--version")
    assert (told.code, told.stdout.strip()) == (0, version("lightpaff"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_ready_recipes_load(path: Path) -> None:
    from lightpaff import Recipe

    assert Recipe.load(path).name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_schema_allows_the_ready_recipes(path: Path, run_cli: Callable[..., Any]) -> None:
    outcome = run_cli("schema")
    assert outcome.code == 0
    schema = json.loads(outcome.stdout)
    recipe = yaml.safe_load(path.read_text())
    assert mismatch(recipe, schema, schema["$defs"]) is None
    recipe["student"]["layers"] = "many"
    assert mismatch(recipe, schema, schema["$defs"]) == "student.layers: 'many'"
    recipe["student"] = {"layers": 3, "depth": 3}
    assert mismatch(recipe, schema, schema["$defs"]) == "student.depth: unknown"


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def mismatch(value: Any, schema: dict[str, Any], definitions: dict[str, Any], key: str = "") -> str | None:
    """What an editor would underline: the part of JSON schema that says which keys and types there are."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in schema:
        found = [mismatch(value, option, definitions, key) for option in schema["anyOf"]]
        return None if None in found else min((line for line in found if line), key=len)
    if "enum" in schema and value not in schema["enum"]:
        return f"{key}: {value!r}"
    if "type" in schema and not isinstance(value, TYPES[schema["type"]]):
        return f"{key}: {value!r}"
    inner: list[tuple[str, Any, Any]] = []
    if isinstance(value, dict):
        known = schema.get("properties", {})
        inner = [(name, part, known.get(name, schema.get("additionalProperties", {}))) for name, part in value.items()]
    elif isinstance(value, list):
        inner = [(str(place), part, schema.get("items", {})) for place, part in enumerate(value)]
    for name, part, expected in inner:
        path = f"{key}.{name}" if key else name
        line = f"{path}: unknown" if expected is False else mismatch(part, expected, definitions, path)
        if line is not None:
            return line
    return None
