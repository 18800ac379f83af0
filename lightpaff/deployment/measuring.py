"""How fast, how large and how dear contenders are, measured side by side.

Every contender is a process of its own. All are alive at once, but one runs at a time: in every cell (a batch size and
a length) they take turns on the same inputs, so that a machine that slows down slows all of them, and their ratio stays
true. Then all are started anew, several times: a start decides where memory lies, and with it the speed.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Protocol

import numpy as np

from lightpaff.deployment.contenders import Contender
from lightpaff.deployment.worker_process import Timing, WorkerProcess
from lightpaff.errors import UserError
from lightpaff.evaluation.latency import Latency, SpeedRatio, speed_ratio
from lightpaff.machine import processor_name, system_name, versions_of
from lightpaff.progress import Advance
from lightpaff.runtimes import Runtime, Work, packages_of_runtimes

PROCESSES = 5
"""How often contenders are started for a figure that is reported."""
_WARM_UP_RUNS = 3
_WARM_UP_SECONDS = 2.0
_SETTLE_BELOW_MS = 50.0
"""A shorter run notices that the other contenders have had the caches: one that is not timed goes before it, on other
inputs, since some runtimes prepare anew for every length and would have done so on the same ones."""
_OTHER_INPUTS = 1_000_000
"""Turns whose inputs are never timed begin here."""


@dataclass(frozen=True)
class MeasureSettings:
    """What is measured.

    Attributes:
        batch_sizes: each with each length.
        lengths: in tokens: of random inputs, all of one length.
        task_rows: token ids of the task's own inputs; if given, one more length: rows drawn from these.
        new_tokens: written by a decoder (exactly) or an encoder-decoder (at most).
        beams: of an encoder-decoder.
        length_penalty: of the same.
        seconds: for one cell, all contenders and processes together, warm-up not counted.
        least_rounds: done in any case, in all processes together.
        processes: how often every contender is started anew.
        baseline: the contender that the ratios are against; None is the first.
        price_per_core_hour: in any currency; the default is about what clouds ask in dollars.
        seed: of the inputs and the bootstrap.
    """

    batch_sizes: tuple[int, ...] = (1, 32)
    lengths: tuple[int, ...] = (32, 128, 512)
    task_rows: tuple[tuple[int, ...], ...] = ()
    new_tokens: int = 32
    beams: int = 1
    length_penalty: float = 1.0
    seconds: float = 20.0
    least_rounds: int = 5
    processes: int = 1
    baseline: str | None = None
    price_per_core_hour: float = 0.04
    seed: int = 0


@dataclass(frozen=True)
class Cell:
    """A batch size, and a length in tokens; None is the task's own inputs."""

    batch_size: int
    length: int | None


@dataclass(frozen=True)
class Measurement:
    """One contender in one cell.

    Attributes:
        contender: its name.
        quantisation: of its weights (in PyTorch, bf16 is autocast).
        work: `classes`, `next_tokens` or `target_tokens`.
        length: of every input, in tokens; None: the task's own inputs.
        mean_length: of the inputs, in tokens.
        new_tokens: asked for; 0 for a classifier.
        written: tokens a row that were written, on average; 0 for a classifier.
        beams: of the beam search; 1 for all but encoder-decoders.
        rounds: how many runs were timed.
        median_ms: of one run of the whole batch, as are the percentiles.
        throughput_per_s: rows a second, by the median.
        load_seconds: importing the runtime and opening the model; the median of the processes.
        peak_bytes: the most memory its process had held up to the end of this cell; cells are measured in the order
            of their size, so this is what the cell needed.
        bytes: of its weights on disk.
        cost_per_million: rows: cores times seconds at the price per core and hour, by the median.
        baseline: the contender that the ratios are against.
        ratio: how many times as fast as the baseline, by the medians; None where the baseline does not read so much.
        ratio_low: of its 95 % bootstrap interval, the rounds resampled together; `ratio_high` likewise.
        size_ratio: how many times as small as the baseline, on disk.
        machine: where this was measured.
    """

    contender: str
    runtime: Runtime
    quantisation: str
    threads: int
    work: Work
    batch_size: int
    length: int | None
    mean_length: float
    new_tokens: int
    written: float
    beams: int
    rounds: int
    median_ms: float
    p95_ms: float
    p99_ms: float
    throughput_per_s: float
    load_seconds: float
    peak_bytes: int
    bytes: int
    cost_per_million: float
    price_per_core_hour: float
    baseline: str
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    size_ratio: float
    machine: dict[str, str] = field(default_factory=dict)


class Worker(Protocol):
    """What is asked of a contender's process; see `WorkerProcess`."""

    def load(self) -> float: ...

    def run(self, rows: list[list[int]], *, new_tokens: int, beams: int, length_penalty: float) -> Timing: ...

    def peak_bytes(self) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class _Rival:
    """A contender in the arena."""

    contender: Contender
    worker: Worker
    load_seconds: float


@dataclass(frozen=True)
class _Timed:
    """What the turns of one contender in a cell gave."""

    rival: _Rival
    samples_ms: tuple[float, ...]
    written: float
    peak_bytes: int
    rounds_by_process: tuple[int, ...]

    def latency(self, batch_size: int) -> Latency:
        median = float(np.median(self.samples_ms))
        p95 = float(np.percentile(self.samples_ms, 95))
        throughput = 1000 * batch_size / median
        return Latency(median, p95, throughput, len(self.samples_ms), self.samples_ms, self.rounds_by_process)


def list_cells(contenders: Sequence[Contender], settings: MeasureSettings) -> list[Cell]:
    """The cells that at least one contender can be measured in, the smallest first."""
    lengths: list[int | None] = [*settings.lengths, *([None] if settings.task_rows else [])]
    cells = [Cell(size, length) for size in settings.batch_sizes for length in lengths]
    open_cells = [cell for cell in cells if any(_reads(contender, cell, settings) for contender in contenders)]
    return sorted(open_cells, key=lambda cell: cell.batch_size * _longest_row(cell, settings))


def measure(
    contenders: Sequence[Contender],
    settings: MeasureSettings,
    progress: Advance | None = None,
    start: Callable[[Contender], Worker] = WorkerProcess,
) -> list[Measurement]:
    """Measure every contender in every cell that is not beyond its longest input.

    Args:
        contenders: in the order in which they take turns.
        settings: what is measured.
        progress: told of every cell of `list_cells` when it is done, in every process.
        start: starts a contender's process, which is always ended.

    Raises:
        UserError: the contenders cannot be compared, or one of them fails.
    """
    baseline = _check(contenders, settings)
    advance = progress or (lambda amount, note="": None)
    machine = describe_machine()
    cells = list_cells(contenders, settings)
    timed: dict[Cell, list[list[_Timed]]] = {cell: [] for cell in cells}
    for _ in range(settings.processes):
        with _started(contenders, start) as rivals:
            for cell in cells:
                able = [rival for rival in rivals if _reads(rival.contender, cell, settings)]
                found = _time_in_turn(
                    able, cell, settings, first_turn=sum(len(own[0].samples_ms) for own in timed[cell])
                )
                timed[cell].append(found)
                fastest = min(found, key=lambda own: float(np.median(own.samples_ms)))
                milliseconds = float(np.median(fastest.samples_ms))
                advance(1, f"{describe_cell(cell)}: {fastest.rival.contender.name} {milliseconds:.3g} ms")
    return [
        measurement
        for cell, processes in timed.items()
        for measurement in _summarise(
            [_join(own) for own in zip(*processes, strict=True)], cell, settings, baseline, machine
        )
    ]


def count_parts(contenders: Sequence[Contender], settings: MeasureSettings) -> int:
    """How often `measure` tells of its progress."""
    return settings.processes * len(list_cells(contenders, settings))


def describe_cell(cell: Cell) -> str:
    """1 x 128"""
    return f"{cell.batch_size} \N{MULTIPLICATION SIGN} {'own' if cell.length is None else cell.length}"


def to_json_lines(measurements: Sequence[Measurement]) -> str:
    """One JSON object a line for every measurement, with all that is known of it."""
    return "".join(json.dumps(asdict(row), allow_nan=False) + "\n" for row in measurements)


def describe_machine() -> dict[str, str]:
    """The processor, its cores, the system, and the versions of what is installed of the runtimes."""
    return {
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "system": system_name(),
        "python": sys.version.split()[0],
        **versions_of(("lightpaff", "numpy", *packages_of_runtimes())),
    }


def _check(contenders: Sequence[Contender], settings: MeasureSettings) -> Contender:
    """Check that the contenders can be compared; the baseline."""
    names = [contender.name for contender in contenders]
    if not contenders:
        raise UserError("there is nothing to measure; give a run, a model or an export whose runtime is installed")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{twice[0]}: is the name of several contenders; give each its own")
    works = {contender.work: contender.name for contender in contenders}
    if len(works) > 1:
        told = ", ".join(f"{name} {work}" for work, name in works.items())
        raise UserError(f"the models do different work ({told}); measure models of one kind together")
    name = names[0] if settings.baseline is None else settings.baseline
    if name not in names:
        raise UserError(f"the baseline {name} is none of the contenders; take one of {', '.join(names)}")
    if not list_cells(contenders, settings):
        raise UserError(f"lengths {list(settings.lengths)}: no model reads so many tokens; give shorter ones")
    _check_ids(contenders, settings)
    return contenders[names.index(name)]


def _check_ids(contenders: Sequence[Contender], settings: MeasureSettings) -> None:
    largest = max((max(row) for row in settings.task_rows), default=-1)
    smallest = min(contenders, key=lambda contender: contender.vocabulary)
    if largest >= smallest.vocabulary:
        raise UserError(
            f"{smallest.name}: has {smallest.vocabulary} tokens, and the task's own inputs hold number {largest}; "
            "leave it out, or the own inputs"
        )


@contextlib.contextmanager
def _started(contenders: Sequence[Contender], start: Callable[[Contender], Worker]) -> Iterator[list[_Rival]]:
    """The contenders' processes, loaded one after the other; ended whatever happens, Ctrl-C included."""
    with contextlib.ExitStack() as stack:
        rivals = []
        for contender in contenders:
            worker = stack.enter_context(contextlib.closing(start(contender)))
            rivals.append(_Rival(contender, worker, worker.load()))
        yield rivals


def _join(processes: Sequence[_Timed]) -> _Timed:
    """What a contender's processes gave, as of one."""
    first = processes[0]
    load_seconds = float(np.median([process.rival.load_seconds for process in processes]))
    return _Timed(
        replace(first.rival, load_seconds=load_seconds),
        samples_ms=tuple(sample for process in processes for sample in process.samples_ms),
        written=float(
            np.average([one.written for one in processes], weights=[len(one.samples_ms) for one in processes])
        ),
        peak_bytes=max(process.peak_bytes for process in processes),
        rounds_by_process=tuple(len(process.samples_ms) for process in processes),
    )


def _time_in_turn(rivals: Sequence[_Rival], cell: Cell, settings: MeasureSettings, first_turn: int) -> list[_Timed]:
    vocabulary = min(rival.contender.vocabulary for rival in rivals)

    def run(rival: _Rival, turn: int) -> Timing:
        return rival.worker.run(
            draw_rows(cell, settings, turn, vocabulary),
            new_tokens=settings.new_tokens,
            beams=settings.beams,
            length_penalty=settings.length_penalty,
        )

    settles = [_warm_up(partial(run, rival)) < _SETTLE_BELOW_MS for rival in rivals]
    timings: list[list[Timing]] = [[] for _ in rivals]
    deadline = time.perf_counter() + settings.seconds / settings.processes
    turn = first_turn
    last = first_turn + math.ceil(settings.least_rounds / settings.processes)
    while turn < last or time.perf_counter() < deadline:
        for rival, settle, own in zip(rivals, settles, timings, strict=True):
            if settle:
                run(rival, _OTHER_INPUTS + turn)
            own.append(run(rival, turn))
        turn += 1
    return [
        _Timed(
            rival,
            samples_ms=tuple(timing.milliseconds for timing in own),
            written=float(np.mean([timing.tokens for timing in own]) / cell.batch_size),
            peak_bytes=rival.worker.peak_bytes(),
            rounds_by_process=(len(own),),
        )
        for rival, own in zip(rivals, timings, strict=True)
    ]


def _warm_up(run: Callable[[int], Timing]) -> float:
    """Let a runtime prepare for this shape; the milliseconds of the last run."""
    started = time.perf_counter()
    for turn in range(_WARM_UP_RUNS):
        last = run(turn).milliseconds
        if time.perf_counter() - started > _WARM_UP_SECONDS:
            break
    return last


def draw_rows(cell: Cell, settings: MeasureSettings, turn: int, vocabulary: int) -> list[list[int]]:
    """The token ids of a turn: drawn at random, or rows of the task's own; the same for all contenders."""
    random = np.random.default_rng([settings.seed, turn, cell.batch_size, cell.length or 0])
    if cell.length is None:
        return [list(settings.task_rows[i]) for i in random.integers(len(settings.task_rows), size=cell.batch_size)]
    rows: list[list[int]] = random.integers(vocabulary, size=(cell.batch_size, cell.length)).tolist()
    return rows


def _summarise(
    timed: Sequence[_Timed], cell: Cell, settings: MeasureSettings, baseline: Contender, machine: dict[str, str]
) -> list[Measurement]:
    reference = next((own for own in timed if own.rival.contender is baseline), None)
    return [_to_measurement(own, reference, cell, settings, baseline, machine) for own in timed]


def _to_measurement(
    own: _Timed,
    reference: _Timed | None,
    cell: Cell,
    settings: MeasureSettings,
    baseline: Contender,
    machine: dict[str, str],
) -> Measurement:
    contender = own.rival.contender
    latency = own.latency(cell.batch_size)
    ratio = _ratio(reference, own, cell, settings)
    lengths = [len(row) for row in settings.task_rows] if cell.length is None else [cell.length]
    core_hours = contender.threads * latency.median_ms / cell.batch_size / 3.6e6
    return Measurement(
        contender=contender.name,
        runtime=contender.runtime,
        quantisation=contender.quantisation,
        threads=contender.threads,
        work=contender.work,
        batch_size=cell.batch_size,
        length=cell.length,
        mean_length=float(np.mean(lengths)),
        new_tokens=0 if contender.work in ("classes", "token_classes") else settings.new_tokens,
        written=own.written,
        beams=settings.beams if contender.work == "target_tokens" else 1,
        rounds=latency.rounds,
        median_ms=latency.median_ms,
        p95_ms=latency.p95_ms,
        p99_ms=float(np.percentile(own.samples_ms, 99)),
        throughput_per_s=latency.throughput_per_s,
        load_seconds=own.rival.load_seconds,
        peak_bytes=own.peak_bytes,
        bytes=contender.bytes,
        cost_per_million=1e6 * core_hours * settings.price_per_core_hour,
        price_per_core_hour=settings.price_per_core_hour,
        baseline=baseline.name,
        ratio=ratio.value if ratio else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
        size_ratio=baseline.bytes / contender.bytes,
        machine=machine,
    )


def _ratio(reference: _Timed | None, own: _Timed, cell: Cell, settings: MeasureSettings) -> SpeedRatio | None:
    if reference is None:
        return None
    return speed_ratio(reference.latency(cell.batch_size), own.latency(cell.batch_size), settings.seed)


def _reads(contender: Contender, cell: Cell, settings: MeasureSettings) -> bool:
    """Whether the cell is within the model's longest input, in which a decoder also writes."""
    if contender.longest is None:
        return True
    more = settings.new_tokens if contender.work == "next_tokens" else 0
    return _longest_row(cell, settings) + more <= contender.longest


def _longest_row(cell: Cell, settings: MeasureSettings) -> int:
    return max(map(len, settings.task_rows)) if cell.length is None else cell.length
