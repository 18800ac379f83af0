"""Bad data ends in exit code 2 and one line that names the file and row, what was found and what to do.

The fixtures look after the rest: no traceback, an earlier run unchanged, nothing half-written.
"""

import gzip
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.changes import (
    Refuse,
    change_last_row,
    change_rows,
    rows_of,
    set_key,
    write_file,
    write_rows,
)


def name_rows_with_words(recipe: Any) -> None:
    for name in ("train", "validation"):
        write_rows(recipe, name, [{**row, "label": ["bad", "good"][row["label"]]} for row in rows_of(recipe, name)])
    change_last_row("validation", label="maybe")(recipe)


TEXT = b'{"sentence": "warm", "label": 1}\n'


DATA: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "missing corpus": (set_key("pretraining.corpus", ["nowhere.txt"]), ("nowhere.txt: no such file", "check the path")),
    "missing rows": (set_key("tasks.0.train", "nowhere.jsonl"), ("nowhere.jsonl: no such file", "check the path")),
    "directory as a file": (set_key("tasks.0.train", "."), (": is a directory", "name a file in it")),
    "unknown ending": (
        lambda recipe: (write_file("rows.dat", TEXT)(recipe), recipe.set("tasks.0.train", "rows.dat")),
        ("rows.dat: the ending '.dat' tells no format", "add the key format"),
    ),
    "empty corpus": (write_file("corpus.txt", b""), ("corpus.txt: holds no rows", "give a file with data")),
    "empty rows": (write_file("train.jsonl", b""), ("train.jsonl: holds no rows", "give a file with data")),
    "binary file": (
        write_file("validation.jsonl", TEXT + b"\0\1\2\n"),
        ("validation.jsonl: is a binary file (NUL byte in line 2)", "give UTF-8 text"),
    ),
    "compressed file with another ending": (
        write_file("train.jsonl", gzip.compress(TEXT)),
        ("train.jsonl: is a binary file (.gz by its first bytes)", "let its name end in .gz"),
    ),
    "compressed file cut short": (
        lambda recipe: (
            write_file("rows.jsonl.gz", gzip.compress(TEXT * 1000)[:-20])(recipe),
            recipe.set("tasks.0.train", "rows.jsonl.gz"),
        ),
        ("rows.jsonl.gz: cannot be read", "get it anew"),
    ),
    "invalid UTF-8": (
        write_file("train.jsonl", TEXT + '{"sentence": "naïve", "label": 0}\n'.encode("latin-1")),
        ("train.jsonl: line 2 is not UTF-8 text", "0xef", "convert the file to UTF-8"),
    ),
    "broken JSON": (
        write_file("train.jsonl", TEXT + TEXT[:20] + b"\n"),
        ("train.jsonl: line 2 is not JSON", "write one JSON object a line"),
    ),
    "missing text column": (
        set_key("tasks.0.columns", {"text": "text"}),
        ("validation.jsonl, row 1: has no column 'text'; it has sentence, label", "name one of them in the recipe"),
    ),
    "missing corpus column": (
        set_key("pretraining.corpus", ["train.jsonl"]),
        ("train.jsonl, row 1: has no column 'text'; it has sentence, label",),
    ),
    "missing label column": (
        set_key("tasks.0.columns", {"label": "class"}),
        ("train.jsonl, row 1: has no column 'class'; it has sentence, label", "set tasks.toy.columns.label"),
    ),
    "text that is a list": (
        change_last_row("train", sentence=["a", "b"]),
        ("train.jsonl, row 96: column 'sentence' holds a list, not text",),
    ),
    "unknown label": (
        name_rows_with_words,
        ("validation.jsonl, row 48: unknown label 'maybe'; the labels are bad, good", "set tasks.toy.labels"),
    ),
    "label out of range": (
        change_last_row("validation", label=2),
        ("validation.jsonl, row 48: label 2 is out of range; the labels are 0, 1",),
    ),
    "hidden test labels": (
        change_rows("validation", label=-1),
        ("validation.jsonl, row 1: label -1 is out of range; the labels are 0, 1", "leave that split out"),
    ),
    "missing label": (
        change_last_row("validation", label=None),
        ("validation.jsonl, row 48: has no label", "tasks.unlabelled"),
    ),
    "one class only": (
        change_rows("train", label=1),
        ("tasks.toy: the training rows have 1 class (1) in column 'label'", "needs two"),
    ),
    "one class only of the named ones": (
        lambda recipe: (change_rows("train", label=1)(recipe), recipe.set("tasks.0.labels", [0, 1])),
        ("train.jsonl: the training rows of toy are all of one class", "needs two"),
    ),
    "one named class": (set_key("tasks.0.labels", [1]), ("tasks.toy.labels: needs at least two different labels",)),
    "score that is no number": (
        lambda recipe: (recipe.set("tasks.0.objective", "regress"), change_last_row("train", label="high")(recipe)),
        ("train.jsonl, row 96: label 'high' is not a finite number", "(tasks.toy)"),
    ),
    "empty texts": (
        change_rows("train", sentence=" "),
        ("train.jsonl: no row of toy (train) has a text in column 'sentence'; 96 are empty", "columns"),
    ),
    "corpus of spaces": (write_file("corpus.txt", b" \n\t\n"), ("corpus.txt: holds no rows",)),
    "corpus too short": (
        write_file("corpus.txt", b"one two three\n"),
        ("corpus.txt: holds ", "too few for one sequence; add text or lower pretraining.sequence_length"),
    ),
    "no row left": (
        set_key("tasks.0.train", {"path": "train.jsonl", "where": {"label": [7]}}),
        ("train.jsonl: no row is left by where", "the data has"),
    ),
    "another file than named": (
        set_key("tasks.0.train", {"path": "train.jsonl", "sha256": "0" * 64}),
        ("train.jsonl: its sha256 is ", "the recipe names 0000", "get the right file, or correct the recipe"),
    ),
    "data set of the Hub without a network": (
        set_key("tasks.0.train", {"path": "hub:nobody/no-such-rows", "hub_split": "train"}),
        ("hub:nobody/no-such-rows: cannot be had from the Hub", "give a local file"),
    ),
    "split of a Hub data set": (
        set_key("tasks.0.train", "hub:nobody/no-such-rows"),
        ("hub:nobody/no-such-rows: does not say which split", "add the key hub_split"),
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data(case: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    spoil, fragments = DATA[case]
    spoil(tiny_recipe)
    expect_refusal(tiny_recipe.write(), *fragments)


def test_wheel_with_another_content(tiny_recipe: Any, runs: Path, expect_refusal: Refuse) -> None:
    wheels = runs / "steps" / "downloads" / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheels / "toy_rows-1.0-py3-none-any.whl", "w") as archive:
        archive.write(tiny_recipe.folder / "train.jsonl", "toy_rows/train.jsonl")
    source = "wheel:toy-rows==1.0#toy_rows/train.jsonl"
    found = hashlib.sha256((tiny_recipe.folder / "train.jsonl").read_bytes()).hexdigest()
    tiny_recipe.set("tasks.0.train", {"path": source, "sha256": "f" * 64})
    expect_refusal(
        tiny_recipe.write(), f"{source}: its sha256 is {found}, the recipe names ffff", "delete it to fetch it again"
    )
    tiny_recipe.set("tasks.0.train", "wheel:toy-rows==1.0#train.jsonl")
    expect_refusal(tiny_recipe.write(), "has no file 'train.jsonl'; the closest are toy_rows/train.jsonl")
    tiny_recipe.set("tasks.0.train", "wheel:toy-rows#train.jsonl")
    expect_refusal(tiny_recipe.write(), "wheel:toy-rows#train.jsonl: is not a wheel source; write it as wheel:")
