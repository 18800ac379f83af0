import json
from pathlib import Path
from typing import Any

import pytest

from lightpaff.data.evaluation_texts import EvaluatedRows, read_evaluation_texts
from lightpaff.data.sources import ResolvedSource, resolve
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Columns
from lightpaff.recipe_sources import Source


def source_of(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> ResolvedSource:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return resolve(Source(path=str(folder / name)), folder)


def test_every_text_of_every_source_is_read_clean(tmp_path: Path) -> None:
    pairs = source_of(tmp_path, [{"first": " a\tfox ", "second": "runs", "label": 1}, {"first": "b", "second": None}])
    single = source_of(tmp_path, [{"sentence": "far away"}], "more.jsonl")
    evaluated = [
        EvaluatedRows(Columns(text="first", text_pair="second"), [pairs]),
        EvaluatedRows(Columns(), [single, single]),
        EvaluatedRows(Columns(), []),
    ]
    assert read_evaluation_texts(evaluated) == ["a fox", "runs", "b", "", "far away", "far away"]


def test_a_missing_column_is_refused(tmp_path: Path) -> None:
    rows = source_of(tmp_path, [{"text": "a fox"}])
    with pytest.raises(UserError, match=r"rows\.jsonl, row 1: has no column 'sentence'"):
        read_evaluation_texts([EvaluatedRows(Columns(), [rows])])


def test_only_what_is_read_is_in_the_identity(tmp_path: Path) -> None:
    row = {"sentence": "a fox", "label": 1}
    first, second = source_of(tmp_path, [row]), source_of(tmp_path, [row], "other.jsonl")
    identity = EvaluatedRows(Columns(), [first]).identity
    assert EvaluatedRows(Columns(label="stars"), [second]).identity == identity
    assert EvaluatedRows(Columns(text="label"), [first]).identity != identity
    assert EvaluatedRows(Columns(text_pair="label"), [first]).identity != identity
    assert EvaluatedRows(Columns(), [first, second]).identity != identity
    assert EvaluatedRows(Columns(), [source_of(tmp_path, [row, row], "two.jsonl")]).identity != identity


def test_the_texts_of_a_translation(tmp_path: Path) -> None:
    rows = source_of(tmp_path, [{"source": "a  fox", "target": "ein Fuchs", "refs": ["ein Fuchs", "der Fuchs"]}])
    plain = EvaluatedRows(Columns(), [rows], "translate")
    assert read_evaluation_texts([plain]) == ["a fox", "ein Fuchs"]
    compared = EvaluatedRows(Columns(references="refs"), [rows], "translate")
    assert read_evaluation_texts([compared]) == ["a fox", "ein Fuchs", "der Fuchs"]
    assert (plain.text_columns, compared.text_columns) == (["source", "target"], ["source", "target", "refs"])
    assert plain.identity != compared.identity
    # With references the target may be left out.
    nested = source_of(tmp_path, [{"translation": {"en": "a fox"}, "refs": ["der Fuchs"]}], "nested.jsonl")
    columns = Columns(source="translation.en", references="refs")
    assert read_evaluation_texts([EvaluatedRows(columns, [nested], "translate")]) == ["a fox", "der Fuchs"]


@pytest.mark.parametrize("document", ["row", "blank-line", "file"])
def test_the_texts_of_language_modelling_are_lines(document: str, tmp_path: Path) -> None:
    lines = [" = Title =", "", "a \tfox ran", "", "", "far away\u2028still far"]
    expected = ["= Title =", "a fox ran", "far away still far"]
    (tmp_path / "plain.txt").write_text("".join(f"{line}\n" for line in lines))
    rows = [{"text": f"{line}\n" if line else line} for line in lines]
    of_lines = source_of(tmp_path, rows)
    of_documents = source_of(tmp_path, [{"text": "\n".join(lines)}, {"text": None}], "documents.jsonl")
    for path in (str(tmp_path / "plain.txt"), of_lines.location, of_documents.location):
        source = resolve(Source.model_validate({"path": path, "document": document}), tmp_path)
        assert read_evaluation_texts([EvaluatedRows(Columns(text="text"), [source], "clm")]) == expected
    with pytest.raises(UserError, match=r"rows\.jsonl, row 1: has no column 'sentence'"):
        read_evaluation_texts([EvaluatedRows(Columns(), [of_lines], "clm")])
