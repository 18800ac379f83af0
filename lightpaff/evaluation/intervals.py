"""Bootstrap intervals: how far a score, or the difference of two, could be off with other evaluation rows and seeds.

One model: the percentile bootstrap over the rows (Efron and Tibshirani 1993, chapter 13). What another random seed of
the training would change is then not in it. Rows that belong together (of one film or document; neighbouring windows of
a text) are drawn together: as if they were independent, intervals would be too narrow. What is drawn, U units, may be
few: resamples are then too narrow by sqrt((U - 1) / U), for which they are widened, and the percentiles by Student's t
as for seeds. Of one unit alone nothing follows: the interval is everything.

Where all rows that differ between two models differ one way, or none does, resamples know of no other way. What was
seen in none of N rows may be so in 3/N of them (the rule of three, at 95 %), so that resamples get a normal deviate of
half of that too: 4 of 1,000 rows for one model and none for the other are p 0.11 (the sign test's is 0.125; without
it, 0.04), 6 are 0.04 (0.03).

Several seeds' predictions: rows and seeds are both samples, as in the multi-bootstrap of Sellam et al. 2022 (The
MultiBERTs, section 4). Two or three seeds are too few to draw from with replacement: such draws are too narrow by
sqrt((n - 1) / n) for n seeds and take a handful of values. And what rows and seeds do together would count twice, since
other rows move the seeds' scores apart too (Owen 2007, The pigeonhole bootstrap). So the rows are resampled, and:

1. the variance between the seeds' scores, less what the row resamples explain of it, over n, is that of their mean
   (the analysis of variance of a crossed design; not below 0); each side has its own;
2. each resample gets a normal deviate of that variance;
3. the percentiles are stretched about the score by Student's t over the normal quantile, with Satterthwaite's (1946)
   degrees of freedom, in which the units of rows count as U - 1 and each side's seeds as n - 1.

The interval is approximate where seeds are few. Simulated with two equal models, 3 seeds a side and 872 rows, it left
out the true 0 in about 3 % of the trials where seeds did not matter, 6 % where they had a standard deviation of 0.5
points and 7 % at 1.2 points (rows alone: 5, 17 and 46 %); with 2 seeds in 3, 7 and 9 %. A side with one seed adds
nothing for it, so that 3 seeds against 1 are told apart too often: 12 and 22 %.

One seed is often both sides' (the same masks and order), and then errs on the same rows in both: that cancels in their
difference, and with it what 1. relies on to return what it subtracts. So where both sides have as many seeds, 1. is
done for the differences of the pairs too, n - 1 degrees of freedom, and the wider of the two intervals is taken.
Simulated with shared errors, 3 seeds and 200 or 872 rows, the true 0 is left out in 2 to 6.5 % of the trials; by each
side's seeds alone in up to 18 %, by the pairs alone in up to 12 %.

Shapes: N rows, R resamples, S seeds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

from lightpaff.evaluation.likelihoods import LARGEST_EXPONENT
from lightpaff.evaluation.metrics import Predictions
from lightpaff.evaluation.outputs import Floats, Outputs
from lightpaff.recipe_sections import Metric

RESAMPLES = 10_000
_PERCENTILES = (2.5, 97.5)

OneOrMore = Outputs | Sequence[Outputs]
"""One model's outputs, or those of several seeds for the same rows: then the mean of their scores counts."""

_PERPLEXITIES = (1.0, math.exp(LARGEST_EXPONENT))
_RANGES: dict[Metric, tuple[float, float]] = {
    "accuracy": (0.0, 1.0),
    "f1": (0.0, 1.0),
    "entity_f1": (0.0, 1.0),
    "answer_f1": (0.0, 1.0),
    "exact_match": (0.0, 1.0),
    "matthews": (-1.0, 1.0),
    "pearson": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
    "word_perplexity": _PERPLEXITIES,
    "perplexity": _PERPLEXITIES,
    "bleu": (0.0, 1.0),
    "chrf": (0.0, 1.0),
    "rouge1": (0.0, 1.0),
    "rouge2": (0.0, 1.0),
    "rougeL": (0.0, 1.0),
}


_OF_NUMBERS = ("pearson", "spearman", "perplexity", "word_perplexity")
"""Of which no two models say the same of a row, so that no way in which they could differ goes unseen."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, in the metric's own unit."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """First minus second, with its 95 % interval.

    Attributes:
        p: two-sided, that a difference so far from 0 comes of the rows and seeds alone; by Student's t, whose variance
            and degrees of freedom are those of the interval.
    """

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class _Resampled:
    """The mean score of one side (or the mean difference of pairs), in the rows as they are and in each resample.

    Attributes:
        seed_variance: of the mean, by the choice of the seeds alone; 0 with one seed.
        freedom: the degrees of freedom of that variance.
    """

    mean: float
    mean_R: Floats
    seed_variance: float
    freedom: int


def bootstrap_interval(metric: Metric, outputs: OneOrMore, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The 95 % interval of the score over the rows; given several seeds' outputs, of the mean score, over both.

    Where a resample's score is not finite, it is the whole range of the metric.
    """
    several = _as_list(outputs)
    score_S = np.array([one.score(metric) for one in several])
    side = _summarise(score_S, resampled_scores(metric, several, seed, resamples))
    units = _count_units(several)
    unseen = _unseen(metric, len(several[0]))
    low, high = _interval(side.mean, _widened(side.mean, side.mean_R, units, unseen), [side], units, seed)
    lowest, highest = _RANGES[metric]
    return Interval(max(low, lowest), min(high, highest))


def paired_difference(
    metric: Metric, first: OneOrMore, second: OneOrMore, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """The first's score minus the second's; every resample takes the same rows of both.

    Each side may be several seeds' outputs: then the mean scores are compared, and the interval is also over the seeds
    of that side. Where a resample's score is not finite, the interval is all that the metric allows.
    """
    firsts, seconds = _as_list(first), _as_list(second)
    count = len(firsts)
    assert all(_are_same_rows(firsts[0], other) for other in [*firsts, *seconds]), (
        "outputs are paired for the same rows"
    )
    scores_SR = resampled_scores(metric, [*firsts, *seconds], seed, resamples)
    score_S = np.array([one.score(metric) for one in [*firsts, *seconds]])
    sides = [_summarise(score_S[:count], scores_SR[:count]), _summarise(score_S[count:], scores_SR[count:])]
    value = sides[0].mean - sides[1].mean
    units = _count_units(firsts)
    with np.errstate(invalid="ignore"):  # Infinity less infinity.
        value_R = _widened(value, sides[0].mean_R - sides[1].mean_R, units, _unseen(metric, len(firsts[0])))
        if count == len(seconds) > 1:
            pairs = _summarise(score_S[:count] - score_S[count:], scores_SR[:count] - scores_SR[count:])
            sides = max(sides, [pairs], key=lambda chosen: _half_width(value_R, chosen, units))
    low, high = _interval(value, value_R, sides, units, seed)
    lowest, highest = _RANGES[metric]
    furthest = highest - lowest
    return Difference(value, max(low, -furthest), min(high, furthest), _p_value(value, value_R, sides, units))


def _as_list(outputs: OneOrMore) -> list[Outputs]:
    return list(outputs) if isinstance(outputs, Sequence) else [outputs]


def _count_units(several: Sequence[Outputs]) -> int:
    return int(several[0].units_N.max()) + 1


def _unseen(metric: Metric, rows: int) -> float:
    """The standard deviation of a score by what so few rows did not show (see the module's text)."""
    if metric in _OF_NUMBERS:
        return 0.0
    lowest, highest = _RANGES[metric]
    return 1.5 * (highest - lowest) / rows


def _widened(value: float, value_R: Floats, units: int, unseen: float) -> Floats:
    """Resamples of a few units about the value, as wide as those of many would be, and by what none of them shows; not
    numbers where there is one unit."""
    unseen_R = np.random.default_rng(2).normal(0.0, unseen, size=len(value_R))
    with np.errstate(invalid="ignore"):  # Infinity less infinity.
        return value + (value_R - value) * (np.sqrt(units / (units - 1)) if units > 1 else np.nan) + unseen_R


def _are_same_rows(first: Outputs, second: Outputs) -> bool:
    if isinstance(first, Predictions) and isinstance(second, Predictions):
        return np.array_equal(first.labels_N, second.labels_N)
    return len(first) == len(second)


def _summarise(score_S: Floats, score_SR: Floats) -> _Resampled:
    mean_R = score_SR.mean(axis=0)
    seeds = len(score_S)
    variance = 0.0
    if seeds > 1 and np.isfinite(score_S).all() and np.isfinite(mean_R).all():
        # How far other rows alone would move the seeds' scores apart.
        by_rows = (score_SR - mean_R).var(axis=1).sum() / (seeds - 1)
        variance = max(0.0, float(score_S.var(ddof=1) - by_rows)) / seeds
    return _Resampled(float(score_S.mean()), mean_R, variance, seeds - 1)


def _interval(value: float, value_R: Floats, sides: list[_Resampled], units: int, seed: int) -> tuple[float, float]:
    """The percentiles of the resamples, widened for the seeds of each side (see the module's text)."""
    if not np.isfinite(value_R).all():
        return -np.inf, np.inf
    variance = sum(side.seed_variance for side in sides)
    deviates_R = np.random.default_rng([seed, 1]).normal(0.0, np.sqrt(variance), size=len(value_R))
    low, high = np.percentile(value_R + deviates_R, _PERCENTILES)
    _, freedom = _variance_and_freedom(value_R, sides, units)
    stretch = t.ppf(0.975, freedom) / norm.ppf(0.975)
    return float(value + stretch * (low - value)), float(value + stretch * (high - value))


def _half_width(value_R: Floats, sides: list[_Resampled], units: int) -> float:
    variance, freedom = _variance_and_freedom(value_R, sides, units)
    return float(t.ppf(0.975, freedom) * np.sqrt(variance))


def _p_value(value: float, value_R: Floats, sides: list[_Resampled], units: int) -> float:
    if not np.isfinite(value_R).all():
        return 1.0
    variance, freedom = _variance_and_freedom(value_R, sides, units)
    if variance == 0:
        return float(value == 0)
    return float(2 * t.sf(abs(value) / np.sqrt(variance), freedom))


def _variance_and_freedom(value_R: Floats, sides: list[_Resampled], units: int) -> tuple[float, float]:
    """By rows and seeds together, and Satterthwaite's degrees of freedom."""
    parts = [(float(value_R.var()), units - 1), *((side.seed_variance, side.freedom) for side in sides)]
    variance = sum(part for part, _ in parts)
    squares = sum(part**2 / freedom for part, freedom in parts if part > 0)
    return variance, variance**2 / squares if squares else np.inf


def adjusted(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): with all of them below 0.05, the chance that any is there
    without a reason is below 0.05."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    steps = np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors)
    found = np.empty(len(p_values))
    found[order] = np.minimum(steps, 1.0)
    return [float(p) for p in found]


def resampled_scores(metric: Metric, several: Sequence[Outputs], seed: int, resamples: int) -> Floats:
    """The scores of several outputs for the same rows in each resample: S x R. A resample is the same for all, and
    draws as many units (rows, groups of rows, blocks of windows) as there are, with replacement."""
    units_N, count = several[0].units_N, _count_units(several)
    generator = np.random.default_rng(seed)
    scores = np.empty((len(several), resamples))
    for resample in range(resamples):
        # int32: half the random bits of int64, and no set of evaluation rows is longer.
        drawn = generator.integers(count, size=count, dtype=np.int32)
        weights_N = np.bincount(drawn, minlength=count)[units_N].astype(np.float64)
        scores[:, resample] = [outputs.weighted_score(metric, weights_N) for outputs in several]
    return scores
