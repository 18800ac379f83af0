"""What a store costs for much text on many GPUs, computed from measured rates; and checked where it can be.

    python benchmarks/scale.py                        # measure this machine's rates, and check them at two sizes
    python benchmarks/scale.py --rates h200.json      # tables for the rates of another machine
    python benchmarks/scale.py --rates h200.json --tokens 1e10 --devices 16

Captures and trainings are of one device; `--json` prints the rates, which are what `--rates` reads. The check captures
and trains at two sizes, two and four times the one that was measured, and compares with what the rates say.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lightpaff.models.opening import split_model
from lightpaff.objectives.objective import Objective
from lightpaff.targets.capture import UNIT_POSITIONS
from lightpaff.targets.encodings import Encoding
from lightpaff.targets.place import Place
from lightpaff.targets.teacher import LiveTeacher
from lightpaff.training.device import Hardware, fastest_precision

# As a program, this file is in no package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.distillation_cases import CASES, Case, Way, make_data, make_model
from benchmarks.distillation_step import describe_device, make_step, time_once
from benchmarks.target_store import captured

DRAWS, KEPT = {"mlm": 4, "clm": 1}, 12
_BYTES_AN_EXAMPLE = 16
_BYTES_A_GRADIENT = 4
_BATCHES = 4


@dataclass(frozen=True)
class Rates:
    """What one device does.

    Attributes:
        name: the objective and the models.
        device: where it was measured.
        example_tokens: tokens of an example.
        targets_a_token: target positions.
        draws: maskings that are captured.
        bytes_a_position: of the store.
        capture_tokens: tokens a second that a capture takes, writing included.
        key_tokens: tokens a second whose content is keyed; every process keys all.
        live_tokens: tokens a second that the student's step takes with a live teacher.
        stored_tokens: with stored soft targets.
        step_tokens: tokens of a step on one device.
        parameters: of the student.
    """

    name: str
    device: str
    example_tokens: float
    targets_a_token: float
    draws: int
    bytes_a_position: float
    capture_tokens: float
    key_tokens: float
    live_tokens: float
    stored_tokens: float
    step_tokens: float
    parameters: int


@dataclass(frozen=True)
class Cost:
    """Of one corpus, read `epochs` times, on so many devices; times in hours."""

    tokens: float
    devices: int
    capture: float
    keys: float
    live: float
    stored: float
    gradients: float
    store_bytes: float
    shards: int


def cost_of(rates: Rates, tokens: float, devices: int, epochs: float, gradient_bandwidth: float) -> Cost:
    """What `tokens` of text cost.

    Capture and training are divided by the devices: parts of a capture do not wait for each other. Keys are not: every
    process makes those of all examples, to know its part. Gradients are summed over the devices in every step, 2
    (n - 1) / n times their bytes (a ring), at a bandwidth that is given and not measured.
    """
    positions = tokens * rates.targets_a_token * rates.draws
    steps = tokens * epochs / (rates.step_tokens * devices)
    a_step = 2 * (devices - 1) / devices * rates.parameters * _BYTES_A_GRADIENT / gradient_bandwidth
    return Cost(
        tokens=tokens,
        devices=devices,
        capture=tokens * rates.draws / rates.capture_tokens / devices / 3600,
        keys=tokens / rates.key_tokens / 3600,
        live=tokens * epochs / rates.live_tokens / devices / 3600,
        stored=tokens * epochs / rates.stored_tokens / devices / 3600,
        gradients=steps * a_step / 3600,
        store_bytes=positions * rates.bytes_a_position
        + tokens / rates.example_tokens * rates.draws * _BYTES_AN_EXAMPLE,
        shards=int(np.ceil(tokens * rates.targets_a_token / UNIT_POSITIONS)) * rates.draws,
    )


def measure(case: Case, device: str, folder: Path, batches: int) -> Rates:
    """The rates of this machine, over so many batches."""
    data = _data(case, device, folder, batches)
    tokens, positions = int(data.lengths_N.sum()), int(data.targets_N.sum())
    seconds, size, _ = _capture(case, device, folder, data)
    started = time.perf_counter()
    for first in range(0, len(data.lengths_N), 1024):
        data.batch(np.arange(first, min(first + 1024, len(data.lengths_N))), draw=0)
    keyed = time.perf_counter() - started
    student = make_model(case.name, case.student, "eager")
    a_batch = tokens / batches
    return Rates(
        name=case.name,
        device=describe_device(device),
        example_tokens=tokens / len(data.lengths_N),
        targets_a_token=positions / tokens,
        draws=DRAWS[case.name],
        bytes_a_position=(size - _BYTES_AN_EXAMPLE * len(data.lengths_N)) / positions,
        capture_tokens=tokens / seconds,
        key_tokens=tokens / keyed,
        live_tokens=a_batch * batches / _train(case, "live", device, folder, batches),
        stored_tokens=a_batch * batches / _train(case, "stored", device, folder, batches),
        step_tokens=a_batch,
        parameters=sum(parameter.numel() for parameter in student.parameters()),
    )


def check(rates: Rates, case: Case, device: str, folder: Path, batches: int) -> Iterator[tuple[str, float, float]]:
    """What the rates say of so many batches, and what happened: hours are given in seconds."""
    data = _data(case, device, folder, batches)
    said = cost_of(replace(rates, draws=1), float(data.lengths_N.sum()), 1, 1.0, 1.0)
    seconds, size, shards = _capture(case, device, folder, data)
    yield "capture, s", 3600 * said.capture, seconds
    yield "store, bytes", said.store_bytes, size
    yield "shards", said.shards, shards
    yield "live training, s", 3600 * said.live, _train(case, "live", device, folder, batches)
    yield "stored training, s", 3600 * said.stored, _train(case, "stored", device, folder, batches)


def _data(case: Case, device: str, folder: Path, batches: int) -> Objective:
    own = folder / f"{batches}-batches"
    own.mkdir(exist_ok=True)
    return make_data(case, own, device, batches)


def _capture(case: Case, device: str, folder: Path, data: Objective) -> tuple[float, int, int]:
    """Seconds, bytes and shards; the median of three times."""
    hardware = Hardware(torch.device(device), fastest_precision(device))
    model = make_model(case.name, case.teacher, hardware.attention).to(hardware.device)
    teacher = LiveTeacher(split_model(model, data.head, data.number_of_classes), hardware.precision)
    encoding = Encoding("sampled", data.number_of_classes, KEPT)
    seconds = []
    for _ in range(4):
        place = Place(str(folder / f"store-{time.monotonic_ns()}"), folder)
        started = time.perf_counter()
        store = captured(teacher, data, case, hardware, encoding, place)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:]), sum(shard.bytes for shard in store.shards), len(store.shards)


def _train(case: Case, way: Way, device: str, folder: Path, steps: int) -> float:
    """Seconds of so many steps."""
    take = make_step(case, way, device, folder)
    take()
    return sum(time_once(take, device) for _ in range(steps))


def print_costs(rates: Rates, tokens: list[float], devices: list[int], epochs: float, bandwidth: float) -> None:
    """A table; the shares are of the time with a store, and say where it goes."""
    print(f"{rates.name} on {rates.device}: {epochs:g} epochs, {rates.draws} maskings, {KEPT} draws\n")
    print("| tokens | devices | live | capture | keys | training | summing gradients | store | shards |")
    print("|---|---|---|---|---|---|---|---|---|")
    for amount in tokens:
        for count in devices:
            cost = cost_of(rates, amount, count, epochs, bandwidth)
            hours = (cost.live + cost.gradients, cost.capture, cost.keys, cost.stored, cost.gradients)
            times = " | ".join(_duration(value) for value in hours)
            print(f"| {amount:.0e} | {count} | {times} | {_size(cost.store_bytes)} | {cost.shards:,} |")
    print()


def _duration(hours: float) -> str:
    for unit, size in (("days", 24.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= 2 * size:
            return f"{hours / size:,.0f} {unit}"
    return f"{hours * 3600:,.0f} s"


def _size(count: float) -> str:
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e6:,.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=Path, help="JSON lines of an earlier --json; left out, they are measured")
    parser.add_argument("--tokens", type=float, nargs="+", default=[1e9, 1e11, 1e12])
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--epochs", type=float, default=4.0, help="how often the text is read in training")
    parser.add_argument(
        "--gradient-bandwidth", type=float, default=50e9, help="bytes a second and device; not measured"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=list(DRAWS), default=list(DRAWS))
    parser.add_argument("--json", action="store_true", help="print the rates")
    options = parser.parse_args()
    if options.rates is not None:
        for line in options.rates.read_text().splitlines():
            print_costs(
                Rates(**json.loads(line)), options.tokens, options.devices, options.epochs, options.gradient_bandwidth
            )
        return
    torch.set_num_threads(2)
    for case in CASES[options.device]:
        if case.name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            rates = measure(case, options.device, Path(folder), _BATCHES)
            if options.json:
                print(json.dumps(asdict(rates)), flush=True)
                continue
            print_costs(rates, options.tokens, options.devices, options.epochs, options.gradient_bandwidth)
            print("| batches | what | said | happened | happened / said |\n|---|---|---|---|---|")
            for batches in (2 * _BATCHES, 4 * _BATCHES):
                for what, said, happened in check(rates, case, options.device, Path(folder), batches):
                    print(f"| {batches} | {what} | {said:,.1f} | {happened:,.1f} | {happened / said:.2f} |", flush=True)


if __name__ == "__main__":
    main()
