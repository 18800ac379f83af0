"""Bootstrap intervals: how far a score, or the difference of two, could be off with other evaluation rows and seeds.

One model: the percentile bootstrap over the rows (Efron and Tibshirani 1993, chapter 13). What another random seed of
the training would change is then not in it.

Several seeds' predictions: rows and seeds are both samples, as in the multi-bootstrap of Sellam et al. 2022 (The
MultiBERTs, section 4). Two or three seeds are too few to draw from with replacement: such draws are too narrow by
sqrt((n - 1) / n) for n seeds and take a handful of values. And what rows and seeds do together would count twice, since
other rows move the seeds' scores apart too (Owen 2007, The pigeonhole bootstrap). So the rows are resampled, and:

1. the variance between the seeds' scores, less what the row resamples explain of it, over n, is that of their mean
   (the analysis of variance of a crossed design; not below 0); each side has its own;
2. each resample gets a normal deviate of that variance;
3. the percentiles are stretched about the score by Student's t over the normal quantile, with Satterthwaite's (1946)
   degrees of freedom, in which the rows count as many and each side's seeds as n - 1.

The interval is approximate where seeds are few. Simulated with two equal models, 3 seeds a side and 872 rows, it left
out the true 0 in about 3 % of the trials where seeds did not matter, 6 % where they had a standard deviation of 0.5
points and 7 % at 1.2 points (rows alone: 5, 17 and 46 %); with 2 seeds in 3, 7 and 9 %. A side with one seed adds
nothing for it, so that 3 seeds against 1 are told apart too often: 12 and 22 %. The seeds of both sides count as
independent: wide where the same seed helps both.

Shapes: N rows, V classes, R resamples, S seeds.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from lightpaff.evaluation.metrics import Floats, Predictions
from lightpaff.evaluation.outputs import Outputs
from lightpaff.recipe import Metric

_PERCENTILES = (2.5, 97.5)

OneOrMore = Outputs | Sequence[Outputs]
"""One model's outputs, or those of several seeds for the same rows: then the mean of their scores counts."""

_RANGES: dict[Metric, tuple[float, float]] = {
    "accuracy": (0.0, 1.0),
    "f1": (0.0, 1.0),
    "matthews": (-1.0, 1.0),
    "pearson": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
    "word_perplexity": (0.0, np.inf),
    "perplexity": (0.0, np.inf),
    "bleu": (0.0, 1.0),
    "chrf": (0.0, 1.0),
    "rouge1": (0.0, 1.0),
    "rouge2": (0.0, 1.0),
    "rougeL": (0.0, 1.0),
}


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


@dataclass(frozen=True)
class _Resampled:
    """The mean score of one side, in the rows as they are and in each resample of them.

    Attributes:
        seed_variance: of the mean, by the choice of the seeds alone; 0 with one seed.
        freedom: the degrees of freedom of that variance.
    """

    mean: float
    mean_R: Floats
    seed_variance: float
    freedom: int


def bootstrap_interval(metric: Metric, outputs: OneOrMore, seed: int = 0, resamples: int = 1000) -> Interval:
    """The 95 % interval of the score over the rows; given several seeds' outputs, of the mean score, over both.

    Where a resample's score is not finite (a perplexity can be infinite), it is the whole range of the metric.
    """
    side = _resample(metric, outputs, seed, resamples)
    low, high = _interval(side.mean, side.mean_R, [side], seed)
    lowest, highest = _RANGES[metric]
    return Interval(max(low, lowest), min(high, highest))


def paired_difference(
    metric: Metric, first: OneOrMore, second: OneOrMore, seed: int = 0, resamples: int = 1000
) -> Difference:
    """The first's score minus the second's; every resample takes the same rows of both.

    Each side may be several seeds' outputs: then the mean scores are compared, and the interval is also over the seeds
    of that side. Where a resample's score is not finite, the interval is everything.
    """
    firsts, seconds = _as_list(first), _as_list(second)
    assert all(_are_same_rows(firsts[0], other) for other in [*firsts, *seconds]), (
        "outputs are paired for the same rows"
    )
    # The same seed draws the same rows for both sides.
    sides = [_resample(metric, several, seed, resamples) for several in (firsts, seconds)]
    value = sides[0].mean - sides[1].mean
    with np.errstate(invalid="ignore"):  # Infinity less infinity.
        value_R = sides[0].mean_R - sides[1].mean_R
    return Difference(value, *_interval(value, value_R, sides, seed))


def _as_list(outputs: OneOrMore) -> list[Outputs]:
    return list(outputs) if isinstance(outputs, Sequence) else [outputs]


def _are_same_rows(first: Outputs, second: Outputs) -> bool:
    if isinstance(first, Predictions) and isinstance(second, Predictions):
        return np.array_equal(first.labels_N, second.labels_N)
    return len(first) == len(second)


def _resample(metric: Metric, outputs: OneOrMore, seed: int, resamples: int) -> _Resampled:
    several = _as_list(outputs)
    score_S = np.array([one.score(metric) for one in several])
    score_SR = np.stack([resampled_scores(metric, one, seed, resamples) for one in several])
    mean_R = score_SR.mean(axis=0)
    seeds = len(several)
    variance = 0.0
    if seeds > 1 and np.isfinite(score_S).all() and np.isfinite(mean_R).all():
        # How far other rows alone would move the seeds' scores apart.
        by_rows = (score_SR - mean_R).var(axis=1).sum() / (seeds - 1)
        variance = max(0.0, float(score_S.var(ddof=1) - by_rows)) / seeds
    return _Resampled(float(score_S.mean()), mean_R, variance, seeds - 1)


def _interval(value: float, value_R: Floats, sides: list[_Resampled], seed: int) -> tuple[float, float]:
    """The percentiles of the resamples, widened for the seeds of each side (see the module's text)."""
    if not np.isfinite(value_R).all():
        return -np.inf, np.inf
    spread = [side for side in sides if side.seed_variance > 0]
    variance = sum(side.seed_variance for side in spread)
    if not spread:
        low, high = np.percentile(value_R, _PERCENTILES)
        return float(low), float(high)
    deviates_R = np.random.default_rng([seed, 1]).normal(0.0, np.sqrt(variance), size=len(value_R))
    low, high = np.percentile(value_R + deviates_R, _PERCENTILES)
    total = value_R.var() + variance
    freedom = total**2 / sum(side.seed_variance**2 / side.freedom for side in spread)
    stretch = t.ppf(0.975, freedom) / norm.ppf(0.975)
    return float(value + stretch * (low - value)), float(value + stretch * (high - value))


def resampled_scores(metric: Metric, outputs: Outputs, seed: int, resamples: int) -> Floats:
    """The score of each resample, R values; the metrics of classes take a fast path through the confusion matrix."""
    if isinstance(outputs, Predictions) and metric in _FROM_CONFUSION:
        return _resampled_confusions(_FROM_CONFUSION[metric], outputs, seed, resamples)
    return resampled_scores_plainly(metric, outputs, seed, resamples)


def _resampled_confusions(
    from_confusion: Callable[[Floats], float], predictions: Predictions, seed: int, resamples: int
) -> Floats:
    classes = max(predictions.logits_NV.shape[1], int(predictions.labels_N.max()) + 1)
    cells_N = (predictions.labels_N.astype(np.int64) * classes + predictions.classes_N).astype(np.int32)
    values = []
    for rows_N in _draw_rows(len(cells_N), seed, resamples):
        counts = np.bincount(cells_N[rows_N], minlength=classes * classes)
        values.append(from_confusion(counts.reshape(classes, classes).astype(np.float64)))
    return np.array(values)


def resampled_scores_plainly(metric: Metric, outputs: Outputs, seed: int, resamples: int) -> Floats:
    """The same by scoring every resample from its rows: as slow as the outputs' `take` and `score`."""
    return np.array([outputs.take(rows_N).score(metric) for rows_N in _draw_rows(len(outputs), seed, resamples)])


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
