"""Metrics of classification and regression: from a model's logits and the gold labels to one number.

Shapes: N rows, V classes (1 for regression).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lightpaff.recipe import Metric

Array = NDArray[np.generic]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """What one model says about every row of a split, beside the gold labels.

    Attributes:
        logits_NV: float32 logits; for regression the predicted score in the one column.
        labels_N: integer gold classes, or float gold scores for regression.
    """

    logits_NV: NDArray[np.float32]
    labels_N: Array

    @property
    def classes_N(self) -> Integers:
        """The class with the highest logit, the first one where several tie."""
        return np.asarray(self.logits_NV.argmax(axis=1), dtype=np.int64)

    @property
    def probabilities_NV(self) -> Floats:
        """The softmax of the logits, in float64."""
        return np.asarray(softmax(self.logits_NV.astype(np.float64), axis=1), dtype=np.float64)

    @property
    def scores_N(self) -> Floats:
        """The predicted scores of a regression, in float64."""
        assert self.logits_NV.shape[1] == 1, "only a regression has one score a row"
        return self.logits_NV[:, 0].astype(np.float64)

    @property
    def loss(self) -> float:
        """The mean of -log P(gold class) in nats; for regression the mean squared error."""
        if self.logits_NV.shape[1] == 1:
            return float(np.square(self.scores_N - self.labels_N.astype(np.float64)).mean())
        log_p_NV = log_softmax(self.logits_NV.astype(np.float64), axis=1)
        return float(-np.take_along_axis(log_p_NV, self.labels_N[:, None].astype(np.int64), axis=1).mean())

    def __len__(self) -> int:
        return len(self.labels_N)

    def take(self, rows_N: NDArray[np.int32] | Integers) -> "Predictions":
        """The predictions of the given rows, in that order; a row may come several times."""
        return Predictions(self.logits_NV[rows_N], self.labels_N[rows_N])

    def score(self, metric: Metric) -> float:
        """The value of a metric of classes or scores: a fraction (accuracy, f1) or a correlation.

        f1 is that of the last of two labels (index 1), or the unweighted mean over the occurring classes where there
        are more than two. A correlation (matthews, pearson, spearman) with a constant has no value: it is 0.0 here, as
        GLUE counts a model that says one thing about every row as one that has learnt nothing.
        """
        return _METRICS[metric](self)


def _accuracy(predictions: Predictions) -> float:
    return float(accuracy_score(predictions.labels_N, predictions.classes_N))


def _f1(predictions: Predictions) -> float:
    average = "binary" if predictions.logits_NV.shape[1] == 2 else "macro"
    return float(f1_score(predictions.labels_N, predictions.classes_N, average=average, zero_division=0.0))


def _matthews(predictions: Predictions) -> float:
    if len(np.unique(predictions.labels_N)) < 2 or len(np.unique(predictions.classes_N)) < 2:
        return 0.0
    return float(matthews_corrcoef(predictions.labels_N, predictions.classes_N))


def _pearson(predictions: Predictions) -> float:
    return correlation(predictions.scores_N, predictions.labels_N.astype(np.float64))


def _spearman(predictions: Predictions) -> float:
    return correlation(rankdata(predictions.scores_N), rankdata(predictions.labels_N))


def correlation(first_N: Floats, second_N: Floats) -> float:
    """Pearson's correlation, 0.0 where one side is constant (scipy gives NaN and a warning)."""
    if np.ptp(first_N) == 0 or np.ptp(second_N) == 0:
        return 0.0
    first_N, second_N = first_N - first_N.mean(), second_N - second_N.mean()
    # Tiny numbers have squares of 0: bring each side to size 1 first.
    first_N, second_N = first_N / np.abs(first_N).max(), second_N / np.abs(second_N).max()
    value = (first_N / np.linalg.norm(first_N)) @ (second_N / np.linalg.norm(second_N))
    return float(np.clip(value, -1.0, 1.0))


_METRICS: dict[Metric, Callable[[Predictions], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
