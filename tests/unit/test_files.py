import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.errors import UserError, one_line
from lightpaff.files import (
    MANIFEST,
    read_manifest,
    sha256_of_file,
    whole_directory,
    whole_file,
    write_json_whole,
    write_whole,
)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(("content", "expected"), [("é\n", b"\xc3\xa9\n"), (b"\x00\xff", b"\x00\xff"), ("", b"")])
def test_a_file_holds_what_was_written(tmp_path: Path, content: bytes | str, expected: bytes) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_whole(path, content)
    assert path.read_bytes() == expected
    write_whole(path, "again")
    assert path.read_text() == "again"
    assert names_in(path.parent) == ["file"]


@pytest.mark.parametrize("before", [None, "old"])
def test_a_file_is_whole_or_as_it_was(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_text(before)

    def write_a_part() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("a part")
            assert (path.read_text() if path.exists() else None) == before
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_a_part()
    assert names_in(tmp_path) == ([] if before is None else ["file"])
    assert before is None or path.read_text() == before


def test_a_file_takes_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with whole_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent
    assert path.read_text() == "whole"
    assert names_in(tmp_path) == ["file"]


def test_json_without_nan(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json_whole(path, {"b": [1, 0.5], "a": None})
    assert json.loads(path.read_text()) == {"a": None, "b": [1, 0.5]}
    with pytest.raises(ValueError, match="JSON"):
        write_json_whole(path, {"b": float("nan")})
    assert json.loads(path.read_text())["b"] == [1, 0.5]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "result"
    with whole_directory(path, {"answer": 42}) as temporary:
        (temporary / "a.txt").write_text("some content")
        (temporary / "inner").mkdir()
        (temporary / "inner" / MANIFEST).write_text("a file of the same name")
        assert not path.exists()
    return path


def test_a_directory_with_its_manifest(directory: Path) -> None:
    assert read_manifest(directory) == {"answer": 42}
    assert names_in(directory) == ["a.txt", "inner", f"inner/{MANIFEST}", MANIFEST]
    assert names_in(directory.parent)[0] == "result"
    assert [path.name for path in directory.parent.iterdir()] == ["result"]


def test_a_directory_is_whole_or_as_it_was(directory: Path, tmp_path: Path) -> None:
    def make_a_part(path: Path) -> None:
        with whole_directory(path) as temporary:
            (temporary / "a.txt").write_text("a part")
            raise KeyboardInterrupt

    for path in (directory, tmp_path / "other"):
        with pytest.raises(KeyboardInterrupt):
            make_a_part(path)
    assert read_manifest(directory) == {"answer": 42}
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_directory_is_replaced(directory: Path) -> None:
    with whole_directory(directory, {"answer": 43}) as temporary:
        (temporary / "b.txt").write_text("new")
    assert read_manifest(directory) == {"answer": 43}
    assert names_in(directory) == ["b.txt", MANIFEST]
    assert [path.name for path in directory.parent.iterdir()] == ["result"]


def test_facts_may_be_added_while_the_block_runs(tmp_path: Path) -> None:
    facts: dict[str, int] = {}
    with whole_directory(tmp_path / "a", facts):
        facts["late"] = 1
    assert read_manifest(tmp_path / "a") == {"late": 1}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "a.txt").unlink(), r"a\.txt: is missing though the manifest names it"),
        (lambda path: (path / "a.txt").write_text("some cOntent"), r"a\.txt: does not match its manifest"),
        (lambda path: (path / "a.txt").write_text("some"), r"a\.txt: does not match its manifest"),
        (lambda path: (path / "a.txt").write_text("some content and more"), r"a\.txt: does not match its manifest"),
        (lambda path: (path / "inner" / MANIFEST).write_text("other"), "does not match its manifest"),
        (lambda path: (path / MANIFEST).unlink(), f"has no {MANIFEST}, so it is incomplete"),
        (lambda path: (path / MANIFEST).write_text('{"facts": {'), f"{MANIFEST}: is not a manifest"),
        (lambda path: (path / MANIFEST).write_text("{}"), f"{MANIFEST}: is not a manifest"),
        (lambda path: (path / MANIFEST).write_text("[]"), f"{MANIFEST}: is not a manifest"),
        (lambda path: (path / MANIFEST).write_bytes(b"\xff"), f"{MANIFEST}: is not a manifest"),
    ],
)
def test_a_damaged_directory_is_refused(directory: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(directory)
    with pytest.raises(UserError, match=message) as caught:
        read_manifest(directory)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"; delete {directory} and run again to make it anew")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_of_any_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"ab"[size % 2 : size % 2 + 1] * size)
    assert sha256_of_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()


@given(st.text())
@settings(deadline=None)
def test_another_librarys_error_fits_into_a_line(message: str) -> None:
    quoted = one_line(RuntimeError(message))
    assert quoted
    assert len(quoted) <= 200
    assert quoted.splitlines() == [quoted]


def test_an_error_without_words_has_its_name() -> None:
    assert one_line(ConnectionError()) == "ConnectionError"
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
