"""Questions are read as SQuAD writes them and cut into windows that hold their answers.

Shapes: S tokens.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lightpaff.data.questions import Question, context_spans, cut_windows, read_questions
from lightpaff.data.readers import read_rows
from lightpaff.data.sources import resolve
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Task
from lightpaff.recipe_sources import Source

WORDS = [f"w{number}" for number in range(60)]


@pytest.fixture
def tokenizer() -> Tokenizer:
    backend = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate(["[CLS]", "[SEP]", "?", *WORDS])}, "?"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("[CLS]", 0), ("[SEP]", 1)]
    backend.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", special)
    return backend


def read(rows: list[dict[str, Any]], folder: Path) -> list[Question]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task.model_validate(
        {"name": "toy", "objective": "answer", "train": "rows.jsonl", "validation": "rows.jsonl"}
    )
    return list(read_questions([resolve(Source(path=str(folder / "rows.jsonl")), folder)], task, Counter()))


def test_every_token_of_a_context_is_in_a_window(tokenizer: Tokenizer) -> None:
    context = " ".join(WORDS)
    windows = cut_windows(tokenizer, "w1 w2", context, 30)
    assert len(windows) > 1
    assert all(len(window.ids) <= 30 for window in windows)
    spans = [span for window in windows for span in context_spans(window) if span != (-1, -1)]
    assert {context[start:end] for start, end in spans} == set(WORDS)
    first, second = ([span for span in context_spans(window) if span[0] >= 0] for window in windows[:2])
    assert len(set(first) & set(second)) == 30 // 3


@pytest.mark.parametrize("max_length", [8, 9, 12, 20])
def test_a_long_question_leaves_half_of_a_window(max_length: int, tokenizer: Tokenizer) -> None:
    windows = cut_windows(tokenizer, " ".join(WORDS), " ".join(WORDS[:15]), max_length)
    assert all(len(window.ids) <= max_length for window in windows)
    found = {span for window in windows for span in context_spans(window) if span[0] >= 0}
    assert len(found) == 15


def test_the_columns_are_those_of_the_hub_and_of_squads_files(tmp_path: Path) -> None:
    context = "Paris is in France, Paris!"
    answers = [{"text": "Paris", "answer_start": 20}]
    content = {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": []}]}]}
    asked = [{"id": "1", "question": "What?", "answers": answers}, {"id": "2", "question": "Why?", "answers": []}]
    content["data"][0]["paragraphs"][0]["qas"] = asked  # type: ignore[index]
    (tmp_path / "squad.json").write_text(json.dumps(content))
    rows = [row for _, row in read_rows(str(tmp_path / "squad.json"), None, "squad")]
    assert rows[0]["answers"] == {"text": ["Paris"], "answer_start": [20]}
    first, second = read(rows, tmp_path)
    assert (first.answers, first.answer_texts) == ([(20, 25)], ["Paris"])
    assert second.answers == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"answers": {"text": ["is"], "answer_start": [0]}}, "the answer 'is' does not stand at character 0"),
        ({"answers": "Paris"}, "column 'answers' holds 'Paris', not answers as SQuAD has them"),
        (
            {"answers": {"text": ["is"], "answer_start": [None]}},
            "column 'answers' holds \"{'text': ['is'], 'answer_start': [None]}\"",
        ),
        (
            {"answers": {"text": "is", "answer_start": 6}},
            "column 'answers' holds \"{'text': 'is', 'answer_start': 6}\"",
        ),
        ({"answers": {"text": ["is", "is"], "answer_start": [6]}}, "column 'answers' holds"),
        ({"answer": {}}, "column 'answers' holds 'None', not answers as SQuAD has them"),
        ({"context": None, "answers": {"text": [], "answer_start": []}}, ""),
    ],
)
def test_rows_that_cannot_be_used(row: dict[str, Any], expected: str, tmp_path: Path) -> None:
    whole = {"question": "What?", "context": "Paris is big", **row}
    if not expected:
        assert read([whole], tmp_path) == []
        return
    with pytest.raises(UserError) as caught:
        read([whole], tmp_path)
    assert f"row 1: {expected}" in str(caught.value)


@pytest.mark.parametrize("content", ["[]", '{"data": 3}', '{"data": [{"title": "t"}]}', '{"data"'])
def test_what_is_no_squad_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "squad.json").write_text(content)
    with pytest.raises(UserError, match="squad: is no SQuAD file, after question 0"):
        list(read_rows(str(tmp_path / "squad.json"), None, "squad"))
