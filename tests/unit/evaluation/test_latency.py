import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lightpaff.evaluation.latency import Latency, measure_latency, speed_ratio


def of_samples(samples_ms: list[float], by_process: tuple[int, ...] = ()) -> Latency:
    median = sorted(samples_ms)[len(samples_ms) // 2]
    return Latency(median, max(samples_ms), 1.0, len(samples_ms), tuple(samples_ms), by_process)


def sleeper(seconds_an_example: float) -> Callable[[list[int]], object]:
    return lambda inputs: time.sleep(seconds_an_example * len(inputs))


def test_models_take_turns_on_the_same_inputs_in_inference_mode() -> None:
    calls: list[tuple[str, int, int]] = []

    def recorder(name: str) -> Callable[[tuple[int, int]], None]:
        def run(inputs: tuple[int, int]) -> None:
            assert torch.is_inference_mode_enabled()
            calls.append((name, *inputs))

        return run

    models: dict[str, Callable[[tuple[int, int]], object]] = {name: recorder(name) for name in "ABC"}
    measured = measure_latency(models, lambda size, turn: (size, turn), seconds=0.0, least_rounds=8, batch_size=4)
    assert [name for name, _, _ in calls] == ["A", "B", "C"] * (len(calls) // 3)
    assert [inputs for _, *inputs in calls[::3]] == [inputs for _, *inputs in calls[2::3]]
    assert {size for _, size, _ in calls} == {1, 4}
    assert [latency.rounds for latency in measured.values()] == [8, 8, 8]


def test_times_are_milliseconds_and_throughput_counts_examples() -> None:
    models = {"slow": sleeper(0.004), "fast": sleeper(0.001)}
    measured = measure_latency(models, lambda size, turn: [0] * size, seconds=0.0, least_rounds=8, batch_size=4)
    assert 4 <= measured["slow"].median_ms < 40
    assert measured["slow"].median_ms <= measured["slow"].p95_ms
    assert 25 < measured["slow"].throughput_per_s <= 250
    assert measured["fast"].median_ms < measured["slow"].median_ms


def test_the_budget_is_time_not_rounds() -> None:
    started = time.perf_counter()
    measured = measure_latency({"only": sleeper(0.001)}, lambda size, turn: [0] * size, seconds=0.2, least_rounds=1)
    assert measured["only"].rounds > 10
    assert time.perf_counter() - started < 2


def test_a_slow_machine_does_not_move_the_ratio() -> None:
    fast = [1.0 + 0.01 * (turn % 7) for turn in range(60)]
    drift = [1.0 if turn < 30 else 3.0 for turn in range(60)]
    ratio = speed_ratio(
        of_samples([4 * time * slower for time, slower in zip(fast, drift, strict=True)]),
        of_samples([time * slower for time, slower in zip(fast, drift, strict=True)]),
    )
    assert ratio.value == pytest.approx(4.0)
    assert ratio.low == pytest.approx(4.0)
    assert ratio.high == pytest.approx(4.0)


def test_noise_widens_the_ratio() -> None:
    slow, fast = of_samples([4.0, 8.0] * 15 + [6.0]), of_samples([2.0] * 31)
    ratio = speed_ratio(slow, fast)
    assert ratio.value == 3.0
    assert ratio.low < ratio.high
    assert ratio == speed_ratio(slow, fast)


def test_what_differs_from_process_to_process_is_in_the_interval_as_student_has_it() -> None:
    logs = np.array([0.0, 0.1, -0.1])  # Of the ratios; within a process nothing differs.
    slow = [4 * np.exp(log) for log in logs for _ in range(10)]
    ratio = speed_ratio(of_samples(slow, (10, 10, 10)), of_samples([1.0] * 30, (10, 10, 10)))
    half_width = 4.303 * logs.std(ddof=1) / np.sqrt(3)
    assert ratio.value == pytest.approx(4.0)
    assert np.log([ratio.low / 4, ratio.high / 4]) == pytest.approx([-half_width, half_width], rel=1e-3)


def test_the_interval_of_a_few_processes_holds_the_truth() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        slow = [np.exp(generator.normal(0, 0.1) + generator.normal(0, 0.05, size=30)) for _ in range(3)]
        found = speed_ratio(of_samples(list(np.concatenate(slow)), (30,) * 3), of_samples([1.0] * 90, (30,) * 3))
        held += found.low <= 1.0 <= found.high
    assert 0.9 * 200 <= held < 200
