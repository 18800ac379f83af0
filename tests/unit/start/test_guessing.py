"""What a file is for, as its columns tell; the recipe that comes of it."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe
from lightpaff.start.columns import look_at
from lightpaff.start.guessing import guess
from lightpaff.start.new import new_recipe
from lightpaff.start.parts import Files
from tests.unit.start.made_files import ROWS, films, reviews, sentence, write_file, write_rows


def pairs(row: int) -> dict[str, Any]:
    return {"left": sentence(9), "right": sentence(9), "same": row % 2}


def scores(row: int) -> dict[str, Any]:
    return {"left": sentence(9), "right": sentence(9), "similarity": round(row * 5 / ROWS, 3)}


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


def test_infinite_numbers_are_no_whole_ones(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "score": f"{row / 7:.3f}" if row else "1e999"}, "csv")
    assert guess(look_at(path)).objective == "regress"


def both_named(row: int) -> dict[str, Any]:
    return {"src": sentence(9), "tgt": sentence(9)}


def test_short_names_are_no_languages(tmp_path: Path) -> None:
    found = guess(look_at(write_file(tmp_path, both_named)))
    assert (found.columns, found.languages) == ({"source": "src", "target": "tgt"}, None)
    path = write_file(tmp_path, lambda row: {"q": sentence(9), "a": sentence(9)})
    assert guess(look_at(path)).languages is None


def test_what_could_be_the_label_too_is_named(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "lang": "xy"[row % 2], "emotion": "abc"[row % 3]})
    told = guess(look_at(path))
    assert told.columns["label"] == "lang"
    assert told.why[0].endswith("; also possible: 'emotion' (--column label=emotion)")
    assert "also possible" not in guess(look_at(path), {"label": "lang"}).why[0]


def numbered(first: int, classes: int) -> Callable[[int], dict[str, Any]]:
    return lambda row: {"text": sentence(9), "label": first + row % classes}


@pytest.mark.parametrize(("first", "classes", "rows"), [(0, 77, 380), (1, 77, 380), (0, 250, 1000)])
def test_numbered_classes_are_classes_however_many(first: int, classes: int, rows: int, tmp_path: Path) -> None:
    found = guess(look_at(write_file(tmp_path, numbered(first, classes), rows=rows)))
    assert found.objective == "classify"
    assert found.labels == [str(number) for number in range(first, first + classes)]


def test_many_names_are_labels(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "intent": f"wish {row % 150}"}, rows=400)
    found = guess(look_at(path))
    assert (found.objective, len(found.labels)) == ("classify", 150)


def test_a_model_decides_what_whole_numbers_are(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": row % 5})
    assert guess(look_at(path)).objective == "classify"
    assert guess(look_at(path), classes=1).objective == "regress"
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "points": 3 * (row % 60)})
    assert guess(look_at(path), {"label": "points"}).objective == "regress"
    assert guess(look_at(path), {"label": "points"}, classes=60).objective == "classify"


@pytest.mark.parametrize(
    ("make", "given", "role"),
    [
        (pairs, {"text_pair": "left", "group": "same"}, "text_pair=left"),
        (both_named, {"source": "tgt"}, "source=tgt"),
        (tagged, {"text_pair": "w"}, "text_pair=w"),
    ],
)
def test_a_named_column_without_a_place_is_refused(
    make: Callable[[int], dict[str, Any]], given: dict[str, str], role: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"--column {role} has no place in"):
        guess(look_at(write_file(tmp_path, make, "jsonl")), given)


@pytest.mark.parametrize("make", [tagged, both_named, plain], ids=["tag", "translate", "clm"])
def test_a_group_is_kept_together_whatever_the_task(make: Callable[[int], dict[str, Any]], tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {**make(row), "talk": f"talk {row // 5}"}, "jsonl")
    recipe, made = new_recipe(Files(path), None, tmp_path / "recipe.yaml", {"group": "talk"})
    split = recipe.tasks[0].validation.split
    assert split is not None
    assert split.by == "talk"
    assert any("rows of one 'talk' stay together" in line for line in made.decisions)


def test_lists_may_be_named(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {**tagged(row), "other": ["A", "B"]}, "jsonl")
    assert guess(look_at(path), {"text": "w", "label": "t"}).columns == {"text": "w", "label": "t"}


def test_several_labels_a_row_are_refused(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "labels": ["a", "b"][: row % 3]}, "jsonl")
    with pytest.raises(UserError, match=r"column 'labels' holds lists, and several labels a row are not supported"):
        guess(look_at(path))


def test_a_script_without_spaces_is_text(tmp_path: Path) -> None:
    letters = [chr(number) for number in range(0x4E00, 0x4E64)]
    rows = [
        {"内容": f"{''.join(letters[row % 7 : row % 7 + 40])}{row}。", "label": ["体育", "新闻"][row % 2]}
        for row in range(ROWS)
    ]
    recipe, made = new_recipe(Files(write_rows(tmp_path / "data.jsonl", rows)), None, tmp_path / "recipe.yaml")
    assert (recipe.tasks[0].objective, recipe.tasks[0].columns.text) == ("classify", "内容")
    assert recipe.tasks[0].max_length == 128
    assert any("characters on average" in line for line in made.decisions)


def test_a_text_is_no_label(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"a": sentence(9), "b": sentence(200)})
    with pytest.raises(UserError, match="column 'b' holds 200 different values, too many or too long ones for labels"):
        guess(look_at(path), {"text": "a", "label": "b"})


@pytest.mark.parametrize(
    ("label", "held"),
    [
        (lambda row: "pos", "one value, 'pos'"),
        (lambda row: None, r"0 values \(other\) in 0 of 200 rows"),
        (lambda row: "ab"[row % 2] if row < 20 else None, r"2 values \(text\) in 20 of 200 rows"),
    ],
    ids=["one", "none", "few"],
)
def test_text_with_an_unfit_label_is_modelled_on_request_alone(
    label: Callable[[int], Any], held: str, tmp_path: Path
) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": label(row)}, "jsonl")
    with pytest.raises(UserError, match=rf"column 'label' is named like a label, but holds {held}; name the label"):
        guess(look_at(path))
    assert guess(look_at(path), {"text": "text"}).objective == "clm"


def test_one_class_is_none(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": "pos"})
    with pytest.raises(UserError, match="column 'label' holds one value, 'pos', and classes are two or more"):
        guess(look_at(path), {"label": "label"})


def test_decimals_are_numbers(tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "label": Decimal(f"{row % 2}.0")}, "parquet")
    found = guess(look_at(path))
    assert (found.objective, found.labels) == ("classify", ["0", "1"])


@pytest.mark.parametrize("values", [10, 150])
def test_decimal_commas_are_no_classes(values: int, tmp_path: Path) -> None:
    path = write_file(tmp_path, lambda row: {"text": sentence(9), "score": f"{row % values},5"})
    with pytest.raises(UserError, match=r"column 'score' has decimal commas .*; write points"):
        guess(look_at(path))
