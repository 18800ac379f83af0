"""The fused, chunked loss against the plain one, on this machine's CPU: time and memory of one step.

    python benchmarks/loss.py [--json] [--chunk-sizes 64 256 1024]

A step is forward and backward of the output layer and the loss, with a live teacher of the same size (both project
hidden states to a vocabulary). Fused and reference take turns in one process. Memory is the highest resident size of
a process of its own, less what it held before the step (features, weights, libraries): so it includes the gradients,
which both must hold.

Shapes: P target positions, V classes, D hidden.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal

import psutil
import torch
from torch import Tensor

from lightpaff.memory import highest_resident_bytes
from lightpaff.targets.soft_targets import Projected
from lightpaff.training import loss, reference_loss

Precision = Literal["float32", "bf16"]
Implementation = Literal["reference", "fused"]
IMPLEMENTATIONS = {"reference": reference_loss.distillation_loss, "fused": loss.distillation_loss}
POSITIONS, CLASSES = 600, 30522
"""About 15 % of 32 sequences of 128 tokens; BERT's vocabulary."""
HIDDEN_SIZES = (384, 768)
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16")
LAMBDA = 0.9


@dataclass(frozen=True)
class Case:
    """What one step works on."""

    positions: int
    classes: int
    hidden: int
    precision: Precision
    chunk_size: int
    threads: int


@dataclass(frozen=True)
class Row:
    """One case's figures; a ratio is reference / fused, so above 1 the fused loss is better."""

    case: Case
    reference_seconds: float
    fused_seconds: float
    speedup: float
    speedup_lowest: float
    speedup_highest: float
    repetitions: int
    reference_mib: float
    fused_mib: float


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    if not arguments.json:
        print(f"P={arguments.positions} V={arguments.classes}, live teacher, {arguments.threads} threads, ", end="")
        print(f"median of {arguments.repetitions}; speed-up = reference / fused (lowest-highest pair)")
        print(
            f"{'D':>4} {'precision':<9} {'chunk':>5} {'reference':>10} {'fused':>8} {'speed-up':>17} {'memory MiB':>14}"
        )
    for case in cases(arguments):
        row = measure(case, arguments.repetitions)
        print(json.dumps(asdict(row)) if arguments.json else readable(row), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    parser.add_argument("--chunk-sizes", type=int, nargs="+", default=[512])
    parser.add_argument("--hidden-sizes", type=int, nargs="+", default=HIDDEN_SIZES)
    parser.add_argument("--positions", type=int, default=POSITIONS)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--repetitions", type=int, default=4)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


def cases(arguments: argparse.Namespace) -> Iterator[Case]:
    for hidden in arguments.hidden_sizes:
        for precision in PRECISIONS:
            for chunk_size in arguments.chunk_sizes:
                yield Case(arguments.positions, arguments.classes, hidden, precision, chunk_size, arguments.threads)


def measure(case: Case, repetitions: int) -> Row:
    """Time both in turns, in this process; then the memory of each, in a fresh process."""
    steps = {name: make_step(case, name) for name in ("reference", "fused")}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repetitions + 1):
        # Each goes first every other time, so that a drift of the machine's speed hits both.
        for name in list(steps)[:: 1 if repetition % 2 else -1]:
            duration = time_once(steps[name])
            if repetition > 0:
                seconds[name].append(duration)
    speedups = [plain / fused for plain, fused in zip(seconds["reference"], seconds["fused"], strict=True)]
    return Row(
        case=case,
        reference_seconds=statistics.median(seconds["reference"]),
        fused_seconds=statistics.median(seconds["fused"]),
        speedup=statistics.median(speedups),
        speedup_lowest=min(speedups),
        speedup_highest=max(speedups),
        repetitions=repetitions,
        reference_mib=in_fresh_process(case, "reference"),
        fused_mib=in_fresh_process(case, "fused"),
    )


def make_step(case: Case, implementation: Implementation) -> Callable[[], None]:
    """A function that runs forward and backward once, on the same seeded tensors for both implementations."""
    torch.manual_seed(0)
    student = random_layer(case)
    teacher = Projected(*random_layer(case))
    labels_P = torch.randint(case.classes, (case.positions,))
    for leaf in student:
        leaf.requires_grad_()
    return partial(run_step, case, implementation, student, labels_P, teacher)


def random_layer(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    features_PD = torch.randn(case.positions, case.hidden)
    # Logits with a standard deviation of about 2, as after some training.
    weight_VD = torch.randn(case.classes, case.hidden).mul_(2 * case.hidden**-0.5)
    return features_PD, weight_VD, torch.randn(case.classes)


def run_step(
    case: Case,
    implementation: Implementation,
    student: tuple[Tensor, Tensor, Tensor],
    labels_P: Tensor,
    teacher: Projected,
) -> None:
    for leaf in student:
        leaf.grad = None
    with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bf16"):
        sums = IMPLEMENTATIONS[implementation](*student, labels_P, teacher, LAMBDA, 1.0, case.chunk_size)
    torch.autograd.backward(sums.total / sums.count)


def time_once(step: Callable[[], None]) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def in_fresh_process(case: Case, implementation: Implementation) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak_mib, (case, implementation))


def peak_mib(case: Case, implementation: Implementation) -> float:
    """The memory that a step adds at its height, in MiB."""
    torch.set_num_threads(case.threads)
    tiny = Case(4, 64, 16, case.precision, 2, case.threads)
    make_step(tiny, implementation)()  # loads libraries and starts threads, which are not the step's memory
    step = make_step(case, implementation)
    before = int(psutil.Process().memory_info().rss)
    step()
    return (highest_resident_bytes() - before) / 2**20


def readable(row: Row) -> str:
    case = row.case
    return (
        f"{case.hidden:>4} {case.precision:<9} {case.chunk_size:>5} {row.reference_seconds:>9.2f}s "
        f"{row.fused_seconds:>7.2f}s {row.speedup:>5.2f} ({row.speedup_lowest:.2f}-{row.speedup_highest:.2f}) "
        f"{row.reference_mib:>6.0f} -> {row.fused_mib:.0f}"
    )


if __name__ == "__main__":
    main()
