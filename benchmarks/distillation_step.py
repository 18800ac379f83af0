"""A distillation step as lightpaff takes it against the one that everybody writes, in turn, in one run.

    python benchmarks/distillation_step.py                    # a readable table
    python benchmarks/distillation_step.py --json             # its rows as JSON lines
    python benchmarks/distillation_step.py --device cuda      # on a GPU, in under four minutes
    python benchmarks/distillation_step.py --only mlm         # one objective

A step takes its batch out of the data loader, asks the teacher (`live`) or reads what it said (`stored`: 12 draws, from
a store that is captured first), and updates the student. Models have random weights: speed does not depend on them.
`speedup` is in tokens a second, against `naive_step`, round by round. `share_of_peak` is the step's floating point
operations, those of the teacher included where it is asked, over what a matrix product of the same precision reached
in the same run.
`peak_memory_ratio` is the highest memory of the process that takes the steps, over that of the naive one.

Shapes: B examples, S tokens.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

# As a program, this file is in no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.distillation_cases import (
    CASES,
    LAMBDA,
    Case,
    Way,
    as_users_have_it,
    count_above_0,
    flops_of,
    make_data,
    make_model,
    naive_step,
)
from lightpaff.data.batch_order import BatchOrder
from lightpaff.memory import highest_resident_bytes
from lightpaff.models.opening import split_model
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import Objective
from lightpaff.recipe_training import Distillation, Training
from lightpaff.targets.capture import CaptureRequest, capture
from lightpaff.targets.encodings import Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.soft_targets import Projected
from lightpaff.targets.store import StoreFacts, TargetStore
from lightpaff.targets.teacher import LiveTeacher, StoredTeacher, Teacher
from lightpaff.training.device import Hardware, fastest_precision
from lightpaff.training.loss import distillation_loss
from lightpaff.training.optimiser_step import OptimiserStep, create_accelerator
from lightpaff.training.step_input import StepInputs, load

WAYS: tuple[Way, ...] = ("naive", "live", "stored")


@dataclass(frozen=True)
class Row:
    """One way's figures; a ratio above 1 is in favour of lightpaff but for `peak_memory_ratio`, below 1 less memory."""

    name: str
    milliseconds: float
    tokens_per_second: float
    speedup: float
    speedup_lowest: float
    speedup_highest: float
    share_of_peak: float
    peak_memory_mib: float
    peak_memory_ratio: float
    peak_tflops: float
    device: str
    rounds: int


def main() -> None:
    arguments = parse_arguments()
    if arguments.device == "cpu":
        torch.set_num_threads(arguments.threads)
    for case in CASES[arguments.device]:
        if arguments.only and case.name not in arguments.only:
            continue
        for row in measure(case, arguments):
            print(json.dumps(asdict(row)) if arguments.json else readable(row), flush=True)
    if not arguments.only or "loss" in arguments.only:
        loss = measure_loss(arguments)
        print(json.dumps(loss) if arguments.json else readable_memory(loss), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=["mlm", "clm", "mssm", "translate", "loss"])
    parser.add_argument("--rounds", type=count_above_0, default=5)
    parser.add_argument("--threads", type=count_above_0, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


def measure(case: Case, arguments: argparse.Namespace) -> Iterator[Row]:
    """Time all ways in turn, each in a process of its own, and read each one's memory."""
    with tempfile.TemporaryDirectory() as folder:
        make_data(case, Path(folder), arguments.device)
        # By a process that ends: the teacher is not to be counted where it is not asked.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(_capture_only, (case, arguments.device, folder, arguments.threads))
        workers = {way: Worker(case, way, arguments, folder) for way in WAYS}
        peak = matrix_peak(arguments.device)
        seconds: dict[Way, list[float]] = {way: [] for way in WAYS}
        for number in range(2 + arguments.rounds):
            for way in WAYS[:: 1 if number % 2 else -1]:
                duration = workers[way].step()
                if number > 1:
                    seconds[way].append(duration)
        peak = max(peak, matrix_peak(arguments.device))
        memory = {way: workers[way].stop() for way in WAYS}
        data = make_data(case, Path(folder), "cpu")
    tokens, flops = int(data.lengths_N[: case.batch_size].sum()), flops_of(case, data)
    for way in WAYS:
        speedups = [naive / own for naive, own in zip(seconds["naive"], seconds[way], strict=True)]
        middle = statistics.median(seconds[way])
        yield Row(
            name=f"{case.name} {way}",
            milliseconds=round(1000 * middle, 1),
            tokens_per_second=round(tokens / middle),
            speedup=round(statistics.median(speedups), 2),
            speedup_lowest=round(min(speedups), 2),
            speedup_highest=round(max(speedups), 2),
            share_of_peak=round(flops[way] / middle / peak, 3),
            peak_memory_mib=round(memory[way]),
            peak_memory_ratio=round(memory[way] / memory["naive"], 3),
            peak_tflops=round(peak / 1e12, 2),
            device=describe_device(arguments.device),
            rounds=arguments.rounds,
        )


class Worker:
    """A process that takes steps in one way when told to: memory and its allocator are its own."""

    def __init__(self, case: Case, way: Way, arguments: argparse.Namespace, folder: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        told = (end, case, way, arguments.device, folder, arguments.threads)
        self._process = context.Process(target=_work, args=told, daemon=True)
        self._process.start()
        end.close()

    def step(self) -> float:
        """Take one; its seconds."""
        self._pipe.send("step")
        return float(self._pipe.recv())

    def stop(self) -> float:
        """End; the most memory that models, optimiser and steps took, in MiB."""
        self._pipe.send("stop")
        return float(self._pipe.recv())


def _work(pipe: Any, case: Case, way: Way, device: str, folder: str, threads: int) -> None:
    if device == "cpu":
        torch.set_num_threads(threads)
    torch.ones(4, 4, device=device) @ torch.ones(4, 4, device=device)
    before = psutil.Process().memory_info().rss
    take = make_step(case, way, device, Path(folder))
    while pipe.recv() == "step":
        pipe.send(time_once(take, device))
    if device == "cuda":
        pipe.send(torch.cuda.max_memory_allocated() / 2**20)
    else:
        pipe.send((highest_resident_bytes() - before) / 2**20)


def make_step(case: Case, way: Way, device: str, folder: Path) -> Callable[[], None]:
    """Takes steps in one of the ways, each on the next batch."""
    torch.manual_seed(0)
    data = make_data(case, folder, device)
    if way == "naive":
        return _make_naive(case, data, device)
    hardware = Hardware(torch.device(device), fastest_precision(device))
    attention = hardware.attention
    student = make_model(case.name, case.student, attention).to(device)
    settings = Training(learning_rate=1e-4, steps=10**6, batch_size=case.batch_size, micro_batch_tokens=10**7)
    order = BatchOrder(data.lengths_N, np.arange(len(data.lengths_N)), case.batch_size, 10**7, seed=0)
    head, classes = data.head, data.number_of_classes
    stored, teacher = None, None
    draws = 1 if case.name in ("mlm", "mssm") else None
    if way == "live":
        teacher = LiveTeacher(
            split_model(make_model(case.name, case.teacher, attention).to(device), head, classes), hardware.precision
        )
    else:
        stored = open_store(case, data, hardware, folder)
    distillation = Distillation(weight=LAMBDA)
    taker = OptimiserStep(
        split_model(student, head, classes),
        teacher or _Nobody(),
        settings,
        distillation,
        0,
        hardware,
        create_accelerator(hardware),
        10**6,
    )
    loader = iter(load(StepInputs(data, order, distillation, draws, stored), range(10**6), hardware))

    def take() -> None:
        taker.take(next(loader).to(hardware.device))

    return take


class _Nobody:
    def targets(self, batch: Batch) -> None:
        return None


def _make_naive(case: Case, data: Objective, device: str) -> Callable[[], None]:
    student = make_model(case.name, case.student, "sdpa").to(device)
    teacher = make_model(case.name, case.teacher, "sdpa").to(device)
    take = naive_step(student, teacher, torch.optim.AdamW(student.parameters(), lr=1e-4), bf16=device == "cuda")
    numbers = iter(range(10**9))

    def next_step() -> None:
        first = next(numbers) * case.batch_size % len(data.lengths_N)
        batch = data.batch(np.arange(first, first + case.batch_size), draw=0).to(torch.device(device))
        take(*as_users_have_it(batch))

    return next_step


def open_store(case: Case, data: Objective, hardware: Hardware, folder: Path) -> StoredTeacher:
    """The teacher's soft targets, captured unless they are there."""
    facts = StoreFacts({}, Encoding("sampled", data.number_of_classes, 12), {})
    place = Place(str(folder / f"store of {case.name}"), folder)
    live: list[Teacher] = []

    def ask(batch: Batch) -> Any:
        if not live:
            model = make_model(case.name, case.teacher, hardware.attention).to(hardware.device)
            live.append(LiveTeacher(split_model(model, data.head, data.number_of_classes), hardware.precision))
        with hardware.autocast():
            return live[0].targets(batch.to(hardware.device))

    ids = [np.arange(len(data.lengths_N))]
    with hardware.autocast():
        capture(CaptureRequest(data, ids, facts, 0, 4096, f"capture {case.name}"), place, ask)
    return StoredTeacher(TargetStore(place, facts))


def matrix_peak(device: str) -> float:
    """The most floating point operations a second of a matrix product in training's precision, over a few sizes."""
    best, dtype = 0.0, torch.bfloat16 if fastest_precision(device) == "bf16" else torch.float32
    for size in (1024, 2048) if device == "cpu" else (4096, 8192):
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        for _ in range(4):
            best = max(best, 2 * size**3 / time_once(lambda left=left, right=right: left @ right, device))  # type: ignore[misc]
    return best


def time_once(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _capture_only(case: Case, device: str, folder: str, threads: int) -> None:
    torch.set_num_threads(threads)
    hardware = Hardware(torch.device(device), fastest_precision(device))
    open_store(case, make_data(case, Path(folder), device), hardware, Path(folder))


def measure_loss(arguments: argparse.Namespace) -> dict[str, Any]:
    """The memory of the causal loss alone, forward and backward: the gradient of the output layer included."""
    memory = {}
    for way in ("naive", "live"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory[way] = pool.apply(loss_mib, (way, arguments.device, arguments.threads))
    ratio = round(memory["live"] / memory["naive"], 3)
    return {"name": "clm loss", "peak_memory_mib": round(memory["live"]), "peak_memory_ratio": ratio}


def loss_mib(way: str, device: str, threads: int) -> float:
    """The memory that the loss of 2,048 positions x 50,257 classes adds at its height, in MiB."""
    torch.set_num_threads(threads)
    positions, classes, hidden = 2048, 50257, 768
    features = torch.randn(positions, hidden, device=device, requires_grad=True)
    weight = torch.randn(classes, hidden, device=device, requires_grad=True)
    told = torch.randn(positions, hidden, device=device), torch.randn(classes, hidden, device=device)
    labels = torch.randint(classes, (positions,), device=device)
    before = torch.cuda.memory_allocated() if device == "cuda" else psutil.Process().memory_info().rss
    with torch.autocast(device, torch.bfloat16, enabled=fastest_precision(device) == "bf16"):
        if way == "live":
            torch.autograd.backward(
                distillation_loss(features, weight, None, labels, Projected(*told, None), LAMBDA).total
            )
    if way == "naive":
        logits, teacher = features @ weight.T, told[0] @ told[1].T
        log_p = torch.log_softmax(logits, -1)
        soft = torch.nn.functional.kl_div(log_p, torch.softmax(teacher, -1), reduction="batchmean")
        hard = torch.nn.functional.cross_entropy(logits, labels)
        torch.autograd.backward((1 - LAMBDA) * hard + LAMBDA * soft)
    if device == "cuda":
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return (highest_resident_bytes() - before) / 2**20


def describe_device(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0].partition(': ')[2] if names else 'CPU'}, {torch.get_num_threads()} threads"


def readable(row: Row) -> str:
    return (
        f"{row.name:<16}{row.milliseconds:>9.1f} ms {row.tokens_per_second:>9,} tokens/s  {row.speedup:>6.2f}x "
        f"({row.speedup_lowest:.2f}-{row.speedup_highest:.2f})  {row.share_of_peak:>6.1%} of {row.peak_tflops} TFLOP/s"
        f"{row.peak_memory_mib:>8,.0f} MiB = {row.peak_memory_ratio:.2f}"
    )


def readable_memory(row: dict[str, Any]) -> str:
    return f"{row['name']:<84}{row['peak_memory_mib']:>8,.0f} MiB = {row['peak_memory_ratio']:.2f}"


if __name__ == "__main__":
    main()
