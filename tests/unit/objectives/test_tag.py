"""Tagging: the first token of a word carries its class.

Shapes: B examples, S tokens, P target positions.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lightpaff.data.sources import resolve
from lightpaff.data.task_sources import TaskSources
from lightpaff.errors import UserError
from lightpaff.objectives import tag
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.objectives.few_classes import read_labels
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Task
from lightpaff.recipe_sources import Source

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "new", "york", "##er", ",", "is", "big"]


@pytest.fixture
def vocabulary() -> Vocabulary:
    backend = Tokenizer(models.WordPiece({piece: id_ for id_, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    return Vocabulary(tokenizer, len(PIECES))


@pytest.fixture
def prepare(tmp_path: Path, vocabulary: Vocabulary) -> Callable[..., tag.Tagging]:
    """Prepare a task whose training, validation and other rows are these, and open the training rows."""

    def run(
        rows: list[dict[str, Any]],
        validation: list[dict[str, Any]] | None = None,
        more: list[dict[str, Any]] | None = None,
        **keys: Any,
    ) -> tag.Tagging:
        for name, content in (("train", rows), ("validation", validation or rows), ("more", more or [])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
        task = Task.model_validate(
            {"name": "toy", "objective": "tag", "train": "train.jsonl", "validation": "validation.jsonl", **keys}
        )
        own, others, validated = (
            resolve(Source(path=str(tmp_path / f"{name}.jsonl")), tmp_path) for name in ("train", "more", "validation")
        )
        sources = TaskSources([own], [others] if more else [], [validated], [])
        tag.prepare_rows(task, sources, vocabulary, tmp_path, lambda count: None)
        return tag.open_split(task, tmp_path, "train", vocabulary)

    return run


ROWS = [
    {"tokens": ["New", "Yorker", "\u200d", "is", "big"], "tags": ["B-place", "I-place", "O", "O", "O"]},
    {"tokens": ["York", "big", ","], "tags": ["B-place", None, "O"]},
]


def test_the_first_token_carries_the_tag(prepare: Callable[..., tag.Tagging], tmp_path: Path) -> None:
    data = prepare(ROWS, ROWS[:1])
    assert read_labels(tmp_path) == ["O", "B-place", "I-place"]
    batch = data.batch(np.array([1, 0]), draw=0)
    assert batch.inputs["input_ids"].tolist() == [[2, 5, 9, 7, 3, 0, 0], [2, 4, 5, 6, 8, 9, 3]]
    # The joiner has no token, ##er is no first one, and `big` of the second row has no tag.
    assert batch.positions_P.tolist() == [1, 2, 3, 8, 9, 11, 12]
    assert batch.labels_P.tolist() == [1, NO_GOLD_LABEL, 0, 1, 2, 0, 0]
    assert data.targets_N.tolist() == [4, 3]
    assert data.gold_targets_N.tolist() == [4, 2]
    assert data.gold_ids.tolist() == [0, 1]


def test_tags_of_rows_without_labels_are_not_looked_at(prepare: Callable[..., tag.Tagging], tmp_path: Path) -> None:
    more = [{"tokens": ["big"], "tags": ["B-person"]}, {"tokens": ["is", "big"]}]
    data = prepare(ROWS, ROWS[:1], more)
    assert read_labels(tmp_path) == ["O", "B-place", "I-place"]
    assert data.gold_ids.tolist() == [0, 1]
    assert data.batch(np.array([2, 3]), draw=0).labels_P.tolist() == [NO_GOLD_LABEL] * 3


def test_words_that_are_cut_off_are_no_targets(prepare: Callable[..., tag.Tagging]) -> None:
    data = prepare([{"tokens": ["is"] * 9, "tags": ["O"] * 8 + ["B-place"]}], max_length=8)
    assert data.lengths_N.tolist() == [8]
    assert data.targets_N.tolist() == data.gold_targets_N.tolist() == [6]
    outputs = tag.outputs_of(np.zeros((6, 2), np.float32), data)
    assert len(outputs.gold[0]) == 9


def test_numbers_get_the_names_of_the_recipe(prepare: Callable[..., tag.Tagging]) -> None:
    rows = [{"tokens": ["big", "York"], "ner_tags": [0, 1]}]
    data = prepare(rows, columns={"label": "ner_tags"}, labels=["O", "B-place"])
    assert data.batch(np.array([0]), draw=0).labels_P.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"tokens": ["big", "York"], "tags": ["O"]}], "row 1: has 2 words in column 'tokens' and 1 tags in 'tags'"),
        ([{"tokens": "big York", "tags": ["O", "O"]}], "row 1: column 'tokens' holds 'big York', not a list of words"),
        ([{"words": ["big"], "tags": ["O"]}], "row 1: has no column 'tokens'; it has words, tags"),
        ([{"tokens": ["big"], "tags": ["O"]}], "have 1 tags (O) in column 'tags'; tagging needs two or more"),
        ([{"tokens": ["big", "is"], "tags": ["ADJ", "VERB"]}], "mark no entities, as B-place and O do; set"),
    ],
)
def test_rows_that_cannot_be_used(
    rows: list[dict[str, Any]], expected: str, prepare: Callable[..., tag.Tagging]
) -> None:
    with pytest.raises(UserError) as caught:
        prepare(rows)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "tags", "expected"),
    [
        (["O"], ["O", "O"], "tasks.toy.labels: needs at least two different labels; found ['O']"),
        (["O", "B-place", "O"], ["O", "B-place"], "tasks.toy.labels: needs at least two different labels; found ['O',"),
        (["O", "B-place"], ["O", "O"], "have 1 tags (O) in column 'tags'; tagging needs two or more"),
        (["O", "B-place"], [None, None], "have 0 tags (none) in column 'tags'; tagging needs two or more"),
        (["O", "B-place"], None, "have 0 tags (none) in column 'tags'; tagging needs two or more"),
    ],
)
def test_named_tags_that_cannot_be_learnt(
    labels: list[str], tags: Any, expected: str, prepare: Callable[..., tag.Tagging]
) -> None:
    with pytest.raises(UserError) as caught:
        prepare([{"tokens": ["big", "York"], "tags": tags}], ROWS[:1], labels=labels)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"tokens": ["big"], "tags": ["B-person"]}, "to [O, B-place, I-place, B-person]"),
        ({"tokens": ["big"], "tags": [None]}, "row 1: the word 'big' has no tag in column 'tags'; add it"),
    ],
)
def test_validation_rows_that_cannot_be_used(
    row: dict[str, Any], expected: str, prepare: Callable[..., tag.Tagging]
) -> None:
    with pytest.raises(UserError) as caught:
        prepare(ROWS, [row])
    assert expected in str(caught.value)
