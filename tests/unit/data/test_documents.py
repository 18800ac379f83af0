import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.data.documents import iterate_documents, text_of
from lightpaff.data.sources import resolve
from lightpaff.errors import UserError
from lightpaff.recipe import Source

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


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("rows.jsonl", {"document": "file"}, "rows.jsonl: is read as jsonl, but document 'file' is for txt files;"),
        (
            "rows.txt",
            {"document": "blank-line", "format": "csv"},
            "rows.txt: is read as csv, but document",
        ),
        ("a.txt", {"document": "file", "where": {"text": ["a"]}}, "a.txt: where chooses rows, and there are none"),
    ],
)
def test_documents_that_cannot_be(tmp_path: Path, name: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        documents_of(tmp_path, "text\n", name, **keys)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


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
