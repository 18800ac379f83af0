"""Whether a model's confidence can be believed.

Shapes: N rows.
"""

import numpy as np

from lightpaff.evaluation.metrics import Predictions

_BINS = 15


def expected_calibration_error(predictions: Predictions) -> float:
    """The mean gap between confidence and accuracy, 0 (honest) to 1 (Guo et al. 2017, equation 3).

    Rows are put into 15 equally wide bins (low, high] of the probability of the predicted class; each bin counts
    by its share of the rows.
    """
    probabilities_NV = predictions.probabilities_NV
    assert probabilities_NV.shape[1] > 1, "a regression has no confidence"
    confidence_N = probabilities_NV.max(axis=1)
    gap_N = confidence_N - (predictions.classes_N == predictions.labels_N)
    bin_N = np.clip(np.ceil(confidence_N * _BINS).astype(np.int64) - 1, 0, _BINS - 1)
    # |sum of gaps| of a bin / N = its share x |mean confidence - accuracy|.
    return float(np.abs(np.bincount(bin_N, weights=gap_N, minlength=_BINS)).sum() / len(gap_N))
