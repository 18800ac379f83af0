"""Rows from Python, as far as the recipe that is made of them."""

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe
from lightpaff.start import distil as distil_module
from lightpaff.start.distil import distil
from tests.unit.start.made_files import sentence


@pytest.fixture(autouse=True)
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes that would have been run."""
    found: list[Recipe] = []
    monkeypatch.setattr(distil_module, "run", lambda recipe, *_: found.append(recipe))
    return found


TEXTS = [sentence(8) for _ in range(60)]


def rows(count: int = 60) -> Iterator[dict[str, Any]]:
    return ({"text": TEXTS[row], "label": row % 2} for row in range(count))


def test_rows_may_come_once(tmp_path: Path, ran: list[Recipe]) -> None:
    distil(rows(), unlabelled=({"text": text} for text in TEXTS), output=tmp_path / "run")
    distil(list(rows()), unlabelled=[{"text": text} for text in TEXTS], output=tmp_path / "run")
    assert len(ran) == 2
    assert ran[0].tasks[0].train[0].path == str(tmp_path / "run-data" / "train.jsonl")
    kept = (tmp_path / "run-data" / "train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == list(rows())
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="was made for other data"):
        distil(rows(40), unlabelled=[{"text": text} for text in TEXTS], output=tmp_path / "run")
    assert len((tmp_path / "run-data" / "train.jsonl").read_text().splitlines()) == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run-asked.json", "run-data", "run.yaml"]


def test_a_call_that_was_refused_does_not_block_the_next(tmp_path: Path, ran: list[Recipe]) -> None:
    distil(rows(), teacher="team/typo", output=tmp_path / "run")
    distil(rows(40), teacher="team/model", output=tmp_path / "run")
    assert [recipe.teacher.source for recipe in ran] == [["team/typo"], ["team/model"]]
    assert len((tmp_path / "run-data" / "train.jsonl").read_text().splitlines()) == 40
    with (tmp_path / "run.yaml").open("a") as file:
        file.write("# mine\n")
    with pytest.raises(UserError, match="was made for other data"):
        distil(rows(), teacher="team/other", output=tmp_path / "run")
    assert (tmp_path / "run.yaml").read_text().endswith("# mine\n")
    distil(rows(40), teacher="team/model", output=tmp_path / "run")


def test_a_call_without_a_recipe_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        distil(tmp_path / "nope.csv", output=tmp_path / "run")
    with pytest.raises(UserError, match="no task fits"):
        distil(({"number": row} for row in range(60)), output=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_no_json_are_named(tmp_path: Path) -> None:
    dated = [{"text": "a b", "label": 1}, {"text": "c d", "label": 0, "when": datetime.date(2020, 1, 2)}]
    with pytest.raises(UserError, match="train, row 2: column 'when' holds a date, which is no JSON"):
        distil(dated, output=tmp_path / "run")
    with pytest.raises(UserError, match="train, row 1: is a str; give rows by their columns"):
        distil(iter(["text"]), output=tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="train: holds no rows"):
        distil(iter([]), output=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
