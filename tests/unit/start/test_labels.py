"""Which classes a recipe names, and labels that are refused before it is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe
from lightpaff.start.new import new_recipe
from lightpaff.start.parts import Files
from tests.unit.start.made_files import model, sentence, write_file


def labelled(*labels: Any) -> Callable[[int], dict[str, Any]]:
    return lambda row: {"text": sentence(9), "label": labels[row % len(labels)]}


def labels_of(folder: Path, make: Callable[[int], dict[str, Any]], teacher: str | None = None) -> list[Any] | None:
    recipe, made = new_recipe(Files(write_file(folder, make, "jsonl")), teacher, folder / "recipe.yaml")
    assert recipe == Recipe.load(folder / "recipe.yaml")
    assert all(f"# - {line}" in made.text for line in made.decisions if line.startswith("labels"))
    return recipe.tasks[0].labels


@pytest.mark.parametrize("named", [["positive", "negative"], ["POSITIVE", "NEGATIVE"]])
def test_classes_are_in_the_teachers_order(named: list[str], tmp_path: Path) -> None:
    teacher = model(tmp_path, "SequenceClassification", named)
    assert labels_of(tmp_path, labelled("negative", "positive"), teacher) == ["positive", "negative"]


def test_tags_are_in_the_teachers_order(tmp_path: Path) -> None:
    teacher = model(tmp_path, "TokenClassification", ["O", "B-PER", "I-PER", "B-LOC"])
    tags = ["B-LOC", "B-PER", "I-PER", "O"]
    found = labels_of(tmp_path, lambda row: {"w": [f"word{row}", "a", "b", "c"], "t": tags}, teacher)
    assert found == ["O", "B-PER", "I-PER", "B-LOC"]


@pytest.mark.parametrize(("data", "names"), [(["no", "yes"], ["bad", "good"]), ([0, 1], ["LABEL_0", "LABEL_1"])])
def test_other_names_of_the_teacher_say_nothing(data: list[Any], names: list[str], tmp_path: Path) -> None:
    assert labels_of(tmp_path, labelled(*data), model(tmp_path, "SequenceClassification", names)) is None


def test_numbers_get_the_teachers_names(tmp_path: Path) -> None:
    teacher = model(tmp_path, "SequenceClassification", ["NEGATIVE", "POSITIVE"])
    assert labels_of(tmp_path, labelled(0, 1), teacher) == ["NEGATIVE", "POSITIVE"]


def test_a_class_of_the_teacher_may_have_no_rows(tmp_path: Path) -> None:
    teacher = model(tmp_path, "SequenceClassification", ["negative", "neutral", "positive"])
    path = write_file(tmp_path, labelled("positive", "negative"))
    recipe, made = new_recipe(Files(path), teacher, tmp_path / "recipe.yaml")
    assert recipe.tasks[0].labels == ["negative", "neutral", "positive"]
    assert "labels: no row has the teacher's neutral" in made.decisions


def test_classes_that_training_may_lack_are_named(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": f"c{row}" if row < 20 else "ab"[row % 2]})
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert recipe.tasks[0].labels == sorted(["a", "b", *(f"c{row}" for row in range(20))])
    told = "labels: too rare to learn or to measure, with fewer than 3 rows: c0, c1, c10, c11, c12, c13, …"
    assert told in made.decisions


def test_usual_classes_are_left_to_the_run(tmp_path: Path) -> None:
    assert labels_of(tmp_path, labelled("a", "b", "c")) is None


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (["0.0", "1.0", "nan"], "row 4: the label 'nan' stands beside numbers"),
        (["pos", "neg", "Pos"], "row 4: the label 'Pos' stands beside 'pos': classes that differ only in capitals"),
    ],
)
def test_labels_that_a_run_refuses_are_refused(labels: list[str], told: str, tmp_path: Path) -> None:
    path = write_file(tmp_path, labelled(*labels))
    with pytest.raises(UserError, match=told):
        new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_validation_file_of_other_labels_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, labelled("negative", "positive"))
    other = write_file(tmp_path, labelled("Negative", "positive"), name="other")
    told = r"other\.csv: the validation rows hold the label 'Negative', and the training rows negative, positive; write"
    with pytest.raises(UserError, match=told):
        new_recipe(Files(path, other), None, tmp_path / "recipe.yaml")


def test_hidden_labels_make_no_class(tmp_path: Path) -> None:
    parts = ["train", "train", "train", "validation", "test"]
    path = write_file(tmp_path, lambda row: {**labelled("a", "b")(row), "split": parts[row % 5]})
    path.write_text("\n".join(line.replace(",a,test", ",-1,test") for line in path.read_text().splitlines()))
    with pytest.raises(UserError, match=r"data\.csv: the test rows hold the label '-1', and the training rows a, b"):
        new_recipe(Files(path), None, tmp_path / "recipe.yaml")
