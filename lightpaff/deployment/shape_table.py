"""A search for a shape as a table for a terminal, as JSON lines and as a plot."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from lightpaff.deployment.shape_grid import name_shape
from lightpaff.deployment.shape_search import Budget, Candidate, MeasuredShape, Timing, find_front
from lightpaff.report import formats
from lightpaff.report.canvas import INK, arm_colour, finish_chart, make_logarithmic, open_figure

_TIMES = "\N{MULTIPLICATION SIGN}"
_WIDE_RANGE = 5.0
"""Latencies that differ by more than this factor are drawn on a logarithmic axis."""
_COLOURS = """<style>
:root { --muted: #5d6570; --line: #e2e3de; --student: #0b8a70; --teacher: #4657c9; --control: #c2700c;
  font-family: system-ui, sans-serif; background: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --muted: #9aa3af; --line: #2f353d; --student: #3ecfae;
  --teacher: #8f9cf5; --control: #eda24a; background: #1c2026; } }
</style>"""
"""What a page would say, for a plot that stands alone."""


@dataclass(frozen=True)
class ShapeSearch:
    """What a search found.

    Attributes:
        teacher: its name, shape and parameters.
        teacher_bytes: in float32.
        baseline: the teacher in PyTorch; None where it is too large to be measured here.
        measured: in the order of the search.
        recommended: one of them.
        candidates: how many shapes there were to choose from.
        runtime: such as "ONNX Runtime int8".
        conditions: such as "1 input of 128 tokens, 2 threads".
        facts: for every JSON line: how and where this was measured.
    """

    name: str
    teacher: Candidate
    teacher_bytes: int
    baseline: Timing | None
    measured: list[MeasuredShape]
    recommended: MeasuredShape
    budget: Budget
    candidates: int
    runtime: str
    conditions: str
    facts: dict[str, Any]

    @property
    def front(self) -> list[MeasuredShape]:
        """The Pareto front of those that are small enough: the recommended shape is on it."""
        return find_front([one for one in self.measured if one.timing.bytes <= self.budget.bytes])

    def speed_of(self, timing: Timing) -> float | None:
        """How many times as fast as the teacher in PyTorch."""
        return None if self.baseline is None else self.baseline.median_ms / timing.median_ms


def render_shapes(search: ShapeSearch) -> Table:
    """The front, the recommended shape marked, and the teacher; what is too slow is dim."""
    columns = ["student", "parameters", "in layers", "on disk", "smaller", "median", "p95", "faster", ""]
    table = Table(box=box.SIMPLE_HEAD, caption=Text(_caption(search)), caption_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if 0 < place < len(columns) - 1 else "left", no_wrap=True)
    for one in search.front:
        is_chosen = one is search.recommended
        mark = "recommended" if is_chosen else "" if one.fits(search.budget) else "too slow"
        style = "bold green" if is_chosen else "" if one.fits(search.budget) else "dim"
        table.add_row(*_cells(one.candidate, one.timing, search), mark, style=style)
    if search.baseline is not None:
        table.add_row(*_cells(search.teacher, search.baseline, search), "teacher", style="blue")
    return table


def to_json_lines(search: ShapeSearch) -> str:
    """A JSON object a line for every measured shape, with how it was measured."""
    front = search.front
    lines = [
        {
            **one.candidate.shape.model_dump(),
            "parameters": one.candidate.parameters,
            "layer_parameters": one.candidate.layer_parameters,
            "bytes": one.timing.bytes,
            "size_ratio": search.teacher_bytes / one.timing.bytes,
            "median_ms": one.timing.median_ms,
            "p95_ms": one.timing.p95_ms,
            "rounds": one.timing.rounds,
            "written": one.timing.written,
            "ratio": search.speed_of(one.timing),
            "fits": one.fits(search.budget),
            "on_front": one in front,
            "recommended": one is search.recommended,
            "max_latency_ms": search.budget.milliseconds,
            "max_bytes": search.budget.bytes,
            "teacher": search.name,
            "teacher_bytes": search.teacher_bytes,
            "teacher_median_ms": search.baseline.median_ms if search.baseline else None,
            **search.facts,
        }
        for one in search.measured
    ]
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def draw_shapes(search: ShapeSearch) -> str:
    """The layers' parameters against latency as SVG that stands alone: the front, the budget, the recommended shape."""
    front = search.front
    beaten = [one for one in search.measured if one not in front]
    with open_figure(6.4, 4.0) as figure:
        axes = figure.subplots()
        axes.plot(*_points(front), color=arm_colour("student"), marker="o", markersize=5, linewidth=1.4)
        axes.plot(*_points(beaten), color=INK, marker="o", markersize=4, linestyle="none", alpha=0.6)
        chosen = _points([search.recommended])
        axes.plot(*chosen, color=arm_colour("student"), marker="o", markersize=13, alpha=0.35)
        limit = search.budget.milliseconds
        axes.axvline(limit, color=arm_colour("control"), linestyle="--", linewidth=1.4)
        budget = axes.annotate(
            f"budget {formats.milliseconds(limit)} ", (limit, 0.02), xycoords=("data", "axes fraction"), ha="right"
        )
        budget.set_color(arm_colour("control"))
        for one in front:
            axes.annotate(
                name_shape(one.candidate.shape),
                (one.timing.median_ms, one.candidate.layer_parameters / 1e6),
                xytext=(-6, 6),
                textcoords="offset points",
                ha="right",
                fontweight="bold" if one is search.recommended else "normal",
                color=arm_colour("student"),
            )
        _set_axes(axes, [one.timing.median_ms for one in search.measured] + [limit])
        title = f"students of {search.name}: {search.runtime}, {search.conditions}"
        axes.set_title(title, loc="left", fontsize=9)
        svg = finish_chart(title, figure).svg
    start = svg.index(">", svg.index("<svg")) + 1
    return f"{svg[:start]}\n{_COLOURS}{svg[start:]}\n"


def _points(shapes: Sequence[MeasuredShape]) -> tuple[list[float], list[float]]:
    return [one.timing.median_ms for one in shapes], [one.candidate.layer_parameters / 1e6 for one in shapes]


def _set_axes(axes: Any, milliseconds: list[float]) -> None:
    axes.set_xlabel("median latency (ms)")
    axes.set_ylabel("parameters in the layers (millions)")
    axes.margins(x=0.18, y=0.12)
    if max(milliseconds) > _WIDE_RANGE * min(milliseconds):
        make_logarithmic(axes, "x")


def _cells(candidate: Candidate, timing: Timing, search: ShapeSearch) -> list[str]:
    speed = search.speed_of(timing)
    return [
        name_shape(candidate.shape),
        formats.count(candidate.parameters),
        formats.count(candidate.layer_parameters),
        formats.megabytes(timing.bytes),
        f"{formats.ratio(search.teacher_bytes / timing.bytes)}{_TIMES}",
        formats.milliseconds(timing.median_ms),
        formats.milliseconds(timing.p95_ms),
        "" if speed is None else f"{formats.ratio(speed)}{_TIMES}",
    ]


def _caption(search: ShapeSearch) -> str:
    budget = search.budget
    parts = [
        f"Budget: {formats.milliseconds(budget.milliseconds)} and {formats.megabytes(int(budget.bytes))}",
        f"students (layers {_TIMES} hidden size, heads and feed-forward layers in the teacher's proportions) as "
        f"{search.runtime} with random weights, {search.conditions}",
        f"{len(search.measured)} of {search.candidates} shapes measured",
        "shown are those that no other one beats in both latency and the parameters of their layers, which stand in "
        "for quality",
    ]
    if search.baseline is None:
        parts.append("the teacher is too large to be measured in this machine's memory")
    else:
        parts.append(f"faster and smaller than {search.name} in PyTorch float32, with the same input")
    return "; ".join(parts) + "."
