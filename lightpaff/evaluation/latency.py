"""How fast models answer, measured side by side.

The models take turns (A, B, C, A, B, C, ...) on the same inputs in one process, so that a machine that slows down or
is busy for a while slows all of them, and their ratio stays true.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from scipy.stats import t

_WARM_UP_ROUNDS = 3

Inputs = TypeVar("Inputs")


@dataclass(frozen=True)
class Latency:
    """How fast one model answers.

    Attributes:
        median_ms: the median time for one example at a time, in milliseconds.
        p95_ms: the time that 95 % of the single examples stay below, in milliseconds.
        throughput_per_s: examples a second in the larger batch, by its median time.
        rounds: how many single examples were timed.
        samples_ms: every timing of a single example, in the order taken; the n-th of every model had the same input.
        rounds_by_process: how many of them each process gave, one after the other; empty where there was one.
    """

    median_ms: float
    p95_ms: float
    throughput_per_s: float
    rounds: int
    samples_ms: tuple[float, ...]
    rounds_by_process: tuple[int, ...] = ()


@dataclass(frozen=True)
class SpeedRatio:
    """How many times as fast one model is as another, by their median latencies, with a 95 % interval."""

    value: float
    low: float
    high: float


def measure_latency(
    models: dict[str, Callable[[Inputs], object]],
    make_inputs: Callable[[int, int], Inputs],
    seconds: float = 20.0,
    batch_size: int = 32,
    least_rounds: int = 20,
    device: torch.device | None = None,
) -> dict[str, Latency]:
    """Time every model in turn: half of `seconds` one example at a time, half in batches of `batch_size`.

    Args:
        models: name -> a function that runs the model on inputs, the whole way to its logits.
        make_inputs: (number of examples, round) -> inputs; the same inputs go to every model of a round.
        seconds: the time budget of all models together, warm-up not counted; `least_rounds` are done in any case.
        device: where the models run; on cuda every timing waits for the device.
    """
    singles = _time_in_turn(models, lambda turn: make_inputs(1, turn), seconds / 2, least_rounds, device)
    batches = _time_in_turn(
        models, lambda turn: make_inputs(batch_size, turn), seconds / 2, max(1, least_rounds // 4), device
    )
    return {
        name: Latency(
            median_ms=float(np.median(singles[name])),
            p95_ms=float(np.percentile(singles[name], 95)),
            throughput_per_s=float(1000 * batch_size / np.median(batches[name])),
            rounds=len(singles[name]),
            samples_ms=tuple(singles[name]),
        )
        for name in models
    }


def speed_ratio(slow: Latency, fast: Latency, seed: int = 0, resamples: int = 1000) -> SpeedRatio:
    """How many times as fast `fast` is: the ratio of the medians, with an interval over the rounds of this measurement.

    Where the models were started several times, the interval is over these processes, by Student's t of the logarithms
    of their ratios: where memory comes to lie, and what else a start decides, differs more between processes than
    within one, and three are too few to be resampled (simulated, a bootstrap leaves out the truth in a quarter of the
    cases). Another hour of a shared machine, or another machine, is not in it.
    Both must come from the same measurement.
    """
    assert slow.rounds_by_process == fast.rounds_by_process, "a ratio needs models that took turns"
    assert slow.rounds == fast.rounds, "a ratio needs models that took turns"
    slow_ms, fast_ms = np.array(slow.samples_ms), np.array(fast.samples_ms)
    value = slow.median_ms / fast.median_ms
    if (count := len(slow.rounds_by_process)) > 1:
        processes = np.split(np.arange(slow.rounds), np.cumsum(slow.rounds_by_process)[:-1])
        logs = [np.log(np.median(slow_ms[own]) / np.median(fast_ms[own])) for own in processes]
        factor = float(np.exp(t.ppf(0.975, count - 1) * np.std(logs, ddof=1) / np.sqrt(count)))
        return SpeedRatio(value, value / factor, value * factor)
    generator = np.random.default_rng(seed)
    draws = (generator.integers(slow.rounds, size=slow.rounds) for _ in range(resamples))
    ratios = [np.median(slow_ms[rounds]) / np.median(fast_ms[rounds]) for rounds in draws]
    low, high = np.percentile(ratios, (2.5, 97.5))
    return SpeedRatio(value, float(low), float(high))


@torch.inference_mode()
def _time_in_turn(
    models: dict[str, Callable[[Inputs], object]],
    inputs_of_turn: Callable[[int], Inputs],
    seconds: float,
    least_rounds: int,
    device: torch.device | None,
) -> dict[str, list[float]]:
    for turn in range(_WARM_UP_ROUNDS):
        inputs = inputs_of_turn(turn)
        for run in models.values():
            _milliseconds(run, inputs, device)
    times: dict[str, list[float]] = {name: [] for name in models}
    deadline = time.perf_counter() + seconds
    turn = 0
    while turn < least_rounds or time.perf_counter() < deadline:
        inputs = inputs_of_turn(turn)
        for name, run in models.items():
            times[name].append(_milliseconds(run, inputs, device))
        turn += 1
    return times


def _milliseconds(run: Callable[[Inputs], object], inputs: Inputs, device: torch.device | None) -> float:
    _wait_for(device)
    started = time.perf_counter()
    run(inputs)
    _wait_for(device)
    return 1000 * (time.perf_counter() - started)


def _wait_for(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
