"""A store of soft targets: what it costs to capture, how large it is, and how fast it is read.

    python benchmarks/target_store.py                    # a readable table
    python benchmarks/target_store.py --json             # its rows as JSON lines
    python benchmarks/target_store.py --device cuda

Captures random text with a teacher of random weights, for every encoding: `capture_overhead` is the time beyond that of
the bare teacher (its forward pass and the logits at the target positions, chunk by chunk), as a share of it;
`bytes_a_position` is the files' size; `read_speedup` is the positions read a second over those that the student's step
consumes, both measured in this run. Models and batches are those of `distillation_cases.py`.
"""

import argparse
import json
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
import torch

from lightpaff.models.opening import split_model
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import Objective
from lightpaff.targets.capture import CaptureRequest, capture
from lightpaff.targets.encodings import Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.soft_targets import Projected
from lightpaff.targets.store import StoreFacts, TargetStore
from lightpaff.targets.teacher import LiveTeacher
from lightpaff.training.device import Hardware, fastest_precision

# As a program, this file is in no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.distillation_cases import CASES, Case, count_above_0, make_data, make_model
from benchmarks.distillation_step import describe_device, make_step, time_once

ENCODINGS = {
    "sampled 12": ("sampled", 12, 1.0),
    "sampled 12, proposal 1.5": ("sampled", 12, 1.5),
    "sampled 50": ("sampled", 50, 1.0),
    "top-k 12": ("top-k", 12, 1.0),
}


@dataclass(frozen=True)
class Row:
    """One encoding's figures."""

    name: str
    objective: str
    positions: int
    bytes_a_position: float
    capture_overhead: float
    capture_overhead_lowest: float
    capture_overhead_highest: float
    captured_positions_per_second: float
    read_positions_per_second: float
    student_positions_per_second: float
    read_speedup: float
    device: str
    rounds: int


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    for case in CASES[arguments.device]:
        if case.name in arguments.only:
            for row in measure(case, arguments):
                print(json.dumps(asdict(row)) if arguments.json else readable(row), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object a row")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=["mlm", "clm", "mssm", "translate"], default=["mlm", "clm"])
    parser.add_argument("--rounds", type=count_above_0, default=5)
    parser.add_argument("--threads", type=count_above_0, default=min(2, os.cpu_count() or 1))
    return parser.parse_args()


def measure(case: Case, arguments: argparse.Namespace) -> Iterator[Row]:
    """Capture with every encoding in turn with the bare teacher; then read, in the order of a training."""
    hardware = Hardware(torch.device(arguments.device), fastest_precision(arguments.device))
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(case, Path(folder), arguments.device)
        model = make_model(case.name, case.teacher, hardware.attention).to(hardware.device)
        teacher = LiveTeacher(split_model(model, data.head, data.number_of_classes), hardware.precision)
        encodings = {
            name: Encoding(kind, data.number_of_classes, stored, 1.0, proposal)  # type: ignore[arg-type]
            for name, (kind, stored, proposal) in ENCODINGS.items()
        }
        works: dict[str, Callable[[], object]] = {"bare": lambda: bare(teacher, data, case, hardware)}
        stores: dict[str, TargetStore] = {}
        for name, encoding in encodings.items():

            def work(name: str = name, encoding: Encoding = encoding) -> None:
                place = Place(str(Path(folder) / f"{name} {time.monotonic_ns()}"), Path(folder))
                stores[name] = captured(teacher, data, case, hardware, encoding, place)

            works[name] = work
        seconds: dict[str, list[float]] = {name: [] for name in works}
        for number in range(1 + arguments.rounds):
            for name in list(works)[:: 1 if number % 2 else -1]:
                duration = time_once(works[name], arguments.device)
                if number:
                    seconds[name].append(duration)
        consumed = student_positions_a_second(case, data, arguments, Path(folder))
        for name in encodings:
            store = stores[name]
            overheads = [own / plain - 1 for own, plain in zip(seconds[name], seconds["bare"], strict=True)]
            read = read_positions_a_second(store, data, case)
            yield Row(
                name=name,
                objective=case.name,
                positions=store.positions,
                bytes_a_position=round(sum(shard.bytes for shard in store.shards) / store.positions, 2),
                capture_overhead=round(statistics.median(overheads), 3),
                capture_overhead_lowest=round(min(overheads), 3),
                capture_overhead_highest=round(max(overheads), 3),
                captured_positions_per_second=round(store.positions / statistics.median(seconds[name])),
                read_positions_per_second=round(read),
                student_positions_per_second=round(consumed),
                read_speedup=round(read / consumed, 1),
                device=describe_device(arguments.device),
                rounds=arguments.rounds,
            )


def batches_of(data: Objective, case: Case) -> Iterator[np.ndarray]:
    for first in range(0, len(data.lengths_N), case.batch_size):
        yield np.arange(first, min(first + case.batch_size, len(data.lengths_N)))


@torch.no_grad()
def bare(teacher: LiveTeacher, data: Objective, case: Case, hardware: Hardware) -> float:
    """The teacher's forward pass and its logits at the target positions, nothing kept."""
    total = 0.0
    with hardware.autocast():
        for ids in batches_of(data, case):
            batch = data.batch(ids, draw=0)
            said = teacher.targets(batch.to(hardware.device)).as_factors()
            for start in range(0, len(batch.positions_P), 256):
                total += float(said.chunk(start, start + 256).logits_PV[0, 0])
    return total


def captured(
    teacher: LiveTeacher, data: Objective, case: Case, hardware: Hardware, encoding: Encoding, place: Place
) -> TargetStore:
    facts = StoreFacts({}, encoding, {})

    def ask(batch: Batch) -> Projected:
        return teacher.targets(batch.to(hardware.device))

    tokens = case.batch_size * int(data.lengths_N.max())
    request = CaptureRequest(data, [np.arange(len(data.lengths_N))], facts, 0, tokens, "capture")
    with hardware.autocast():
        capture(request, place, ask)
    return TargetStore(place, facts)


def student_positions_a_second(case: Case, data: Objective, arguments: argparse.Namespace, folder: Path) -> float:
    """What the student's step takes, its soft targets stored."""
    take = make_step(case, "stored", arguments.device, folder)
    take()
    duration = min(time_once(take, arguments.device) for _ in range(3))
    return float(data.targets_N[: case.batch_size].sum() / duration)


def read_positions_a_second(store: TargetStore, data: Objective, case: Case) -> float:
    """Of batches in a random order, decoded; the median of five passes over the data."""
    shuffled = np.random.default_rng(0).permutation(len(data.lengths_N))
    batches: list[Any] = [data.batch(shuffled[ids], draw=0) for ids in batches_of(data, case)]
    rates = []
    for _ in range(5):
        started = time.perf_counter()
        for batch in batches:
            store.read(batch.keys_B, batch.counts_B, batch.draw)
        rates.append(sum(len(batch.positions_P) for batch in batches) / (time.perf_counter() - started))
    return statistics.median(rates)


def readable(row: Row) -> str:
    return (
        f"{row.objective:<10}{row.name:<26}{row.bytes_a_position:>7.1f} bytes a position, capture "
        f"{row.capture_overhead:>+6.1%} ({row.capture_overhead_lowest:+.1%} to {row.capture_overhead_highest:+.1%}), "
        f"read {row.read_positions_per_second:>9,.0f}/s = {row.read_speedup:,.0f}x the student's"
    )


if __name__ == "__main__":
    main()
