import math
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightpaff.recipe_training import Schedule, Training
from lightpaff.training.schedule import learning_rate

PEAK = 0.5


def rates(total: int, **keys: Any) -> list[float]:
    training = Training.model_validate({"steps": total, "learning_rate": PEAK, **keys})
    return [learning_rate(training, step, total) for step in range(total)]


SHARES = st.floats(0, 1)


@given(st.sampled_from(get_args(Schedule)), st.integers(1, 200), SHARES, SHARES)
@example("wsd", 100, 0.0, 0.15)
@settings(deadline=None)
def test_it_rises_once_and_falls_once(schedule: Schedule, total: int, warmup: float, decay: float) -> None:
    found = rates(total, schedule=schedule, warmup=warmup, decay=decay)
    assert all(0 < rate <= PEAK for rate in found)
    assert max(found) == pytest.approx(PEAK)
    peak = round(warmup * total)
    assert all(first < second for first, second in pairwise(found[:peak]))
    assert all(first >= second for first, second in pairwise(found[peak:]))


def test_the_warm_up_is_a_straight_line_to_the_peak() -> None:
    found = rates(10, warmup=0.4)
    assert found[:5] == pytest.approx([PEAK / 4, PEAK / 2, PEAK * 3 / 4, PEAK, PEAK])


def test_no_warm_up() -> None:
    assert rates(4, warmup=0) == pytest.approx([PEAK, PEAK * 3 / 4, PEAK / 2, PEAK / 4])


def test_linear_ends_one_step_before_zero() -> None:
    assert rates(12, schedule="linear", warmup=1 / 6)[2:] == pytest.approx([PEAK * (10 - n) / 10 for n in range(10)])


def test_cosine_is_half_way_at_half_time() -> None:
    found = rates(100, schedule="cosine", warmup=0)
    assert found[50] == pytest.approx(PEAK / 2)
    assert found[25] == pytest.approx(PEAK * (1 + math.sqrt(0.5)) / 2)
    assert found[-1] < PEAK / 1000


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
def test_wsd_is_constant_and_falls_in_the_last_steps(warmup: float) -> None:
    found = rates(100, schedule="wsd", warmup=warmup, decay=0.2)
    start = round(100 * warmup)
    assert found[start:81] == pytest.approx([PEAK] * (81 - start))
    assert found[80:] == pytest.approx([PEAK * (20 - n) / 20 for n in range(20)])


def test_wsd_without_decay_stays_up() -> None:
    assert rates(10, schedule="wsd", warmup=0, decay=0) == [PEAK] * 10


def test_a_decay_longer_than_what_is_left_takes_all_of_it() -> None:
    assert rates(10, schedule="wsd", warmup=0.5, decay=0.9) == pytest.approx(rates(10, schedule="linear", warmup=0.5))


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_all_warm_up_and_a_single_step(schedule: Schedule) -> None:
    assert rates(4, schedule=schedule, warmup=1) == pytest.approx([PEAK / 4, PEAK / 2, PEAK * 3 / 4, PEAK])
    assert rates(1, schedule=schedule) == [PEAK]
