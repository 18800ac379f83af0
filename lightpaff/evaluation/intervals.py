"""Bootstrap intervals: how far a score, or the difference of two, could be off with other evaluation rows.

The percentile bootstrap (Efron and Tibshirani 1993, chapter 13). It speaks of the rows alone: what another random
seed of the training would change is not in it.

Shapes: N rows, V classes, R resamples.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightpaff.evaluation.metrics import Floats, Predictions, score
from lightpaff.recipe import Metric

_PERCENTILES = (2.5, 97.5)

OneOrMore = Predictions | Sequence[Predictions]
"""One model's predictions, or those of several seeds over the same rows: then the mean of their scores counts."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, in the metric's own unit."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """First minus second, with its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap_interval(metric: Metric, predictions: OneOrMore, seed: int = 0, resamples: int = 1000) -> Interval:
    """The 95 % interval of the score (of the mean score, given several seeds' predictions)."""
    several = _as_list(predictions)
    values_R = _resampled_mean(metric, several, seed, resamples)
    return Interval(*_percentiles(values_R))


def paired_difference(
    metric: Metric, first: OneOrMore, second: OneOrMore, seed: int = 0, resamples: int = 1000
) -> Difference:
    """The first's score minus the second's; every resample takes the same rows of both.

    Each side may be several seeds' predictions: then the mean scores are compared.
    """
    firsts, seconds = _as_list(first), _as_list(second)
    assert all(np.array_equal(firsts[0].labels_N, other.labels_N) for other in [*firsts, *seconds]), (
        "paired predictions are about the same rows"
    )
    # The same seed draws the same rows for both sides.
    differences_R = _resampled_mean(metric, firsts, seed, resamples) - _resampled_mean(metric, seconds, seed, resamples)
    value = _mean_score(metric, firsts) - _mean_score(metric, seconds)
    return Difference(value, *_percentiles(differences_R))


def _as_list(predictions: OneOrMore) -> list[Predictions]:
    return [predictions] if isinstance(predictions, Predictions) else list(predictions)


def _mean_score(metric: Metric, several: list[Predictions]) -> float:
    return float(np.mean([score(metric, predictions) for predictions in several]))


def _percentiles(values_R: Floats) -> tuple[float, float]:
    low, high = np.percentile(values_R, _PERCENTILES)
    return float(low), float(high)


def _resampled_mean(metric: Metric, several: list[Predictions], seed: int, resamples: int) -> Floats:
    values = [resampled_scores(metric, one, seed, resamples) for one in several]
    return np.asarray(np.mean(values, axis=0), dtype=np.float64)


def resampled_scores(metric: Metric, predictions: Predictions, seed: int, resamples: int) -> Floats:
    """The score of each resample, R values; the metrics of classes take a fast path through the confusion matrix."""
    from_confusion = _FROM_CONFUSION.get(metric)
    if from_confusion is None:
        return resampled_scores_plainly(metric, predictions, seed, resamples)
    classes = max(predictions.logits_NV.shape[1], int(predictions.labels_N.max()) + 1)
    cells_N = (predictions.labels_N.astype(np.int64) * classes + predictions.classes_N).astype(np.int32)
    values = []
    for rows_N in _draw_rows(len(cells_N), seed, resamples):
        counts = np.bincount(cells_N[rows_N], minlength=classes * classes)
        values.append(from_confusion(counts.reshape(classes, classes).astype(np.float64)))
    return np.array(values)


def resampled_scores_plainly(metric: Metric, predictions: Predictions, seed: int, resamples: int) -> Floats:
    """The same by scoring every resample from its rows: slow, for any metric."""
    rows = _draw_rows(len(predictions.labels_N), seed, resamples)
    return np.array([score(metric, predictions.take(rows_N)) for rows_N in rows])


def _draw_rows(number_of_rows: int, seed: int, resamples: int) -> Iterator[NDArray[np.int32]]:
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        # int32: half the random bits of int64, and no set of evaluation rows is longer.
        yield generator.integers(number_of_rows, size=number_of_rows, dtype=np.int32)


def _accuracy(confusion_VV: Floats) -> float:
    return float(np.trace(confusion_VV) / confusion_VV.sum())


def _f1(confusion_VV: Floats) -> float:
    hits_V = np.diag(confusion_VV)
    occurrences_V = confusion_VV.sum(axis=0) + confusion_VV.sum(axis=1)
    f1_V = 2 * hits_V / np.maximum(occurrences_V, 1)
    return float(f1_V[1]) if len(f1_V) == 2 else float(f1_V[occurrences_V > 0].mean())


def _matthews(confusion_VV: Floats) -> float:
    """The multi-class coefficient (Gorodkin 2004), 0.0 where one side is constant."""
    gold_V, said_V, total = confusion_VV.sum(axis=1), confusion_VV.sum(axis=0), confusion_VV.sum()
    spread = (total**2 - gold_V @ gold_V) * (total**2 - said_V @ said_V)
    return float((np.trace(confusion_VV) * total - gold_V @ said_V) / np.sqrt(spread)) if spread > 0 else 0.0


_FROM_CONFUSION: dict[Metric, Callable[[Floats], float]] = {"accuracy": _accuracy, "f1": _f1, "matthews": _matthews}
