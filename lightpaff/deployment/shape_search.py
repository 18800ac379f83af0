"""Which shapes to measure, few of them, and which of the measured ones to take.

Latency grows with every size of a model. A model of it is fitted to what has been measured and chooses what to measure
next; what is recommended, and shown, has been measured. Of two shapes the larger one is better, by the parameters of
its layers.

Shapes: M measured ones, F features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from lightpaff.deployment.shape_grid import name_shape
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Shape
from lightpaff.report import formats

MOST_MEASURED = 12
"""Shapes that a search measures at most."""

_FRONT = (0.7, 0.5, 0.35, 0.25)
"""Besides the recommended shape, those with the most parameters in these parts of its time are measured."""
_DOUBT = 1.2
"""The larger shape that is predicted to be the fastest is measured too unless it is so many times over the budget."""
_PRIOR_WEIGHT = 0.002
_PRIOR_SHARES = {False: (0.04, 0.08, 0.08, 0.8), True: (0.04, 0.12, 0.04, 0.25, 0.1, 0.45)}
"""Of the features' parts in the time of a middling shape; with a decoder beside the encoder or without."""


@dataclass(frozen=True)
class Budget:
    """What a student may take: milliseconds for one answer, and bytes on disk."""

    milliseconds: float
    bytes: float


@dataclass(frozen=True)
class Candidate:
    """A student that could be.

    Attributes:
        shape: all its sizes.
        parameters: of the model with its head.
        layer_parameters: of the layers alone; a stand-in for its quality. Embedding tables are left out: they cost
            hardly any time and say little of quality, and with them wide and shallow students would win.
        least_bytes: that its weights take as exported; a few bytes more are usual.
    """

    shape: Shape
    parameters: int
    layer_parameters: int
    least_bytes: int


@dataclass(frozen=True)
class Timing:
    """How an exported model with random weights did.

    Attributes:
        bytes: of its weights on disk.
        median_ms: of one answer, as is `p95_ms`.
        rounds: how many answers were timed.
        written: tokens that one answer wrote, on average; 0 for a classifier.
    """

    bytes: int
    median_ms: float
    p95_ms: float
    rounds: int
    written: float


@dataclass(frozen=True)
class MeasuredShape:
    """A candidate and how it did."""

    candidate: Candidate
    timing: Timing

    def fits(self, budget: Budget) -> bool:
        """Whether it is small and fast enough."""
        return self.timing.bytes <= budget.bytes and self.timing.median_ms <= budget.milliseconds


def search_shapes(
    candidates: Sequence[Candidate], budget: Budget, measure: Callable[[Candidate], Timing]
) -> list[MeasuredShape]:
    """Measure the shape with the most parameters in its layers in the budget, and those that make up the front below.

    The smallest shape is measured first, whatever it takes: if it does not fit, nothing does. At most `MOST_MEASURED`
    are measured.

    Args:
        candidates: none twice, and one of them no larger in any size than every other.
        budget: of latency and size.
        measure: measures a candidate.

    Returns:
        What was measured, in that order; `recommend_shape` finds the best of it.
    """
    smallest = min(candidates, key=lambda candidate: candidate.layer_parameters)
    measured = [MeasuredShape(smallest, measure(smallest))]
    # Larger ones are larger and slower still.
    while measured[0].fits(budget) and len(measured) < MOST_MEASURED:
        chosen = _choose_next(candidates, measured, budget)
        if chosen is None:
            break
        measured.append(MeasuredShape(chosen, measure(chosen)))
    return measured


def find_middle(candidates: Sequence[Candidate]) -> Candidate:
    """The one of middling size: neither much faster nor much slower than any other."""
    return sorted(candidates, key=lambda one: one.layer_parameters)[len(candidates) // 2]


def recommend_shape(measured: Sequence[MeasuredShape], budget: Budget) -> MeasuredShape:
    """The one with the most parameters in its layers that fits; of equals, the fastest.

    Raises:
        UserError: none fits; names the one that comes nearest.
    """
    fitting = [one for one in measured if one.fits(budget)]
    if fitting:
        return max(fitting, key=lambda one: (one.candidate.layer_parameters, -one.timing.median_ms))
    nearest = min(measured, key=lambda one: (one.timing.bytes > budget.bytes, one.timing.median_ms))
    raise UserError(
        f"no student fits into {formats.milliseconds(budget.milliseconds)} and {formats.megabytes(int(budget.bytes))}: "
        f"the nearest, {name_shape(nearest.candidate.shape)}, takes {formats.milliseconds(nearest.timing.median_ms)} "
        f"and {formats.megabytes(nearest.timing.bytes)}; raise --max-latency or --size, or take another --runtime"
    )


def find_front(measured: Sequence[MeasuredShape]) -> list[MeasuredShape]:
    """Those that no other one beats, the fastest first: each has larger layers than all that are faster."""
    front: list[MeasuredShape] = []
    for one in sorted(measured, key=lambda one: (one.timing.median_ms, -one.candidate.layer_parameters)):
        if not front or one.candidate.layer_parameters > front[-1].candidate.layer_parameters:
            front.append(one)
    return front


def predict_latencies(candidates: Sequence[Candidate], measured: Sequence[MeasuredShape]) -> list[float]:
    """The milliseconds of every candidate: as measured, or as a model says that is fitted to the measured ones.

    The model is a sum of parts, none of them negative: a constant, one that grows with the width (tables and
    projections), and for each stack of layers one that grows with their number and one with their multiplications.
    The errors are relative. A weak prior decides where too little is measured. No prediction is below a measured shape
    that is nowhere larger, or above one that is nowhere smaller.
    """
    features_MF = np.array([_features(one.candidate.shape) for one in measured])
    times_M = np.array([one.timing.median_ms for one in measured])
    middle_F = np.median([_features(candidate.shape) for candidate in candidates], axis=0)
    parts_F = _fit_parts(features_MF / middle_F, times_M)
    known = {one.candidate.shape: one.timing.median_ms for one in measured}
    return [
        known[candidate.shape]
        if candidate.shape in known
        else float(np.clip(_features(candidate.shape) / middle_F @ parts_F, *_bounds(candidate.shape, measured)))
        for candidate in candidates
    ]


def _choose_next(
    candidates: Sequence[Candidate], measured: Sequence[MeasuredShape], budget: Budget
) -> Candidate | None:
    """The candidate with the most parameters in the budget, then in parts of it, where it is not measured yet."""
    latencies = dict(zip(candidates, predict_latencies(candidates, measured), strict=True))
    done = {one.candidate for one in measured}
    small = [one for one in candidates if _expected_bytes(one, measured) <= budget.bytes]

    def best_within(milliseconds: float) -> Candidate | None:
        fast = [one for one in small if latencies[one] <= milliseconds]
        return max(fast, key=lambda one: (one.layer_parameters, -latencies[one]), default=None)

    champion = best_within(budget.milliseconds)
    if champion is None or champion not in done:
        return champion
    better = [one for one in small if one.layer_parameters > champion.layer_parameters and one not in done]
    challenger = min(better, key=lambda one: latencies[one], default=None)
    if challenger is not None and latencies[challenger] <= _DOUBT * budget.milliseconds:
        return challenger
    for part in _FRONT:
        runner_up = best_within(part * latencies[champion])
        if runner_up is not None and runner_up not in done:
            return runner_up
    return None


def _expected_bytes(candidate: Candidate, measured: Sequence[MeasuredShape]) -> float:
    found = {one.candidate: one.timing.bytes for one in measured}
    excess = min(one.timing.bytes / one.candidate.least_bytes for one in measured)
    return found.get(candidate, candidate.least_bytes * excess)


def _features(shape: Shape) -> NDArray[np.float64]:
    """Relative to a part of the time each; see `predict_latencies`."""
    assert shape.hidden_size is not None
    assert shape.feed_forward is not None
    width, inner = shape.hidden_size, shape.feed_forward
    parts = [1, width, shape.layers, shape.layers * width * (4 * width + 2 * inner)]
    if shape.decoder_layers is not None:
        # With attention to the encoder besides.
        parts += [shape.decoder_layers, shape.decoder_layers * width * (8 * width + 2 * inner)]
    return np.array(parts, dtype=np.float64)


def _fit_parts(features_MF: NDArray[np.float64], times_M: NDArray[np.float64]) -> NDArray[np.float64]:
    """The milliseconds of a feature's 1: non-negative least squares of relative errors, with the prior as more rows."""
    shares_F = np.array(_PRIOR_SHARES[features_MF.shape[1] > 4])
    # The prior has the proportions; how fast the machine is comes from the slowest, which overheads tell least of.
    slowest = int(np.argmax(times_M))
    prior_F = shares_F * times_M[slowest] / float(features_MF[slowest] @ shares_F)
    weight = _PRIOR_WEIGHT**0.5
    rows = np.concatenate([features_MF / times_M[:, None], weight * np.diag(1 / prior_F)])
    wanted = np.concatenate([np.ones(len(times_M)), np.full(len(prior_F), weight)])
    parts_F: NDArray[np.float64] = nnls(rows, wanted)[0]
    return parts_F


def _bounds(shape: Shape, measured: Sequence[MeasuredShape]) -> tuple[float, float]:
    below = [one.timing.median_ms for one in measured if _is_within(one.candidate.shape, shape)]
    above = [one.timing.median_ms for one in measured if _is_within(shape, one.candidate.shape)]
    low = max(below, default=0.0)
    return low, max(low, min(above, default=np.inf))


def _is_within(small: Shape, large: Shape) -> bool:
    """Whether no size of the one is above the other's."""
    assert small.hidden_size is not None
    assert large.hidden_size is not None
    return (
        small.layers <= large.layers
        and (small.decoder_layers or 0) <= (large.decoder_layers or 0)
        and small.hidden_size <= large.hidden_size
    )
