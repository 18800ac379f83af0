from pathlib import Path

import pytest

from lightpaff.deployment.shape_search import Timing
from lightpaff.deployment.shape_store import ShapeStore, cache_directory
from lightpaff.errors import UserError

TIMING = Timing(bytes=10, median_ms=1.5, p95_ms=2.0, rounds=7, written=0.0)
KEY = {"config": {"layers": 2}, "threads": 1}


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    ShapeStore(tmp_path / "shapes").keep(KEY, TIMING)
    store = ShapeStore(tmp_path / "shapes")
    found = store.find({"threads": 1, "config": {"layers": 2}})
    assert found is not None
    assert found.is_kept
    assert (found.median_ms, found.bytes) == (1.5, 10)
    assert store.find({**KEY, "threads": 2}) is None


def test_a_broken_file_is_as_none(tmp_path: Path) -> None:
    store = ShapeStore(tmp_path)
    store.keep(KEY, TIMING)
    [file] = tmp_path.glob("*.json")
    for content in ("", "[]", '{"timing": {"bytes": 1}}', "\xff"):
        file.write_text(content, encoding="latin-1")
        assert store.find(KEY) is None
    store.keep(KEY, TIMING)
    assert store.find(KEY) is not None


def test_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTPAFF_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"
    monkeypatch.delenv("LIGHTPAFF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "lightpaff"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "lightpaff"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="set LIGHTPAFF_CACHE to a folder"):
        ShapeStore(tmp_path / "file" / "shapes")
