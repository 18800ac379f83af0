"""What columns hold, of whole files."""

from pathlib import Path

import pytest

from lightpaff.start import columns
from lightpaff.start.columns import look_at
from lightpaff.start.guessing import guess
from tests.unit.start.made_files import sentence, write_file


def test_a_file_sorted_by_its_label_is_read_to_its_end(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": f"{sentence(4)} {row}", "label": "np"[row >= 21_000]}, rows=22_000)
    assert look_at(path).rows == 22_000
    found = guess(look_at(path))
    assert (found.objective, found.labels) == ("classify", ["n", "p"])


def test_very_many_values_are_nearly_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_VALUES_KEPT", 100)
    monkeypatch.setattr(columns, "_HASHES_KEPT", 4_000)
    path = write_file(
        tmp_path, lambda row: {"once": f"a {row}", "twice": f"a {row // 2}", "few": row % 100}, rows=20_000
    )
    once, twice, few = look_at(path).columns
    assert once.is_unique
    assert twice.distinct == pytest.approx(10_000, rel=0.1)
    assert (few.distinct, len(few.values)) == (100, 100)
    assert once.values == twice.values == []


def test_blank_cells_are_empty(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"a": " " if row % 2 else "x", "b": row}, rows=10)
    assert look_at(path).columns[0].filled == 0.5


def test_words_for_parts_are_known(tmp_path: Path) -> None:
    told = ["Train", "dev", "TEST"]
    path = write_file(tmp_path, lambda row: {"split": told[row % 3], "fold": row % 5, "part": f"train{row % 2}"})
    assert [column.parts for column in look_at(path).columns] == [
        {"train": ["Train"], "validation": ["dev"], "test": ["TEST"]},
        {},
        {},
    ]
