"""Files as people have them: read right in every format, or refused in one line before anything is trained."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from lightpaff import Recipe
from lightpaff.data.task_data import TaskRows
from lightpaff.objectives.few_classes import read_labels
from lightpaff.pipeline.run import open_context, prepare

Rows = list[dict[str, Any]]
GOOD: Rows = [{"sentence": f"lovely film {n}", "label": "pos"} for n in range(4)]
BAD: Rows = [{"sentence": f"awful film {n}", "label": "neg"} for n in range(4)]
ROWS = GOOD + BAD


def with_labels(*labels: Any) -> Rows:
    return [{"sentence": f"a film {n}", "label": label} for n, label in enumerate(labels)]


def write_jsonl(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_delimited(path: Path, rows: Rows, delimiter: str = ",", newline: str = "\n") -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=newline)
    writer.writerow(rows[0])
    writer.writerows(["" if value is None else value for value in row.values()] for row in rows)
    path.write_bytes(buffer.getvalue().encode())


def write_parquet(path: Path, rows: Rows) -> None:
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    "jsonl": write_jsonl,
    "csv": write_delimited,
    "tsv": lambda path, rows: write_delimited(path, rows, "\t"),
    "parquet": write_parquet,
}
TEXT_FORMATS = ("csv", "tsv")


def read_task(recipe: Any) -> tuple[list[str], list[tuple[str, str | None]]]:
    """The classes and every training text with its class's name."""
    graph, _ = prepare(open_context(Recipe.load(recipe.write()), recipe.output), [])
    rows = graph.tasks[0].rows.directory
    labels, train = read_labels(rows), TaskRows.open(rows / "train.arrow")
    names = [None if label != label else labels[int(label)] for label in train.labels_N]
    return labels, [(text, name) for (text, _), name in zip(train.texts(), names, strict=True)]


@pytest.fixture
def recipe(tiny_recipe: Any) -> Any:
    """The tiny recipe with eight training rows, four of each class, that each test writes anew."""
    write_jsonl(tiny_recipe.folder / "evaluated.jsonl", [{**row, "sentence": f"so {row['sentence']}"} for row in ROWS])
    return tiny_recipe.set("tasks.0.validation", "evaluated.jsonl")


def use(recipe: Any, name: str, write: Callable[[Path], None]) -> Any:
    write(recipe.folder / name)
    return recipe.set("tasks.0.train", name)


LABELS: dict[str, tuple[list[Any], list[str], tuple[str, ...]]] = {
    "words": (["pos", "neg"] * 2, ["neg", "pos"], tuple(WRITERS)),
    "spaces around": (["pos ", "neg", "pos", " neg"], ["neg", "pos"], tuple(WRITERS)),
    "numbers": ([10, 9, 1, 10], ["1", "9", "10"], tuple(WRITERS)),
    "minus one and one": ([1, -1, 1, -1], ["-1", "1"], tuple(WRITERS)),
    "whole numbers as floats": ([1.0, 0.0, 1.0, 0.0], ["0", "1"], tuple(WRITERS)),
    "floats beside whole numbers": (["1", "1.0", "0", "0.0"], ["0", "1"], tuple(WRITERS)),
    "circled digits": (["①", "²", "①", "②"], ["²", "①", "②"], tuple(WRITERS)),
    "a word that reads nan": (["nan", "none", "nan", "null"], ["nan", "none", "null"], tuple(WRITERS)),
    "truth values": ([True, False, True, False], ["False", "True"], tuple(WRITERS)),
}


@pytest.mark.parametrize(
    ("kind", "format"), [(kind, format) for kind, (_, _, formats) in LABELS.items() for format in formats]
)
def test_labels_are_read_right(kind: str, format: str, recipe: Any) -> None:
    labels, expected, _ = LABELS[kind]
    rows = with_labels(*labels)
    recipe.set("tasks.0.labels", None)
    use(recipe, f"rows.{format}", lambda path: WRITERS[format](path, rows))
    use_validation = recipe.folder / f"same.{format}"
    WRITERS[format](use_validation, rows)
    recipe.set("tasks.0.validation", use_validation.name)
    found, read = read_task(recipe)
    assert found == expected
    by_name = {str(label).strip().removesuffix(".0") for label in labels}
    assert {name for _, name in read} == by_name


MISSING = {
    "null in jsonl": ("rows.jsonl", lambda path: path.write_text('{"sentence": "a", "label": null}\n')),
    "NaN in jsonl": ("rows.jsonl", lambda path: path.write_text('{"sentence": "a", "label": NaN}\n')),
    "empty in csv": ("rows.csv", lambda path: path.write_text("sentence,label\na,\n")),
    "empty in tsv": ("rows.tsv", lambda path: path.write_text("sentence\tlabel\na\t\n")),
    "null in parquet": ("rows.parquet", lambda path: write_parquet(path, [{"sentence": "a", "label": None}])),
    "NaN in parquet": ("rows.parquet", lambda path: write_parquet(path, [{"sentence": "a", "label": float("nan")}])),
    "half an emoji": ("rows.jsonl", lambda path: path.write_text('{"sentence": "a", "label": "\\ud83d"}\n')),
}


@pytest.mark.parametrize("kind", MISSING)
def test_a_missing_label_is_missing(kind: str, recipe: Any, run_cli: Callable[..., Any]) -> None:
    name, write = MISSING[kind]
    write(recipe.folder / name)
    recipe.set("tasks.0.validation", name)
    write_jsonl(recipe.folder / "train.jsonl", ROWS)
    outcome = run_cli("plan", recipe.write())
    assert outcome.code == 2
    assert "has no label; rows without one go under tasks.unlabelled" in outcome.message


def test_a_missing_text_is_no_text(recipe: Any) -> None:
    lines = [json.dumps(row) for row in ROWS] + [
        '{"sentence": NaN, "label": "pos"}',
        '{"sentence": null, "label": "pos"}',
    ]
    use(recipe, "rows.jsonl", lambda path: path.write_text("\n".join(lines) + "\n"))
    _, read = read_task(recipe)
    assert len(read) == len(ROWS)
    nan = [{"sentence": "nan", "label": "pos"}, *ROWS]
    for format in TEXT_FORMATS:
        use(recipe, f"rows.{format}", lambda path, format=format: WRITERS[format](path, nan))
        assert read_task(recipe)[1][0] == ("nan", "pos")


LAYOUTS = {
    "semicolons": ("rows.csv", lambda path: write_delimited(path, ROWS, ";")),
    "commas, and semicolons inside a name": (
        "rows.csv",
        lambda path: write_delimited(path, [{**row, "a note (b; c; d; e; f, g)": "x"} for row in ROWS]),
    ),
    "tabs in csv": ("rows.csv", lambda path: write_delimited(path, ROWS, "\t")),
    "vertical bars": ("rows.csv", lambda path: write_delimited(path, ROWS, "|")),
    "carriage returns in csv": ("rows.csv", lambda path: write_delimited(path, ROWS, newline="\r")),
    "carriage returns in tsv": ("rows.tsv", lambda path: write_delimited(path, ROWS, "\t", "\r")),
    "line ends of Windows": ("rows.csv", lambda path: write_delimited(path, ROWS, newline="\r\n")),
    "carriage returns in jsonl": (
        "rows.jsonl",
        lambda path: path.write_bytes(b"\r".join(json.dumps(row).encode() for row in ROWS)),
    ),
    "bytes in parquet": (
        "rows.parquet",
        lambda path: write_parquet(path, [{k: v.encode() for k, v in row.items()} for row in ROWS]),
    ),
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_layouts_of_other_programs(kind: str, recipe: Any) -> None:
    _, read = read_task(use(recipe, *LAYOUTS[kind]))
    assert read == [(row["sentence"], row["label"]) for row in ROWS]


def _twice(path: Path) -> None:
    table = pa.table([["a", "b"], ["pos", "neg"], ["neg", "pos"]], names=["sentence", "label", "label"])
    pyarrow.parquet.write_table(table, path)


REFUSED: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "a list as a label, jsonl": (
        "rows.jsonl",
        lambda path: write_jsonl(path, with_labels(["pos", "new"], ["neg"])),
        "row 1: the label is a list (['pos', 'new']), and classify takes one class or score a row",
    ),
    "one-hot labels, parquet": (
        "rows.parquet",
        lambda path: write_parquet(path, with_labels([0, 1], [1, 0])),
        "row 1: the label is a list ([0, 1])",
    ),
    "labels that differ in capitals": (
        "rows.csv",
        lambda path: write_delimited(path, with_labels("pos", "neg", "Pos")),
        "rows.csv, row 4: the label 'Pos' stands beside 'pos': classes that differ only in capitals; correct the rows, "
        "or name both in tasks.toy.labels",
    ),
    "the header again, csv": (
        "rows.csv",
        lambda path: write_delimited(path, [*ROWS, {"sentence": "sentence", "label": "label"}]),
        "rows.csv, row 10: repeats the names of the columns (sentence, label); delete the row",
    ),
    "the header again, jsonl": (
        "rows.jsonl",
        lambda path: write_jsonl(path, [*ROWS, {"sentence": "sentence", "label": "label"}]),
        "rows.jsonl, row 9: repeats the names of the columns",
    ),
    "the header again, with an index without a name": (
        "rows.csv",
        lambda path: path.write_text(",sentence,label\n0,a,pos\n1,b,neg\n,sentence,label\n0,c,pos\n"),
        "rows.csv, row 4: repeats the names of the columns (sentence, label); delete the row",
    ),
    "a word for missing beside numbers, csv": (
        "rows.csv",
        lambda path: write_delimited(path, with_labels("1", "0", "NA")),
        "rows.csv, row 4: the label 'NA' stands beside numbers: leave the cell empty where there is no label, or name "
        "it in tasks.toy.labels where it is a class",
    ),
    "a key twice, jsonl": (
        "rows.jsonl",
        lambda path: path.write_text('{"sentence": "a", "label": "pos", "label": "neg"}\n'),
        "line 1 is not JSON (it has the key 'label' twice; give every value its own key)",
    ),
    "a column twice, csv": (
        "rows.csv",
        lambda path: path.write_text("sentence,label,label\na,pos,neg\n"),
        "the header names 'label' twice",
    ),
    "a column twice, parquet": ("rows.parquet", _twice, "the header names 'label' twice"),
    "infinity, jsonl": (
        "rows.jsonl",
        lambda path: path.write_text('{"sentence": "a", "label": -Infinity}\n'),
        "line 1 has -Infinity, which is no JSON; write a number",
    ),
    "bytes that are no text, parquet": (
        "rows.parquet",
        lambda path: write_parquet(path, [{"sentence": b"\xff\xfe", "label": "pos"}]),
        "row 1: column 'sentence' holds bytes that are not UTF-8 text; write it as strings",
    ),
    "commas in tsv": (
        "rows.tsv",
        lambda path: write_delimited(path, ROWS),
        "the header has no tab but ',' (sentence,label); set format: csv, or separate the columns with tabs",
    ),
    "one row without its text": (
        "rows.jsonl",
        lambda path: write_jsonl(path, [*ROWS, {"label": "pos"}]),
        "row 9: has no column 'sentence'; it has label; name one of them in the recipe, or give the row one",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_right_is_refused_in_one_line(kind: str, recipe: Any, run_cli: Callable[..., Any]) -> None:
    name, write, line = REFUSED[kind]
    outcome = run_cli("plan", use(recipe, name, write).write())
    assert outcome.code == 2
    assert line in outcome.message


KEPT = [("jsonl", True), ("jsonl", 1), ("jsonl", 1.0), ("csv", "True"), ("csv", "1"), ("csv", "1.0"), ("parquet", 1.0)]


@pytest.mark.parametrize("wanted", [True, 1, 1.0, "1"])
@pytest.mark.parametrize(("format", "value"), KEPT)
def test_where_compares_values_not_their_spelling(format: str, value: Any, wanted: Any, recipe: Any) -> None:
    other = value.replace("1", "0").replace("True", "False") if isinstance(value, str) else type(value)(0)
    rows = [{**row, "keep": value if number % 2 else other} for number, row in enumerate(ROWS)]
    use(recipe, f"rows.{format}", lambda path: WRITERS[format](path, rows))
    recipe.set("tasks.0.train", {"path": f"rows.{format}", "where": {"keep": [wanted]}})
    is_truth, wants_truth = str(value) == "True", wanted is True
    if is_truth == wants_truth:
        assert len(read_task(recipe)[1]) == 4
    else:
        with pytest.raises(Exception, match="no row is left by where; the data has keep: "):
            read_task(recipe)


def test_nothing_left_shows_what_there_is(recipe: Any, run_cli: Callable[..., Any]) -> None:
    use(recipe, "rows.jsonl", lambda path: write_jsonl(path, ROWS))
    recipe.set("tasks.0.train", {"path": "rows.jsonl", "where": {"label": ["positive"]}})
    outcome = run_cli("plan", recipe.write())
    assert outcome.message.endswith("no row is left by where; the data has label: pos, neg; correct the recipe")


def test_rows_learnt_by_heart_and_sets_of_one_class_are_told(recipe: Any, run_cli: Callable[..., Any]) -> None:
    use(recipe, "rows.jsonl", lambda path: write_jsonl(path, ROWS))
    write_jsonl(recipe.folder / "test.jsonl", GOOD)
    recipe.set("tasks.0.test", "test.jsonl").set("tasks.0.labels", ["neg", "pos"])
    outcome = run_cli("plan", recipe.write())
    assert outcome.code == 0
    told = " ".join(outcome.stderr.split())
    assert "Warning: toy: 4 of 4 test rows (100%) are training rows too: expect worse on new text" in told
    assert "Warning: toy: every test row is of the class 'pos'" in told
    assert run_cli("run", recipe.write(), "--output", recipe.output).code == 0
    for page in ("report.md", "index.html"):
        shown = " ".join((recipe.output / "report" / page).read_text().replace("&#39;", "'").split())
        assert "4 of 4 test rows (100%) are training rows too" in shown
        assert "every test row is of the class 'pos'" in shown.replace("Every", "every")
        assert "of the class 'pos'" in shown


def test_test_rows_that_chose_the_checkpoint_are_told(recipe: Any, run_cli: Callable[..., Any]) -> None:
    use(recipe, "rows.jsonl", lambda path: write_jsonl(path, ROWS))
    recipe.set("tasks.0.test", {"path": "evaluated.jsonl", "limit": 6})
    told = " ".join(run_cli("plan", recipe.write()).stderr.split())
    assert "Warning: toy: 6 of 6 test rows (100%) are validation rows too: expect worse on new text" in told


def test_the_report_says_whose_f1_it_is(recipe: Any, run_cli: Callable[..., Any]) -> None:
    rows = with_labels(*([1, -1] * 4))
    use(recipe, "rows.jsonl", lambda path: write_jsonl(path, rows))
    recipe.set("tasks.0.validation", "rows.jsonl")
    assert run_cli("run", recipe.write(), "--output", recipe.output).code == 0
    report = json.loads((recipe.output / "report" / "report_data.json").read_text())
    assert report["tasks"][0]["notes"]["F1"] == "of the class '1'"


def test_rows_of_one_group_are_resampled_together(recipe: Any, run_cli: Callable[..., Any]) -> None:
    rows = [{**row, "film": f"film {number // 4}"} for number, row in enumerate(ROWS)]
    use(recipe, "rows.jsonl", lambda path: write_jsonl(path, ROWS))
    write_jsonl(recipe.folder / "films.jsonl", [{**row, "sentence": f"so {row['sentence']}"} for row in rows])
    recipe.set("tasks.0.validation", "films.jsonl").set("tasks.0.columns", {"group": "film"})
    write_jsonl(recipe.folder / "rows.jsonl", rows)
    assert run_cli("run", recipe.write(), "--output", recipe.output).code == 0
    report = json.loads((recipe.output / "report" / "report_data.json").read_text())
    assert report["tasks"][0]["notes"]["intervals"] == "8 rows in 2 groups, of which each is drawn whole"
    assert "2 groups" in (recipe.output / "report" / "report.md").read_text()


def test_a_group_that_is_not_there_is_refused(recipe: Any, run_cli: Callable[..., Any]) -> None:
    use(recipe, "rows.jsonl", lambda path: write_jsonl(path, ROWS))
    outcome = run_cli("plan", recipe.set("tasks.0.columns", {"group": "film"}).write())
    assert outcome.code == 2
    assert "row 1: has no column 'film'; it has sentence, label" in outcome.message
