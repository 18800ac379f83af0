import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.data.documents import iterate_documents, text_of
from lightpaff.data.sources import resolve
from lightpaff.errors import UserError
from lightpaff.recipe_sources import Source

WIKI = " \n = Title = \n \n First <unk> line . \n\n second\r\n\t\n\n\n  last , one \n \n"


def documents_of(folder: Path, content: str, name: str = "plain.txt", **keys: Any) -> list[tuple[int, str]]:
    path = folder / name
    path.write_bytes((gzip.compress if name.endswith(".gz") else bytes)(content.encode()))
    return list(iterate_documents(resolve(Source(path=str(path), **keys), folder), "text"))


@pytest.mark.parametrize("name", ["plain.txt", "plain.txt.gz"])
def test_a_file_is_a_document_byte_for_byte(tmp_path: Path, name: str) -> None:
    assert documents_of(tmp_path, WIKI, name, document="file") == [(1, WIKI)]
    assert documents_of(tmp_path, "\ufeffno end", name, document="file") == [(1, "no end")]


@given(content=st.text(alphabet="a \n\r\té", min_size=1))
@settings(max_examples=50, deadline=None)
def test_any_text_comes_back_from_its_file(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    folder = tmp_path_factory.mktemp("file")
    assert documents_of(folder, content, document="file") == [(1, content)]
    parts = documents_of(folder, content + "\nend", document="blank-line")
    assert all(part.strip() and all(line.strip() for line in part.split("\n")) for _, part in parts)
    assert " ".join(part for _, part in parts).split() == (content + "\nend").split()


def test_blank_lines_separate_documents(tmp_path: Path) -> None:
    expected = [(2, " = Title = "), (4, " First <unk> line . "), (6, " second"), (10, "  last , one ")]
    assert documents_of(tmp_path, WIKI, document="blank-line") == expected
    assert documents_of(tmp_path, "a\n b\n\nc", document="blank-line") == [(1, "a\n b"), (4, "c")]
    assert documents_of(tmp_path, WIKI, document="blank-line", limit=2) == expected[:2]


def test_rows_are_filtered_and_verbatim(tmp_path: Path) -> None:
    rows = [{"text": "  a \n\n b", "kind": 1}, {"text": "no", "kind": 2}, {"text": None, "kind": 1}]
    content = "".join(json.dumps(row) + "\n" for row in [*rows, {"text": "c\ud800d", "kind": 1}])
    found = documents_of(tmp_path, content, "rows.jsonl", where={"kind": [1]})
    assert found == [(1, "  a \n\n b"), (3, ""), (4, "cd")]


def write_table(path: Path, texts: Sequence[str | None]) -> None:
    """Rows with the columns `number` and `text`, as the ending says."""
    rows = [{"number": number, "text": text} for number, text in enumerate(texts)]
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["number", "text"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def documents_of_table(path: Path, texts: Sequence[str | None], **keys: Any) -> list[tuple[int, str]]:
    write_table(path, texts)
    return list(iterate_documents(resolve(Source(path=str(path), **keys), path.parent), "text"))


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_table_of_lines_is_the_file_again(ending: str, tmp_path: Path) -> None:
    """The Hub's WikiText has a line a row, most with their line end, the blank ones without."""
    file = tmp_path / f"rows.{ending}"
    [(_, text)] = documents_of_table(file, ["", " = Title = \n", "", " one <unk> .\n", None, "two"], document="file")
    assert text == "\n = Title = \n\n one <unk> .\n\ntwo\n"
    found = documents_of_table(
        file, ["", " = Title = \n", " one\n", " \t", "two", "three", None], document="blank-line"
    )
    assert [text for _, text in found] == [" = Title = \n one", "two\nthree"]


@given(lines=st.lists(st.text(alphabet="ab \t", max_size=4), min_size=1))
@settings(max_examples=50, deadline=None)
def test_a_table_and_its_lines_give_the_same_documents(
    lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("table")
    for document in ("file", "blank-line"):
        content = "".join(f"{line}\n" for line in (*lines, "end"))
        plain = documents_of(folder, content, document=document)
        assert documents_of_table(folder / "rows.jsonl", [*lines, "end"], document=document) == plain
        of_lines = [f"{line}\n" for line in (*lines, "end")]
        assert documents_of_table(folder / "rows.jsonl", of_lines, document=document) == plain


def test_rows_are_chosen_before_they_are_put_together(tmp_path: Path) -> None:
    file, texts = tmp_path / "rows.jsonl", ["a", "b", "", "c", "d\ud800", "e"]
    chosen = {"number": [1, 2, 4, 5]}
    assert documents_of_table(file, texts, document="file", where=chosen) == [(2, "b\n\nd\ne\n")]
    assert documents_of_table(file, texts, document="file", where=chosen, limit=3) == [(2, "b\n\nd\n")]
    assert documents_of_table(file, texts, document="blank-line", where=chosen) == [(2, "b"), (5, "d\ne")]
    assert documents_of_table(file, texts, document="blank-line", limit=4) == [(1, "a\nb"), (4, "c")]
    with pytest.raises(UserError, match=r"rows\.jsonl: no row is left by where"):
        documents_of_table(file, texts, document="file", where={"number": [7]})
    with pytest.raises(UserError, match=r"rows\.jsonl, row 1: has no column 'text'; it has body"):
        documents_of(tmp_path, '{"body": "a"}\n', "rows.jsonl", document="file")


@pytest.mark.parametrize("document", ["file", "blank-line"])
def test_a_txt_file_has_no_rows_to_choose(document: str, tmp_path: Path) -> None:
    split = {"by": "text", "fractions": {"train": 1.0}, "take": "train"}
    for keys in ({"where": {"text": ["a"]}}, {"split": split}):
        with pytest.raises(UserError) as caught:
            documents_of(tmp_path, "text\n", document=document, **keys)
        problem = f"{next(iter(keys))} chooses rows, and a txt file has none with document '{document}'"
        assert str(caught.value) == f"{tmp_path / 'plain.txt'}: {problem}; leave one of the two out"


@pytest.mark.parametrize(("content", "document"), [("", "file"), ("", "blank-line"), (" \n\n", "blank-line")])
def test_a_file_without_text_is_refused(tmp_path: Path, content: str, document: str) -> None:
    with pytest.raises(UserError, match=r"plain\.txt: holds no text; give a file with data"):
        documents_of(tmp_path, content, document=document)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"sentence": "x", "label": 1}, "file, row 7: has no column 'text'; it has sentence, label"),
        ({"text": ["x"]}, "file, row 7: column 'text' holds a list, not text"),
        ({"text": {"a": 1}}, "file, row 7: column 'text' holds a dict, not text"),
    ],
)
def test_a_row_without_text_is_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        text_of(row, "text", "file", 7)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_numbers_are_text_and_nothing_is_none() -> None:
    assert text_of({"text": 12}, "text", "file", 1) == "12"
    assert text_of({"text": None}, "text", "file", 1) == ""
