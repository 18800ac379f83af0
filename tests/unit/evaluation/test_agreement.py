import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightpaff.evaluation.agreement import agreement, mean_kl
from lightpaff.evaluation.metrics import Predictions

logits_NV = arrays(np.float32, (5, 3), elements=st.floats(-50, 50, width=32))


def predictions(logits: object) -> Predictions:
    logits_NV = np.asarray(logits, dtype=np.float32)
    return Predictions(logits_NV, np.zeros(len(logits_NV), dtype=np.int64))


def test_agreement_is_the_share_of_equal_answers() -> None:
    first = predictions([[0, 1], [0, 1], [1, 0], [1, 0]])
    second = predictions([[0, 9], [2, 1], [1, 0], [3, 2]])
    assert agreement(first, second) == 0.75


def test_agreement_of_regressions_is_their_correlation() -> None:
    assert agreement(predictions([[1], [2], [3]]), predictions([[10], [20], [30]])) == pytest.approx(1.0)
    assert agreement(predictions([[1], [2], [3]]), predictions([[5], [5], [5]])) == 0.0


def test_kl_of_a_worked_example() -> None:
    teacher, student = predictions(np.log([[0.5, 0.5]])), predictions(np.log([[0.25, 0.75]]))
    assert mean_kl(teacher, student) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), abs=1e-6)


@given(logits_NV, logits_NV)
@settings(max_examples=50, deadline=None)
def test_kl_is_zero_for_the_same_and_never_negative(first: np.ndarray, second: np.ndarray) -> None:
    assert mean_kl(predictions(first), predictions(first)) == 0.0
    assert mean_kl(predictions(first), predictions(second)) >= 0.0
