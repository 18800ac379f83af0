"""What a file is for, as its columns tell; the recipe that comes of it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe
from lightpaff.start.columns import look_at
from lightpaff.start.guessing import guess
from lightpaff.start.new import new_recipe
from lightpaff.start.writing import Files

RANDOM = np.random.default_rng(0)
WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "me") for b in ("ra", "to", "shi", "n", "lop", "vex")]
ROWS = 200


def sentence(words: int) -> str:
    return " ".join(RANDOM.choice(WORDS, size=max(2, int(RANDOM.integers(words // 2, words + words // 2)))))


def reviews(row: int) -> dict[str, Any]:
    return {"nr": row, "What they wrote": sentence(12), "verdict?": ["bad", "good"][row % 2]}


def pairs(row: int) -> dict[str, Any]:
    return {"left": sentence(9), "right": sentence(9), "same": row % 2}


def scores(row: int) -> dict[str, Any]:
    return {"left": sentence(9), "right": sentence(9), "similarity": round(row * 5 / ROWS, 3)}


def films(row: int) -> dict[str, Any]:
    return {"movie_name": f"film {row // 8}", "text": sentence(10), "category": ["fresh", "rotten"][row % 2]}


def languages(row: int) -> dict[str, Any]:
    return {"en": sentence(8), "ro": sentence(8)}


def mails(row: int) -> dict[str, Any]:
    return {"mail": sentence(160), "subject": sentence(4)}


def plain(row: int) -> dict[str, Any]:
    return {"page": row, "body": sentence(30)}


def titled(row: int) -> dict[str, Any]:
    return {"headline": sentence(5), "article text": sentence(50), "topic": ["a", "b", "c", "d"][row % 4]}


def tagged(row: int) -> dict[str, Any]:
    words = sentence(8).split()
    return {"w": words, "t": [["O", "B-X"][len(word) % 2] for word in words]}


CASES: list[tuple[Callable[[int], dict[str, Any]], str, dict[str, str], str | None]] = [
    (reviews, "classify", {"text": "What they wrote", "label": "verdict?"}, None),
    (pairs, "classify", {"text": "left", "text_pair": "right", "label": "same"}, None),
    (scores, "regress", {"text": "left", "text_pair": "right", "label": "similarity"}, None),
    (films, "classify", {"text": "text", "label": "category"}, "movie_name"),
    (languages, "translate", {"source": "en", "target": "ro"}, None),
    (mails, "translate", {"source": "mail", "target": "subject"}, None),
    (plain, "clm", {"text": "body"}, None),
    (titled, "classify", {"text": "article text", "label": "topic"}, None),
    (tagged, "tag", {"text": "w", "label": "t"}, None),
]


def write_file(folder: Path, make: Callable[[int], dict[str, Any]], ending: str) -> Path:
    rows, path = [make(row) for row in range(ROWS)], folder / f"data.{ending}"
    if ending == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if ending == "tsv" else ",")
            writer.writerow(rows[0])
            writer.writerows(list(row.values()) for row in rows)
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("make", "objective", "columns", "group"), CASES, ids=lambda case: getattr(case, "__name__", "")
)
def test_the_task_and_its_columns_are_found(
    make: Callable[[int], dict[str, Any]],
    objective: str,
    columns: dict[str, str],
    group: str | None,
    ending: str,
    tmp_path: Path,
) -> None:
    if make is tagged and ending in ("csv", "tsv"):
        pytest.skip("a cell holds no list")
    path = write_file(tmp_path, make, ending)
    found = guess(look_at(path))
    assert (found.objective, found.columns, found.group) == (objective, columns, group)
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert recipe == Recipe.load(tmp_path / "recipe.yaml")
    assert recipe.tasks[0].objective == objective
    if recipe.teacher.from_scratch is not None:
        assert recipe.tasks[0].max_length <= recipe.teacher.from_scratch.max_length
        assert recipe.tasks[0].max_target_length <= recipe.tasks[0].max_length
    split = recipe.tasks[0].validation.split
    assert split is not None
    assert split.by == (group or next(iter(columns.values())))
    assert any(line.startswith(objective) for line in made.decisions)
    assert all(f"# - {line}" in made.text for line in found.why)


def test_columns_named_after_languages_are_translated(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"English": sentence(9), "German": sentence(9)}, "csv")
    recipe, _ = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    columns, languages = recipe.tasks[0].columns, recipe.tasks[0].languages
    assert (columns.source, columns.target) == ("English", "German")
    assert languages is not None
    assert (languages.source, languages.target) == ("en", "de")
    assert recipe.pretraining is not None
    assert [source.language for source in recipe.pretraining.corpus] == ["en", "de"]


def test_text_that_is_left_aside_is_named(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"asked": sentence(20), "told": sentence(9)}, "csv")
    assert "'told' left aside (--column source=NAME" in guess(look_at(path)).why[0]


def test_the_sentences_of_a_conll_file_are_cut_into_parts(tmp_path: Path) -> None:
    from lightpaff.data.sources import iterate_rows, resolve

    path = tmp_path / "news.conll"
    path.write_text("".join(f"word{row}\tB-thing\nthere\tO\n\n" for row in range(100)))
    recipe, _ = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    task = recipe.tasks[0]
    assert task.test is not None
    parts = [
        [row["tokens"][0] for _, row in iterate_rows(resolve(source, tmp_path))]
        for source in (task.train[0], task.validation, task.test)
    ]
    assert sorted(word for part in parts for word in part) == sorted(f"word{row}" for row in range(100))
    assert all(parts)


def test_named_columns_come_before_guesses(tmp_path: Path) -> None:
    path = write_file(tmp_path, titled, "csv")
    found = guess(look_at(path), {"text": "headline", "label": "topic"})
    assert found.columns == {"text": "headline", "label": "topic"}
    with pytest.raises(UserError, match=r"has no column .nothing.; it has headline, article text, topic"):
        guess(look_at(path), {"text": "nothing"})


def test_what_fits_nothing_says_what_it_holds(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"id": row, "other": row * 2}, "csv")
    with pytest.raises(UserError, match="no task fits its columns"):
        guess(look_at(path))


def test_what_the_data_says_stays_a_comment(tmp_path: Path) -> None:
    hostile = ["good\nseeds: {teacher: 77}\n#", "bad"]
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": hostile[row % 2]}, "jsonl")
    path = path.rename(tmp_path / "2023.jsonl")
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert recipe.seeds.teacher is None
    assert recipe.name == "2023"
    assert "seeds" in made.text


def test_infinite_numbers_are_no_whole_ones(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "score": f"{row / 7:.3f}" if row else "1e999"}, "csv")
    assert guess(look_at(path)).objective == "regress"


def test_an_existing_recipe_is_kept(tmp_path: Path) -> None:
    path = write_file(tmp_path, reviews, "csv")
    (tmp_path / "recipe.yaml").write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").read_text() == "mine"


def test_a_validation_file_of_other_columns_is_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, reviews, "csv")
    other = write_file(tmp_path, films, "jsonl")
    with pytest.raises(UserError, match=r"has no column .nr., which data\.csv has"):
        new_recipe(Files(path, validation=other), None, tmp_path / "recipe.yaml")


def test_no_text_is_in_two_parts(tmp_path: Path) -> None:
    from lightpaff.data.sources import iterate_rows, resolve

    path = write_file(tmp_path, lambda row: {**reviews(row), "What they wrote": f"text {row // 2} is here"}, "csv")
    recipe, _ = new_recipe(Files(path), None, tmp_path / "recipe.yaml")
    task = recipe.tasks[0]
    assert task.test is not None
    parts = [
        {row["What they wrote"] for _, row in iterate_rows(resolve(source, tmp_path))}
        for source in (task.train[0], task.validation, task.test)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == ROWS // 2
    assert all(parts)


def test_the_doctor_says_what_is_there() -> None:
    from lightpaff.start.doctor import examine

    found = {finding.name: finding.value for finding in examine()}
    assert {"processor", "threads", "memory", "disk here", "torch", "ONNX Runtime"} <= set(found)
    assert "x as fast" in found["bf16 against float32"]
