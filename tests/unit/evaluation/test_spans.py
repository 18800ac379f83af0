"""Answers are the best spans of their windows, and scored as SQuAD scores them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightpaff.evaluation.spans import ExtractedAnswers, Windows, best_span, exact_match, token_f1


@pytest.mark.parametrize(
    ("said", "answers", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1.0, 1.0),
        ("Eiffel", ["the Eiffel Tower", "a tower"], 0.0, 2 / 3),
        ("in 1889 in Paris", ["Paris in"], 0.0, 2 * 2 / (4 + 2)),
        ("", [], 1.0, 1.0),
        ("Paris", [], 0.0, 0.0),
        ("", ["Paris"], 0.0, 0.0),
        # Of punctuation and articles nothing is left: SQuAD counts both as empty.
        ("the", ["..."], 1.0, 1.0),
    ],
)
def test_squads_scores(said: str, answers: list[str], exact: float, f1: float) -> None:
    assert exact_match(said, answers) == exact
    assert token_f1(said, answers) == pytest.approx(f1)


@given(st.integers(1, 45), st.integers(0, 10**6))
def test_the_best_span_is_that_of_a_search_over_all(tokens: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    start_S, end_S = random.normal(size=(2, tokens)).astype(np.float32)
    in_context_S = np.arange(tokens) >= random.integers(0, tokens)
    pairs = [
        (float(start_S[first] + end_S[last]), first, last)
        for first in range(tokens)
        for last in range(first, min(tokens, first + 30))
        if in_context_S[first]
    ]
    found = best_span(start_S, end_S, in_context_S)
    assert (found.score, found.first, found.last) == max(pairs)
    assert found.nothing == pytest.approx(float(start_S[0] + end_S[0]))


def test_a_window_without_context_has_no_span() -> None:
    assert best_span(np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(3, bool)).score == -np.inf


def _logits(*best: tuple[int, int, float]) -> np.ndarray:
    logits = np.zeros((2 * len(best), 8), dtype=np.float32)
    for window, (first, last, height) in enumerate(best):
        logits[2 * window, first] = logits[2 * window + 1, last] = height
    return logits


WINDOWS = Windows(
    question_W=np.array([0, 0, 1]),
    starts=[np.array([-1, -1, 0, 4]), np.array([-1, 4, 9]), np.array([-1, 0, 6])],
    ends=[np.array([-1, -1, 3, 8]), np.array([-1, 8, 12]), np.array([-1, 5, 9])],
    contexts=["one four five", "seven two"],
    answers=[["five"], []],
    gold_W2=np.array([[0, 0], [2, 2], [0, 0]]),
)


def test_the_best_of_all_windows_answers() -> None:
    # The first window prefers `one`, the second is surer of `fiv`; the second question has nothing above its logits.
    answers = ExtractedAnswers.of_logits(_logits((2, 2, 1.0), (2, 2, 5.0), (0, 0, 4.0)), WINDOWS, may_be_nothing=True)
    assert answers.texts == ["fiv", ""]
    assert answers.score("exact_match") == 0.5
    assert answers.weighted_score("exact_match", np.array([0.0, 3.0])) == 1.0
    assert answers.units_N.tolist() == [0, 1]
    must = ExtractedAnswers.of_logits(_logits((2, 2, 1.0), (2, 2, 5.0), (0, 0, 4.0)), WINDOWS, may_be_nothing=False)
    assert must.texts[1] != ""


def test_the_loss_is_that_of_the_gold_tokens() -> None:
    logits = _logits((2, 2, 1.0), (2, 2, 5.0), (0, 0, 4.0))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean([log_p[row, gold] for row, gold in enumerate([0, 0, 2, 2, 0, 0])])
    assert ExtractedAnswers.of_logits(logits, WINDOWS, may_be_nothing=True).loss == pytest.approx(expected, rel=1e-5)


def test_numbers_that_are_none_are_seen() -> None:
    logits = _logits((2, 2, 1.0), (2, 2, 5.0), (0, 0, 4.0))
    logits[2, 1] = np.nan
    assert ExtractedAnswers.of_logits(logits, WINDOWS, may_be_nothing=True).is_finite_N.tolist() == [False, True]


def test_what_is_never_chosen_is_not_compared() -> None:
    first = _logits((2, 2, 1.0), (2, 2, 5.0), (0, 0, 4.0))
    first[:, 5:] = -1e4
    second = first + np.where(first > -1, 0.25, 0).astype(np.float32)
    compared = ExtractedAnswers.of_logits(first, WINDOWS, may_be_nothing=True).compare(
        ExtractedAnswers.of_logits(second, WINDOWS, may_be_nothing=True)
    )
    assert compared.difference == pytest.approx(0.25)
    assert compared.agreement == 1.0
    assert compared.largest == 5.0
