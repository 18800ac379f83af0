"""Entity F1 and accuracy of words are seqeval's; resamples count rows as often as they come."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import accuracy_score, f1_score

from lightpaff.evaluation.intervals import bootstrap_interval
from lightpaff.evaluation.tags import TagPredictions, entities_of, mark_entities

IOB = ["O", "B-a", "I-a", "B-b", "I-b"]
IOBES = [*IOB, "E-a", "S-a", "E-b", "S-b"]


def predictions(names: list[str], gold: Sequence[Sequence[int]], said: Sequence[Sequence[int]]) -> TagPredictions:
    logits = [np.eye(len(names), dtype=np.float32)[np.array(row, dtype=np.int64)] * 4 for row in said]
    return TagPredictions(
        names, [np.array(row, dtype=np.int64) for row in gold], [np.ones(len(row), bool) for row in gold], logits
    )


@st.composite
def tagged(draw: st.DrawFn) -> tuple[list[str], list[list[int]], list[list[int]]]:
    names = draw(st.sampled_from([IOB, IOBES]))
    tag = st.integers(0, len(names) - 1)
    rows = draw(st.lists(st.lists(st.tuples(tag, tag), min_size=1, max_size=8), min_size=1, max_size=5))
    return names, [[gold for gold, _ in row] for row in rows], [[said for _, said in row] for row in rows]


@given(tagged())
def test_scores_are_seqevals(case: tuple[list[str], list[list[int]], list[list[int]]]) -> None:
    names, gold, said = case
    found = predictions(names, gold, said)
    texts = [[[names[tag] for tag in row] for row in rows] for rows in (gold, said)]
    assert found.score("entity_f1") == pytest.approx(f1_score(*texts, zero_division=0))
    assert found.score("accuracy") == pytest.approx(accuracy_score(*texts))


def test_a_resample_counts_rows_as_often_as_they_come() -> None:
    found = predictions(IOB, [[1, 2, 0], [3, 0], [0]], [[1, 2, 0], [0, 3], [0]])
    repeated = predictions(IOB, [[1, 2, 0], [3, 0], [3, 0]], [[1, 2, 0], [0, 3], [0, 3]])
    for metric in ("entity_f1", "accuracy"):
        weighted = found.weighted_score(metric, np.array([1.0, 2.0, 0.0]))  # type: ignore[arg-type]
        assert weighted == pytest.approx(repeated.score(metric))  # type: ignore[arg-type]
    interval = bootstrap_interval("entity_f1", found, resamples=200)
    assert interval.low <= found.score("entity_f1") <= interval.high


def test_schemes_are_read_as_they_are() -> None:
    iob1 = entities_of(["I-a", "I-a", "B-a", "O", "I-b"])
    assert iob1 == [("a", 0, 1), ("a", 2, 2), ("b", 4, 4)]
    assert entities_of(["B-a", "E-a", "S-b", "O"]) == [("a", 0, 1), ("b", 2, 2)]
    assert entities_of(["B-a", "L-a", "U-b", "O"]) == [("a", 0, 1), ("b", 2, 2)]
    assert entities_of(["B-per-son", "I-per-son"]) == [("per-son", 0, 1)]


def test_tags_that_mark_no_entities() -> None:
    assert mark_entities(["O", "B-a", "I-a"])
    assert not mark_entities(["NOUN", "VERB"])
    assert not mark_entities(["O"])


def test_a_word_that_was_cut_off_counts_against_the_model() -> None:
    cut = TagPredictions(
        IOB, [np.array([1, 2, 1])], [np.array([True, True, False])], [np.eye(5, dtype=np.float32)[[1, 2]]]
    )
    assert cut.score("accuracy") == pytest.approx(2 / 3)
    assert cut.score("entity_f1") == pytest.approx(2 / 3)
    assert cut.is_finite_N.tolist() == [True]


def test_comparison_is_over_words() -> None:
    first = predictions(IOB, [[1, 2], [0]], [[1, 2], [0]])
    compared = first.compare(predictions(IOB, [[1, 2], [0]], [[1, 0], [0]]))
    assert compared.agreement == pytest.approx(2 / 3)
    assert compared.difference == 4.0
    assert predictions(IOB, [[1, 2]], [[0, 0]]).is_constant
    assert not first.is_constant
