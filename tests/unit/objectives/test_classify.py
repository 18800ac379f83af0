"""Shapes: B examples, S tokens, N rows."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightpaff.data.token_table import TokenTable, write_token_table
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.objectives.classify import Classification

ROWS = [[2, 11, 3, 12, 3], [2, 13, 14, 15, 3, 16, 17, 3], [2, 18, 3]]
FIRST_LENGTHS = np.array([3, 5, 3])


@pytest.fixture
def rows(tmp_path: Path) -> TokenTable:
    write_token_table(tmp_path / "rows.arrow", [{"input_ids": ROWS}], {})
    return TokenTable(tmp_path / "rows.arrow")


def classify(rows: TokenTable, labels: np.ndarray, first_lengths: np.ndarray | None = None) -> Classification:
    return Classification(rows, labels, number_of_classes=2, padding_id=0, first_lengths_N=first_lengths)


def test_the_target_is_each_first_token(rows: TokenTable) -> None:
    batch = classify(rows, np.array([1, 0, NO_GOLD_LABEL])).batch(np.array([2, 0, 1]), draw=4)
    assert batch.positions_P.tolist() == [0, 8, 16]
    assert batch.inputs["input_ids"].flatten()[batch.positions_P].tolist() == [2, 2, 2]
    assert batch.labels_P.tolist() == [NO_GOLD_LABEL, 1, 0]
    assert batch.labels_P.dtype == torch.int64
    assert batch.example_ids_B.tolist() == [2, 0, 1]
    assert batch.draw == 0
    assert batch.inputs["input_ids"].tolist() == [
        [2, 18, 3, 0, 0, 0, 0, 0],
        [2, 11, 3, 12, 3, 0, 0, 0],
        [2, 13, 14, 15, 3, 16, 17, 3],
    ]
    assert batch.inputs["attention_mask"].sum(1).tolist() == [3, 5, 8]
    assert "token_type_ids" not in batch.inputs


def test_the_second_sentence_is_the_second_segment(rows: TokenTable) -> None:
    batch = classify(rows, np.array([1, 0, 1]), FIRST_LENGTHS).batch(np.array([0, 1, 2]), draw=0)
    assert batch.inputs["token_type_ids"].tolist() == [
        [0, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch.inputs["token_type_ids"].dtype == torch.int64


def test_scores_stay_scores(rows: TokenTable) -> None:
    labels = np.array([0.25, np.nan, -1.5], dtype=np.float32)
    batch = classify(rows, labels).batch(np.array([0, 1, 2]), draw=0)
    assert batch.labels_P.dtype == torch.float32
    assert batch.labels_P.nan_to_num(9).tolist() == [0.25, 9, -1.5]


def test_nothing_is_drawn(rows: TokenTable) -> None:
    data = classify(rows, np.array([1, 0, 1]))
    first, second = (data.batch(np.array([0, 2]), draw) for draw in (0, 1))
    assert all(torch.equal(first.inputs[name], second.inputs[name]) for name in first.inputs)
    assert first.inputs["input_ids"].shape == (2, 5)
    assert data.lengths_N.tolist() == [5, 8, 3]
    assert (data.head, data.number_of_classes) == ("classes", 2)
