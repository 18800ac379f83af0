import numpy as np
import pytest

from lightpaff.deployment.shape_grid import list_shapes
from lightpaff.deployment.shape_search import (
    MOST_MEASURED,
    Budget,
    Candidate,
    MeasuredShape,
    Timing,
    find_front,
    find_middle,
    predict_latencies,
    recommend_shape,
    search_shapes,
)
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Shape

TEACHERS = {
    "BERT-base": (Shape(layers=12, hidden_size=768, heads=12, feed_forward=3072), 30_522),
    "GPT-2 medium": (Shape(layers=24, hidden_size=1024, heads=16, feed_forward=4096), 50_257),
    "MASS": (Shape(layers=6, decoder_layers=6, hidden_size=1024, heads=16, feed_forward=4096), 30_000),
}


def weights_of(shape: Shape, vocabulary: int) -> tuple[int, int, int]:
    assert shape.hidden_size is not None
    assert shape.feed_forward is not None
    width, inner = shape.hidden_size, shape.feed_forward
    layers = shape.layers * (4 * width**2 + 2 * width * inner)
    return vocabulary * width, layers, (shape.decoder_layers or 0) * (8 * width**2 + 2 * width * inner)


def make_candidates(teacher: str) -> list[Candidate]:
    shape, vocabulary = TEACHERS[teacher]
    sizes = {one: weights_of(one, vocabulary) for one in list_shapes(shape)}
    return [Candidate(one, sum(parts), sum(parts[1:]), sum(parts)) for one, parts in sizes.items()]


class Machine:
    """Times that grow with a model's sizes, in a way of its own, and differ a little from what they should be."""

    def __init__(self, seed: int, noise: float = 0.01) -> None:
        self.random = np.random.default_rng(seed)
        self.start, self.each, self.attention = self.random.uniform((0, 0, 0), (1, 0.3, 1e-3))
        self.work, self.power = self.random.uniform((2e-7, 0.85), (2e-6, 1.0))
        self.noise = noise
        self.known: dict[Candidate, float] = {}
        self.measured: list[Candidate] = []

    def milliseconds(self, candidate: Candidate) -> float:
        if candidate not in self.known:
            shape = candidate.shape
            _, encoder, decoder = weights_of(shape, 1)
            layers = shape.layers + 8 * (shape.decoder_layers or 0)
            time = self.start + layers * (self.each + self.attention * (shape.hidden_size or 0))
            time += self.work * (encoder**self.power + 3 * decoder**self.power)
            self.known[candidate] = time * self.random.normal(1, self.noise)
        return self.known[candidate]

    def measure(self, candidate: Candidate) -> Timing:
        self.measured.append(candidate)
        time = self.milliseconds(candidate)
        return Timing(round(1.02 * candidate.least_bytes), time, 1.1 * time, 9, 0.0)


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("seed", range(6))
def test_few_measurements_find_the_best(teacher: str, seed: int) -> None:
    candidates, machine = make_candidates(teacher), Machine(seed)
    slowest = max(machine.milliseconds(one) for one in candidates)
    budget = Budget(slowest / (1.5 + seed / 2), max(one.least_bytes for one in candidates) / 1.5)
    measured = search_shapes(candidates, budget, machine.measure)
    assert len(set(machine.measured)) == len(machine.measured) == len(measured) <= MOST_MEASURED < len(candidates) / 3
    fitting = [
        one
        for one in candidates
        if machine.milliseconds(one) <= budget.milliseconds and 1.02 * one.least_bytes <= budget.bytes
    ]
    best = max(fitting, key=lambda one: one.layer_parameters)
    found = recommend_shape(measured, budget)
    assert found.fits(budget)
    assert found.candidate.layer_parameters >= 0.98 * best.layer_parameters


def test_exports_larger_than_expected_are_not_recommended() -> None:
    candidates = make_candidates("BERT-base")
    budget = Budget(1e9, 40e6)

    def measure(candidate: Candidate) -> Timing:
        return Timing(2 * candidate.least_bytes, 1.0, 1.0, 9, 0.0)

    measured = search_shapes(candidates, budget, measure)
    assert recommend_shape(measured, budget).timing.bytes <= 40e6
    # After the first one, it is known that exports are twice as large.
    assert all(one.timing.bytes <= 40e6 for one in measured)


@pytest.mark.parametrize(("budget", "reason"), [(Budget(0.5, 1e9), "2.0 ms"), (Budget(100, 1e6), "4.3 MB")])
def test_nothing_fits(budget: Budget, reason: str) -> None:
    candidates = make_candidates("BERT-base")
    asked: list[Candidate] = []

    def measure(candidate: Candidate) -> Timing:
        asked.append(candidate)
        return Timing(candidate.least_bytes, 2.0, 2.0, 9, 0.0)

    measured = search_shapes(candidates, budget, measure)
    assert [one.layer_parameters for one in asked] == [min(one.layer_parameters for one in candidates)]
    with pytest.raises(UserError, match="no student fits into") as raised:
        recommend_shape(measured, budget)
    assert "2 × 128" in str(raised.value)
    assert reason in str(raised.value)


def shape_of(layers: int, parameters: int, milliseconds: float) -> MeasuredShape:
    shape = Shape(layers=layers, hidden_size=64, heads=1, feed_forward=256)
    return MeasuredShape(
        Candidate(shape, 100 - parameters, parameters, 4), Timing(4, milliseconds, milliseconds, 9, 0.0)
    )


@pytest.mark.parametrize("teacher", TEACHERS)
def test_the_middle_has_as_many_smaller_as_larger(teacher: str) -> None:
    candidates = make_candidates(teacher)
    middle = find_middle(candidates)
    smaller, larger = (
        sum(sign * one.layer_parameters < sign * middle.layer_parameters for one in candidates) for sign in (1, -1)
    )
    assert abs(smaller - larger) <= 2


def test_front() -> None:
    # The totals, which count the tables, are the other way round.
    small, slow, large, equal = (shape_of(*sizes) for sizes in [(2, 10, 1.0), (3, 9, 2.0), (4, 30, 3.0), (6, 30, 4.0)])
    assert find_front([equal, large, slow, small]) == [small, large]
    assert recommend_shape([equal, large, slow, small], Budget(5, 10)) is large
    assert recommend_shape([equal, large, slow, small], Budget(2.5, 10)) is small


def test_predictions_are_bounded_by_what_was_measured() -> None:
    candidates, machine = make_candidates("MASS"), Machine(3, noise=0.05)
    measured = [MeasuredShape(candidates[place], machine.measure(candidates[place])) for place in (0, 20, 50, 70)]
    latencies = dict(zip(candidates, predict_latencies(candidates, measured), strict=True))
    sizes = ("layers", "decoder_layers", "hidden_size")
    for one in measured:
        assert latencies[one.candidate] == one.timing.median_ms
        small = one.candidate.shape
        for candidate, milliseconds in latencies.items():
            if candidate not in machine.measured and all(
                getattr(small, size) <= getattr(candidate.shape, size) for size in sizes
            ):
                assert milliseconds >= one.timing.median_ms
