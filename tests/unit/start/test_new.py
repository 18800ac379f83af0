"""Recipes for what a user has, and what is refused before one is written."""

from pathlib import Path
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.start.new import new_recipe
from lightpaff.start.parts import Files
from tests.unit.start.made_files import films, reviews, sentence, write_file


def test_an_existing_recipe_is_kept(tmp_path: Path) -> None:
    path = write_file(tmp_path, reviews, "csv")
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").read_text() == "mine"


def test_what_the_data_says_stays_a_comment(tmp_path: Path) -> None:
    hostile = ["good\nseeds: {teacher: 77}\n#", "bad"]
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": hostile[row % 2]}, "jsonl")
    path = path.rename(tmp_path / "2023.jsonl")
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert recipe.seeds.teacher is None
    assert recipe.name == "2023"
    assert "seeds" in made.text


def test_a_validation_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, reviews, "csv")
    other = write_file(tmp_path, films, "jsonl")
    with pytest.raises(UserError, match=r"has no column .What they wrote., which data\.csv has"):
        new_recipe(Files(path, validation=other), None, tmp_path / "recipe.yaml")


def test_a_column_that_is_not_used_may_be_missing(tmp_path: Path) -> None:
    def without_number(row: int) -> dict[str, Any]:
        return {name: value for name, value in reviews(row).items() if name != "nr"}

    path, other = write_file(tmp_path, reviews), write_file(tmp_path, without_number, name="other")
    recipe, _ = new_recipe(Files(path, other, other, [other]), None, tmp_path / "recipe.yaml")
    assert recipe.tasks[0].unlabelled[0].path == str(other)


def test_unlabelled_rows_need_the_text(tmp_path: Path) -> None:
    path, other = write_file(tmp_path, reviews), write_file(tmp_path, films, name="other")
    with pytest.raises(UserError, match=r"other\.csv: has no column .What they wrote., which data\.csv has"):
        new_recipe(Files(path, unlabelled=[other]), None, tmp_path / "recipe.yaml")


def test_a_link_keeps_its_ending(tmp_path: Path) -> None:
    write_file(tmp_path, reviews).rename(tmp_path / "4be1")
    (tmp_path / "reviews.csv").symlink_to("4be1")
    recipe, _ = new_recipe(Files(tmp_path / "reviews.csv"), None, tmp_path / "recipe.yaml")
    assert recipe.tasks[0].train[0].path == str(tmp_path / "reviews.csv")


@pytest.mark.parametrize(("tags", "metrics"), [(["B-place", "O"], None), (["NOUN", "VERB"], ["accuracy"])])
def test_words_whose_tags_mark_no_entities_are_scored_by_accuracy(
    tags: list[str], metrics: list[str] | None, tmp_path: Path
) -> None:
    path = write_file(tmp_path, lambda row: {"w": [f"word{row}", "there", "now"], "t": [*tags, tags[1]]}, "jsonl")
    recipe, _ = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert recipe.tasks[0].metrics == metrics
    assert (recipe.fine_tuning.training.epochs, recipe.fine_tuning.training.learning_rate) == (8, 2e-4)
