import numpy as np
import pytest

from lightpaff.evaluation.calibration import expected_calibration_error
from lightpaff.evaluation.metrics import Predictions


def with_confidence(confidence: float, labels: list[int]) -> Predictions:
    logits_V = np.log([confidence, 1 - confidence]).astype(np.float32)
    return Predictions(np.tile(logits_V, (len(labels), 1)), np.array(labels))


def test_honest_confidence_has_no_error() -> None:
    assert expected_calibration_error(with_confidence(0.75, [0, 0, 0, 1])) == pytest.approx(0.0, abs=1e-6)


def test_overconfidence_is_the_gap() -> None:
    assert expected_calibration_error(with_confidence(0.9, [0, 1, 1, 1])) == pytest.approx(0.65, abs=1e-6)


def test_bins_do_not_cancel_each_other_but_rows_in_one_do() -> None:
    for confidence, expected in ((0.6, (0.4 + 0.9) / 2), (0.88, abs(0.88 + 0.9 - 1) / 2)):
        low, high = with_confidence(confidence, [0]), with_confidence(0.9, [1])
        both = Predictions(np.concatenate([low.logits_NV, high.logits_NV]), np.array([0, 1]))
        assert expected_calibration_error(both) == pytest.approx(expected, abs=1e-6)


def test_full_confidence_falls_into_the_last_bin() -> None:
    certain = Predictions(np.array([[100.0, 0.0]], dtype=np.float32), np.array([0]))
    assert expected_calibration_error(certain) == 0.0


def test_a_regression_has_no_confidence() -> None:
    with pytest.raises(AssertionError, match="regression"):
        expected_calibration_error(Predictions(np.zeros((3, 1), dtype=np.float32), np.zeros(3)))
