"""Which rows are for training, validation and test."""

from pathlib import Path
from typing import Any

import pytest

from lightpaff.data.sources import iterate_rows, resolve
from lightpaff.errors import UserError
from lightpaff.recipe import Recipe
from lightpaff.start.new import new_recipe
from lightpaff.start.parts import Files
from tests.unit.start.made_files import ROWS, films, reviews, sentence, write_file, write_rows


def parts_of(recipe: Recipe, folder: Path) -> list[list[dict[str, Any]]]:
    task = recipe.tasks[0]
    assert task.test is not None
    return [
        [row for _, row in iterate_rows(resolve(source, folder))]
        for source in (task.train[0], task.validation, task.test)
    ]


def test_no_text_is_in_two_parts(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {**reviews(row), "What they wrote": f"text {row // 2} is here"}, "csv")
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert any(
        line.endswith("the same 'What they wrote', to the letter, is never in two of them") for line in made.decisions
    )
    parts = [{row["What they wrote"] for row in part} for part in parts_of(recipe, tmp_path)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == ROWS // 2
    assert all(parts)


def test_the_sentences_of_a_conll_file_are_cut_into_parts(tmp_path: Path) -> None:
    path = tmp_path / "news.conll"
    path.write_text("".join(f"word{row}\tB-thing\nthere\tO\n\n" for row in range(100)))
    recipe, _ = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    parts = [[row["tokens"][0] for row in part] for part in parts_of(recipe, tmp_path)]
    assert sorted(word for part in parts for word in part) == sorted(f"word{row}" for row in range(100))
    assert all(parts)


@pytest.mark.parametrize("groups", [4, 5, 8])
def test_few_groups_leave_no_part_empty(groups: int, tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"user": f"user{row % groups}", "text": sentence(9), "label": row // 8 % 2})
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    parts = parts_of(recipe, tmp_path)
    shares = [len(part) / ROWS for part in parts]
    assert shares[0] == pytest.approx((groups - 2) / groups, abs=0.02)
    assert min(shares[1:]) > 0.033
    told = ", ".join(
        f"{100 * share:.0f} % {part}" for share, part in zip(shares, ("train", "validation", "test"), strict=True)
    )
    assert any(line.startswith(f"split: {told}, by the content of 'user'") for line in made.decisions)
    users = [{row["user"] for row in part} for part in parts]
    assert sum(map(len, users)) == groups


def test_uneven_groups_are_not_kept_together(tmp_path: Path) -> None:
    def make(row: int) -> dict[str, Any]:
        return {"user": f"user{max(0, row - ROWS + 5)}", "text": sentence(9), "label": row % 2}

    path = write_file(tmp_path, make)
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert recipe.tasks[0].validation.split is not None
    assert recipe.tasks[0].validation.split.by == "text"
    assert recipe.tasks[0].columns.group is None
    assert any("rows of one 'user' are not kept together: there are too few" in line for line in made.decisions)
    with pytest.raises(UserError, match="--column group=user: its rows cannot be kept together"):
        new_recipe(Files(path), None, tmp_path / "other.yaml", {"group": "user"})


def test_a_group_of_empty_cells_is_none(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {**films(row), "movie_name": f"film {row // 8}" if row % 3 else None})
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert recipe.tasks[0].columns.group is None
    assert any("rows of one 'movie_name' are not kept together: 67 of 200" in line for line in made.decisions)


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "data.csv", [{"text": f"it is {n % 2}", "label": n % 2} for n in range(20)])
    with pytest.raises(UserError, match="are too few to cut into train, validation, test"):
        new_recipe(Files(path), None, tmp_path / "recipe.yaml", {"text": "text", "label": "label"})


@pytest.mark.parametrize("told", [["train", "dev", "test"], ["train", "train", "test"], ["train", "eval", "holdout"]])
def test_a_column_that_says_the_part_is_followed(told: list[str], tmp_path: Path) -> None:
    path = write_file(
        tmp_path, lambda row: {"split": told[row % 3], "text": sentence(9), "emotion": "abc"[row // 3 % 3]}
    )
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    train, validation, test = parts_of(recipe, tmp_path)
    assert recipe.tasks[0].columns.label == "emotion"
    assert {row["split"] for row in train} == {"train"}
    assert {row["split"] for row in validation} == {told[1]}
    assert {row["split"] for row in test} == {told[2]}
    assert len(train) + len(validation) + len(test) == ROWS
    assert recipe.pretraining is not None
    assert recipe.pretraining.corpus[0].where == {"split": ["train"]}
    assert any(line.startswith("split: as column 'split' says, ") for line in made.decisions)


@pytest.mark.parametrize("word", ["held back", "0"])
def test_rows_of_an_unknown_part_are_not_trained_on(word: str, tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {**films(row), "split": word if row % 5 == 4 else "train"})
    with pytest.raises(UserError, match=f"column 'split' holds '{word}' beside train; write train, validation or test"):
        new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    rows = [{"text": sentence(9), "label": "ab"[n % 2]} | ({"split": "train"} if n % 5 else {}) for n in range(ROWS)]
    with pytest.raises(UserError, match="some rows have no column 'split'"):
        new_recipe(Files(write_rows(tmp_path / "data.jsonl", rows)), None, tmp_path / "recipe.yaml")


def test_training_rows_need_labels(tmp_path: Path) -> None:
    held, plain = {"split": "test"}, {"split": "train", "category": None}
    path = write_file(tmp_path, lambda row: films(row) | (held if row % 4 < 2 else plain))
    with pytest.raises(UserError, match="no row that column 'split' gives to train has a label in 'category'"):
        new_recipe(Files(path), None, tmp_path / "recipe.yaml")


def test_rows_of_no_part_are_counted(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {**films(row), "split": "train" if row % 2 else None})
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert "split: as column 'split' says, 100 train rows; 100 rows where it is empty are left out" in made.decisions
    assert sum(map(len, parts_of(recipe, tmp_path))) == ROWS // 2


def test_a_test_file_leaves_nine_tenths_to_training(tmp_path: Path) -> None:
    path, test = write_file(tmp_path, reviews), write_file(tmp_path, reviews, rows=20, name="test")
    recipe, _ = new_recipe(Files(path, test=test), None, tmp_path / "recipe.yaml")
    train, validation, held = parts_of(recipe, tmp_path)
    assert (len(train) + len(validation), len(held)) == (ROWS, 20)
    assert recipe.tasks[0].train[0].split is not None
    assert recipe.tasks[0].train[0].split.fractions == {"train": 0.9, "validation": 0.1}


def test_rows_without_a_label_are_for_training_alone(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {**reviews(row), "verdict?": ["bad", "good", None][row % 3]})
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    train, validation, test = parts_of(recipe, tmp_path)
    assert None in {row["verdict?"] for row in train}
    assert all(row["verdict?"] for row in (*validation, *test))
    assert any("validation rows, which are left out" in line for line in made.decisions)


@pytest.mark.parametrize("label", [lambda row: row / 7, lambda row: f"wish {row % 80}"], ids=["scores", "many"])
def test_rows_without_a_label_that_cannot_be_named_are_refused(label: Any, tmp_path: Path) -> None:
    path = write_file(
        tmp_path, lambda row: {"text": sentence(9), "label": label(row // 2) if row % 2 else None}, rows=900
    )
    with pytest.raises(UserError, match=r"column 'label' is empty in \d+ validation rows, which need a label"):
        new_recipe(Files(path), None, tmp_path / "recipe.yaml")


def test_rows_that_leave_the_label_out_are_refused(tmp_path: Path) -> None:
    rows = [{"text": sentence(9)} | ({"label": "ab"[n % 2]} if n % 3 else {}) for n in range(ROWS)]
    with pytest.raises(UserError, match=r"column 'label' is empty in \d+ validation rows"):
        new_recipe(Files(write_rows(tmp_path / "data.jsonl", rows)), None, tmp_path / "recipe.yaml")
