"""Metrics of classification and regression: from a model's logits and the gold labels to one number.

Shapes: N rows, V classes (1 for regression).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata

from lightpaff.errors import UserError
from lightpaff.evaluation.comparison import Comparison
from lightpaff.files import write_whole
from lightpaff.recipe_sections import Metric

LOGITS = "logits_NV"

Array = NDArray[np.generic]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """What one model says about every row of a split, beside the gold labels.

    Attributes:
        logits_NV: float32 logits; for regression the predicted score in the one column.
        labels_N: integer gold classes, or float gold scores for regression.
        groups_N: the number of each row's group (a film, a document), where the task names groups.
    """

    logits_NV: NDArray[np.float32]
    labels_N: Array
    groups_N: Integers | None = None

    @cached_property
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

    def compare(self, other: "Predictions") -> Comparison:
        """Classes by their agreement, logits and scores by their largest difference, scores by their shift too."""
        difference_NV = self.logits_NV.astype(np.float64) - other.logits_NV
        difference, largest = float(np.abs(difference_NV).max()), float(np.abs(self.logits_NV).max())
        if self.logits_NV.shape[1] > 1:
            return Comparison(float((self.classes_N == other.classes_N).mean()), difference, largest)
        spread = float(self.logits_NV.std()) or 1.0
        return Comparison(None, difference, largest, shift=float(np.sqrt(np.square(difference_NV).mean())) / spread)

    @property
    def is_finite_N(self) -> NDArray[np.bool_]:
        """Which rows have numbers."""
        return np.asarray(np.isfinite(self.logits_NV).all(axis=1))

    @property
    def is_constant(self) -> bool:
        """One class, or one score, for every row."""
        said_N = self.scores_N if self.logits_NV.shape[1] == 1 else self.classes_N
        return len(self) > 1 and len(np.unique(said_N)) == 1

    @property
    def units_N(self) -> Integers:
        """The groups, or else every row for itself."""
        if self.groups_N is None:
            return np.arange(len(self))
        return np.unique(self.groups_N, return_inverse=True)[1].astype(np.int64)

    def weighted_score(self, metric: Metric, weights_N: Floats) -> float:
        """`score` where each row comes as often as its weight says."""
        if metric not in _OF_COUNTS:
            times_N = weights_N.astype(np.int64)
            repeated = np.repeat(self.logits_NV, times_N, axis=0), np.repeat(self.labels_N, times_N)
            return _OF_SCORES[metric](Predictions(*repeated))
        gold_N, said_N = self.labels_N.astype(np.int64), self.classes_N
        classes = max(self.logits_NV.shape[1], int(gold_N.max()) + 1)
        counted = ((gold_N, weights_N * (gold_N == said_N)), (gold_N, weights_N), (said_N, weights_N))
        return _OF_COUNTS[metric](*(np.bincount(side, by, classes).astype(np.float64) for side, by in counted))

    def score(self, metric: Metric) -> float:
        """The value of a metric of classes or scores: a fraction (accuracy, f1) or a correlation.

        f1 is that of the last of two labels (index 1), or the unweighted mean over the occurring classes where there
        are more than two. A correlation (matthews, pearson, spearman) with a constant has no value: it is 0.0 here, as
        GLUE counts a model that says one thing about every row as one that has learnt nothing.
        """
        return self.weighted_score(metric, np.ones(len(self)))


def _accuracy(hits_V: Floats, gold_V: Floats, said_V: Floats) -> float:
    return float(hits_V.sum() / gold_V.sum())


def _f1(hits_V: Floats, gold_V: Floats, said_V: Floats) -> float:
    occurrences_V = gold_V + said_V
    f1_V = 2 * hits_V / np.maximum(occurrences_V, 1)
    return float(f1_V[1]) if len(f1_V) == 2 else float(f1_V[occurrences_V > 0].mean())


def _matthews(hits_V: Floats, gold_V: Floats, said_V: Floats) -> float:
    """The multi-class coefficient (Gorodkin 2004), 0.0 where one side is constant."""
    total = gold_V.sum()
    spread = (total**2 - gold_V @ gold_V) * (total**2 - said_V @ said_V)
    return float((hits_V.sum() * total - gold_V @ said_V) / np.sqrt(spread)) if spread > 0 else 0.0


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


_OF_COUNTS: dict[Metric, Callable[[Floats, Floats, Floats], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
}
"""By how many rows each class is rightly said of, is the gold one of, and is said of: no V x V counts, which would take
most of a resample where classes are many."""

_OF_SCORES: dict[Metric, Callable[[Predictions], float]] = {"pearson": _pearson, "spearman": _spearman}


def write_logits(path: Path, logits_NV: NDArray[np.float32]) -> None:
    """Write logits, whole, as safetensors that `read_logits` reads."""
    write_whole(path, save({LOGITS: np.ascontiguousarray(logits_NV)}))


def read_logits(path: Path) -> NDArray[np.float32]:
    """The logits that `write_logits` wrote: N x V.

    Raises:
        UserError: when the file holds none.
    """
    try:
        logits_NV: NDArray[np.float32] = load_file(path)[LOGITS]
    except (SafetensorError, KeyError, OSError) as error:
        raise UserError(f"{path}: is no store of soft targets; delete its folder and run again") from error
    return logits_NV
