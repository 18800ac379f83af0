"""Classifiers as people have them: taken as a task's teacher, or refused by `plan` where they would teach nonsense."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lightpaff import Recipe
from lightpaff.pipeline.run import open_context, prepare
from tests.behaviour.model_changes import Change, edit_config, edit_tensors


@pytest.fixture
def classifier(finished_run: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's fine-tuned teacher, trained until it is right on nearly every row."""
    roles = json.loads((finished_run.output / "run.json").read_text())["roles"]
    folder = next(role["folder"] for role in roles if role.get("arm") == "teacher")
    path = Path(shutil.copytree(finished_run.output.parent / "steps" / folder, tmp_path / "classifier"))
    model = AutoModelForSequenceClassification.from_pretrained(path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    rows = [json.loads(line) for line in (finished_run.folder / "train.jsonl").read_text().splitlines()]
    inputs = tokenizer([row["sentence"] for row in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([row["label"] for row in rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss.item() < 0.3
    model.save_pretrained(path)
    return path


def with_task_teacher(recipe: Any, classifier: Path) -> Any:
    return (
        recipe.set("teacher", {"source": str(classifier)})
        .set("pretraining", None)
        .set("tasks.0.teacher", str(classifier))
    )


def swap_classes(tensors: dict[str, torch.Tensor]) -> None:
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name].flip(0)


TEACHERS: dict[str, tuple[Change, str]] = {
    "another order by name": (
        lambda path: edit_config(path, id2label={"0": "1", "1": "0"}, label2id={"1": 0, "0": 1}),
        "its classes are in the order 1, 0; give the task's labels in that order",
    ),
    "another order without names": (
        lambda path: (
            edit_config(path, id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1}),
            edit_tensors(path, swap_classes),
        ),
        "set tasks.toy.labels to [1, 0]",
    ),
    "several labels a row": (
        lambda path: edit_config(path, problem_type="multi_label_classification"),
        "was trained to give a row several labels (problem_type multi_label_classification in its config.json)",
    ),
    "a regression": (
        lambda path: edit_config(path, problem_type="regression"),
        "was trained for a score, and the objective is classify",
    ),
    "fewer embeddings than tokens": (
        lambda path: (
            edit_config(path, vocab_size=40),
            edit_tensors(
                path,
                lambda tensors: tensors.update(
                    {"bert.embeddings.word_embeddings.weight": tensors["bert.embeddings.word_embeddings.weight"][:40]}
                ),
            ),
        ),
        "its vocab_size is 40, fewer than the tokenizer's",
    ),
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_ready_made_teacher_that_would_teach_nonsense_is_refused_by_plan(
    kind: str, classifier: Path, tiny_recipe: Any, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    change, line = TEACHERS[kind]
    plain = Path(shutil.copytree(classifier, tmp_path / "plain"))
    change(classifier)
    with_task_teacher(tiny_recipe, classifier).set("teacher", {"source": str(plain)})
    outcome = run_cli("plan", tiny_recipe.write())
    assert outcome.code == 2
    assert line in outcome.message


@pytest.mark.parametrize("names", [("0", "1"), ("LABEL_0", "LABEL_1"), ("bad", "good")])
def test_a_ready_made_teacher_in_the_right_order_is_taken(
    names: tuple[str, str], classifier: Path, tiny_recipe: Any, run_cli: Callable[..., Any]
) -> None:
    edit_config(
        classifier,
        id2label={str(number): name for number, name in enumerate(names)},
        label2id={name: number for number, name in enumerate(names)},
    )
    assert run_cli("plan", with_task_teacher(tiny_recipe, classifier).write()).code == 0


def test_numbers_in_the_rows_are_held_against_the_answers_of_a_teacher_with_names(
    classifier: Path, tiny_recipe: Any, run_cli: Callable[..., Any]
) -> None:
    edit_config(classifier, id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    recipe = with_task_teacher(tiny_recipe, classifier).set("tasks.0.labels", ["bad", "good"])
    assert run_cli("plan", recipe.write()).code == 0
    edit_tensors(classifier, swap_classes)
    outcome = run_cli("plan", recipe.write())
    assert outcome.code == 2
    assert "its answers fit" in outcome.message
    assert "if they stand for good, bad" in outcome.message
    assert "correct the rows" in outcome.message


def test_pairs_have_segments_only_where_the_tokenizer_gives_them(classifier: Path, tiny_recipe: Any) -> None:
    columns = {"text": "first", "text_pair": "second", "label": "same"}
    names = {"train": "train_pairs.jsonl", "validation": "validation_pairs.jsonl"}
    tiny_recipe.set("tasks.0", {"name": "pairs", **names, "columns": columns, "max_length": 24})
    tiny_recipe.set("teacher", {"source": str(classifier)}).set("pretraining", None)

    def segments() -> list[int]:
        context = open_context(Recipe.load(tiny_recipe.write()), tiny_recipe.output)
        graph, _ = prepare(context, [])
        from lightpaff.pipeline.context import task_objective

        data = task_objective(context, graph.tasks[0].task, graph.tasks[0].rows, "train")
        import numpy as np

        found = data.batch(np.arange(3), draw=0).inputs.get("token_type_ids")
        return [] if found is None else sorted(set(found.flatten().tolist()))

    assert segments() == [0, 1]
    settings = json.loads((classifier / "tokenizer_config.json").read_text())
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    (classifier / "tokenizer_config.json").write_text(json.dumps(settings))
    assert segments() == []
