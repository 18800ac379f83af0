from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.deployment import shape_measuring
from lightpaff.deployment.contenders import Contender
from lightpaff.deployment.measuring import measure
from lightpaff.deployment.shape_measuring import (
    REFERENCE,
    Reference,
    measure_contender,
)
from lightpaff.deployment.shape_plan import MeasuringPlan
from lightpaff.deployment.shape_search import Timing
from lightpaff.deployment.worker_process import Timing as Run

PLAN = MeasuringPlan("classes", "onnx", "int8", length=32, new_tokens=0, beams=1, threads=1)
KEPT = Timing(bytes=8, median_ms=8.0, p95_ms=9.0, rounds=5, written=0.0)


def contender_of(name: str, milliseconds: int) -> Contender:
    return Contender(name, Path(name), "onnx", 1, milliseconds, "int8", "classes", 64, 90)


REFERENCE_EXPORT = contender_of(REFERENCE, 8)
SHAPE = contender_of("shape", 20)


class Machine:
    """Runs take as many milliseconds as an export has bytes, times what is left in `speeds`: one for each run."""

    def __init__(self, speeds: Iterator[float]) -> None:
        self.speeds = speeds
        self.processes = 0

    def start(self, contender: Contender) -> Any:
        self.processes += 1
        return FakeWorker(self, contender)


class FakeWorker:
    def __init__(self, machine: Machine, contender: Contender) -> None:
        self.machine, self.contender = machine, contender

    def load(self) -> float:
        return 0.1

    def run(self, rows: list[list[int]], **_: Any) -> Run:
        return Run(self.contender.bytes * next(self.machine.speeds), 0)

    def peak_bytes(self) -> int:
        return 1

    def close(self) -> None:
        pass


def measure_on(speeds: Iterator[float], reference: Timing | None, shape: Contender = SHAPE) -> tuple[Timing, int]:
    """The timing, and how many processes it took."""
    machine = Machine(speeds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape_measuring, "_SECONDS", 0.0)
        patch.setattr(shape_measuring, "measure", partial(measure, start=machine.start))
        timing = measure_contender(shape, PLAN, None if reference is None else Reference(REFERENCE_EXPORT, reference))
    return timing, machine.processes


def slowing_down(after: int, to: float) -> Iterator[float]:
    yield from [1.0] * after
    while True:
        yield to


# No deadline: a busy machine takes its time.
@settings(deadline=None, max_examples=10)
@given(after=st.integers(0, 50), to=st.sampled_from([0.5, 1.3, 2.0]))
def test_a_machine_that_slows_down_gives_the_same_times(after: int, to: float) -> None:
    timing, _ = measure_on(slowing_down(after, to), KEPT)
    assert timing.median_ms == pytest.approx(20.0)
    assert timing.bytes == 20


def test_times_are_those_of_the_machine_when_the_reference_was_measured() -> None:
    timing, processes = measure_on(slowing_down(0, 3.0), replace(KEPT, median_ms=16.0))
    assert timing.median_ms == pytest.approx(40.0)
    assert timing.p95_ms == pytest.approx(40.0)
    assert processes == 2 * 3


@pytest.mark.parametrize("speeds", [[1.0, 1.04, 1.8], [1.8, 1.0, 1.04], [0.6, 1.8, 1.04]])
def test_a_process_that_is_out_of_line_does_not_count(speeds: list[float]) -> None:
    # Of a reference: alone, three runs to warm up and five rounds, of one run that is not timed and one that is.
    timing, processes = measure_on((speed for speed in speeds for _ in range(13)), None)
    assert timing.median_ms == pytest.approx(20 * 1.04)
    assert processes == len(speeds)
