"""The measurements of a benchmark as a table: contenders are its rows, cells (batch size by length) its columns."""

from collections.abc import Sequence

from rich.table import Table as RichTable

from lightpaff.deployment.measuring import Cell as Shape
from lightpaff.deployment.measuring import Measurement, describe_cell
from lightpaff.report import formats
from lightpaff.report.console import terminal_table
from lightpaff.report.online_tables import WRITTEN
from lightpaff.report.tables import UNKNOWN, Cell, Line, Table, keep_columns
from lightpaff.runtimes import RUNTIMES, Runtime

_TIMES = "\N{MULTIPLICATION SIGN}"
_WORDS = {
    "classes": "",
    "token_classes": "",
    "next_tokens": ", and {new_tokens} tokens more",
    "target_tokens": ", and up to {new_tokens} tokens written with {beams} beam(s)",
}


def build_table(measurements: Sequence[Measurement], with_intervals: bool = True) -> Table:
    """Median times with the ratio to the baseline, size, memory, loading and cost of every contender.

    Args:
        measurements: of one call of `measure`.
        with_intervals: also the 95 % intervals of the ratios.
    """
    shapes = list(dict.fromkeys(Shape(row.batch_size, row.length) for row in measurements))
    shapes.sort(key=lambda shape: (shape.batch_size, shape.length is None, shape.length or 0))
    priced = _priced(shapes)
    by_contender: dict[str, dict[Shape, Measurement]] = {}
    for row in measurements:
        by_contender.setdefault(row.contender, {})[Shape(row.batch_size, row.length)] = row
    columns = ["model", "size", "memory", "loading", *map(describe_cell, shapes), "cost of 1M", WRITTEN]
    lines = []
    for name, rows in by_contender.items():
        one = next(iter(rows.values()))
        cells = [
            Cell(name, describe_runtime(one.runtime, one.quantisation)),
            Cell(formats.megabytes(one.bytes), _times(one.size_ratio) if name != one.baseline else ""),
            Cell(formats.megabytes(max(row.peak_bytes for row in rows.values()))),
            Cell(formats.duration(one.load_seconds)),
            *(_time(rows.get(shape), with_intervals) for shape in shapes),
            Cell(f"{rows[priced].cost_per_million:,.3g}" if priced in rows else UNKNOWN),
            Cell(formats.tokens(rows[priced].written) if priced in rows else UNKNOWN),
        ]
        # In the reports' colours it is the teacher.
        lines.append(Line(cells, arm="teacher" if name == one.baseline else None))
    table = Table(_caption(measurements, priced, with_intervals), columns, lines)
    return table if _writes(measurements) else keep_columns(table, columns[:-1])


def _writes(measurements: Sequence[Measurement]) -> bool:
    return any(row.written for row in measurements)


def render_rich(measurements: Sequence[Measurement], with_intervals: bool = False) -> RichTable:
    """The table for a terminal; the baseline's line is blue, the fastest of each column green."""
    return terminal_table(build_table(measurements, with_intervals), best=_fastest(measurements))


def _time(row: Measurement | None, with_intervals: bool) -> Cell:
    if row is None:
        return Cell(UNKNOWN)
    text = formats.milliseconds(row.median_ms)
    if row.ratio is None or row.ratio_low is None or row.ratio_high is None or row.contender == row.baseline:
        return Cell(text)
    interval = f" [{formats.ratio(row.ratio_low)}, {formats.ratio(row.ratio_high)}]" if with_intervals else ""
    return Cell(text, _times(row.ratio) + interval)


def _times(ratio: float) -> str:
    return f"{formats.ratio(ratio)}{_TIMES}"


def describe_runtime(runtime: Runtime, quantisation: str) -> str:
    """Such as "ONNX Runtime int8"."""
    return f"{RUNTIMES[runtime].title} {'float32' if quantisation == 'none' else quantisation}"


def _priced(shapes: list[Shape]) -> Shape:
    """The cell that costs are told of: the smallest batch size, the task's own inputs or else the middle length."""
    smallest = [shape for shape in shapes if shape.batch_size == shapes[0].batch_size]
    return smallest[-1] if smallest[-1].length is None else smallest[(len(smallest) - 1) // 2]


def _fastest(measurements: Sequence[Measurement]) -> set[tuple[str, str]]:
    """Who is the fastest in which column."""
    best: dict[Shape, Measurement] = {}
    for row in measurements:
        shape = Shape(row.batch_size, row.length)
        if shape not in best or row.median_ms < best[shape].median_ms:
            best[shape] = row
    return {(row.contender, describe_cell(shape)) for shape, row in best.items()}


def _caption(measurements: Sequence[Measurement], priced: Shape, with_intervals: bool) -> str:
    one = measurements[0]
    own = [row.mean_length for row in measurements if row.length is None]
    threads = sorted({row.threads for row in measurements})
    parts = [
        f"Columns are batch size {_TIMES} tokens of every input{_WORDS[one.work].format(**vars(one))}: the median time "
        f"of a batch, and how many times as fast as {one.baseline} that is"
        + (", with a 95 % interval" if with_intervals else ""),
        f"own: inputs of the task's own, {own[0]:.0f} tokens on average" if own else "",
        f"{'/'.join(map(str, threads))} {'thread' if threads == [1] else 'threads'}",
        f"cost of a million requests at {describe_cell(priced)} and {one.price_per_core_hour:g} a core-hour",
        "tokenising is not in the times",
        f"{WRITTEN}: of a row at {describe_cell(priced)}, on average; a model that writes fewer does less work"
        if _writes(measurements)
        else "",
    ]
    return "; ".join(part for part in parts if part) + "."
