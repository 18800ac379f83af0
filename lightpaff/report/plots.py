"""The page's plots, as SVG that takes its colours and fonts from the page: so they follow light, dark and print.

matplotlib draws with stand-in colours, which are then replaced by the page's CSS variables. Nothing here depends on
the time or on chance: the same data gives the same bytes.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from matplotlib.transforms import Bbox

from lightpaff.report import formats
from lightpaff.report.measured import ARM_ORDER, MeasuredModel, measured_models
from lightpaff.report.metrics import METRICS
from lightpaff.report.rows import Arm, Comparison, Curve, ReportData, TaskFacts

_INK, _FAINT = "#a1b2c3", "#a1b2c4"
_ARM_COLOURS: dict[Arm, str] = {
    "teacher": "#a1b2d1",
    "student": "#a1b2d2",
    "control": "#a1b2d3",
    "tfidf": "#a1b2d4",
}
_CSS_COLOURS = {_INK: "var(--muted)", _FAINT: "var(--line)"} | {
    colour: f"var(--{arm})" for arm, colour in _ARM_COLOURS.items()
}
_LINE_STYLES: dict[Arm, str] = {"teacher": "-", "student": "-", "control": "--", "tfidf": ":"}
_MOST_POINTS = 60
_WIDE_RANGE = 10.0
"""A perplexity that falls by more than this factor is drawn on a logarithmic axis."""
_LARGEST_MARKER = 1000.0  # in square points
_STYLE: dict[str, Any] = {
    "svg.hashsalt": "lightpaff",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
}


@dataclass(frozen=True)
class Chart:
    """A plot and its title; `svg` is one <svg> element to put into the page."""

    title: str
    svg: str


def plot_learning_curves(data: ReportData) -> list[Chart]:
    """For each stage and task: the loss on gold labels, the KL to the teacher, and the validation metric."""
    groups: dict[tuple[str, str | None], list[Curve]] = {}
    for curve in data.curves:
        groups.setdefault((curve.stage, curve.task), []).append(curve)
    charts = []
    for (stage, task), curves in groups.items():
        where = f"{stage}, {task}" if task and len(data.tasks) > 1 else stage
        for title, points_of in _measures(curves, _chosen_metrics(data, curves)).items():
            lines = [(curve, *points_of(curve)) for curve in curves]
            if any(len(values) > 1 for _, _, values in lines):
                charts.append(_draw_curves(f"{where}: {title}", lines))
    return charts


def plot_quality_against_latency(data: ReportData) -> dict[str, Chart]:
    """For each task with two timed models or more: the score against the latency, the stored size as the area."""
    charts = {task.name: _draw_quality_against_latency(data, task) for task in data.tasks}
    return {name: chart for name, chart in charts.items() if chart is not None}


def plot_comparisons(data: ReportData) -> list[Chart]:
    """For each task: the paired differences with their intervals beside zero."""
    charts = []
    for task in data.tasks:
        found = [one for one in data.comparisons if (one.task, one.metric) == (task.name, task.metric)]
        if found:
            charts.append(_draw_comparisons(task, found))
    return charts


PointsOf = Callable[[Curve], tuple[list[int], list[float]]]


def _chosen_metrics(data: ReportData, curves: list[Curve]) -> list[str]:
    """The task's first metric, where the curves have it, else the perplexity; else all that they have."""
    recorded = list(dict.fromkeys(point.metric for curve in curves for point in curve.validation))
    wanted = [*(task.metric for task in data.tasks if task.name == curves[0].task), "perplexity"]
    return [metric for metric in wanted if metric in recorded][:1] or recorded


def _measures(curves: list[Curve], metrics: list[str]) -> dict[str, PointsOf]:
    measures: dict[str, PointsOf] = {}
    if any(curve.nll for curve in curves):
        measures["loss on gold labels"] = lambda curve: _thin_out(curve.steps, curve.nll)
    elif any(curve.training_loss for curve in curves):
        measures["training loss"] = lambda curve: _thin_out(curve.steps, curve.training_loss)
    if any(curve.kl for curve in curves):
        measures["KL to the teacher (nats)"] = lambda curve: _thin_out(curve.steps, curve.kl)
    for metric in metrics:
        measures[f"validation {METRICS[metric].label}"] = lambda curve, metric=metric: _validation_points(curve, metric)  # type: ignore[misc]
    return measures


def _validation_points(curve: Curve, metric: str) -> tuple[list[int], list[float]]:
    points = [point for point in curve.validation if point.metric == metric]
    return [point.step for point in points], [METRICS[metric].scale * point.value for point in points]


def _thin_out(steps: list[int], values: list[float]) -> tuple[list[int], list[float]]:
    """Means of neighbours, so that a long and noisy run stays a readable line and a small file."""
    if len(values) <= _MOST_POINTS:
        return steps[: len(values)], values
    parts = np.array_split(np.arange(len(values)), _MOST_POINTS)
    return (
        [round(float(np.mean(np.array(steps)[part]))) for part in parts],
        [float(np.mean(np.array(values)[part])) for part in parts],
    )


def _draw_curves(title: str, lines: list[tuple[Curve, list[int], list[float]]]) -> Chart:
    with _figure(3.6, 2.3) as figure:
        axes = figure.subplots()
        seeds = len({curve.seed for curve, _, _ in lines})
        marker = "o" if "validation" in title else None
        for curve, steps, values in sorted(lines, key=lambda line: -ARM_ORDER.index(line[0].arm)):
            axes.plot(
                *(steps, values),
                color=_ARM_COLOURS[curve.arm],
                linestyle=_LINE_STYLES[curve.arm],
                linewidth=1.8 if seeds == 1 else 1.2,
                marker=marker,
                markersize=3.5,
            )
        axes.set_xlabel("step")
        axes.margins(x=0.02)
        axes.locator_params(axis="x", nbins=5)
        everything = [value for _, _, values in lines for value in values]
        if "perplexity" in title and max(everything) > _WIDE_RANGE * min(everything) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.locator_params(axis="y", nbins=5)
        return _finish(title, figure)


def _draw_quality_against_latency(data: ReportData, task: TaskFacts) -> Chart | None:
    models, metric = measured_models(data, task), METRICS[task.metric]
    discs = [
        _Disc(model, model.median_ms, metric.scale * value)
        for model in models
        if model.median_ms is not None and (value := model.value(task.metric)) is not None
    ]
    if len(discs) < 2:
        return None
    untimed_words = [model for model in models if model.arm == "tfidf" and model.median_ms is None]
    with _figure(5.4, 3.2) as figure:
        axes = figure.subplots()
        for disc in discs:
            colour = _ARM_COLOURS[disc.model.arm]
            area = _marker_area(disc, discs)
            axes.scatter([disc.milliseconds], [disc.score], s=area, color=colour, alpha=0.35, linewidths=0)
            axes.scatter([disc.milliseconds], [disc.score], s=12, color=colour, linewidths=0)
        for model in untimed_words:
            if (words := model.value(task.metric)) is not None:
                axes.axhline(metric.scale * words, color=_ARM_COLOURS["tfidf"], linestyle=":", linewidth=1.4)
                place = ("axes fraction", "data")
                label = axes.annotate("TF-IDF", (0.99, metric.scale * words), xycoords=place, ha="right", va="bottom")
                label.set_color(_ARM_COLOURS["tfidf"])
        axes.set_xlim(0, max(disc.milliseconds for disc in discs) * 1.1)
        axes.margins(y=0.3)
        axes.set_xlabel(f"median latency (ms): {task.timed}")
        axes.set_ylabel(metric.label)
        _label_discs(figure, axes, discs)
        better = "up" if metric.is_higher_better else "down"
        return _finish(f"{task.name}: {metric.name} against latency; {better} and to the left is better", figure)


@dataclass(frozen=True)
class _Disc:
    model: MeasuredModel
    milliseconds: float
    score: float


def _marker_area(disc: _Disc, discs: list[_Disc]) -> float:
    largest = max(other.model.bytes or 0 for other in discs)
    return _LARGEST_MARKER * (disc.model.bytes or 0) / largest if largest else 60.0


def _label_discs(figure: Figure, axes: Any, discs: list[_Disc]) -> None:
    """Name every disc, above or below it, where the name lies on no disc and no other name."""
    runtimes = {disc.model.runtime for disc in discs}
    slowest = max(disc.milliseconds for disc in discs)
    figure.draw_without_rendering()
    taken = [_box_of(axes, disc, discs) for disc in discs]
    for disc in discs:
        name = formats.ARM_NAMES[disc.model.arm]
        is_right = disc.milliseconds > 0.6 * slowest
        label = axes.annotate(
            f"{name}, {disc.model.runtime}" if len(runtimes) > 1 else name,
            (disc.milliseconds, disc.score),
            xytext=(0, 0),
            textcoords="offset points",
            ha="right" if is_right else "left",
            va="center",
            color=_ARM_COLOURS[disc.model.arm],
        )
        gap = 8 + np.sqrt(_marker_area(disc, discs)) / 2
        for height in (gap, -gap, gap + 12, -gap - 12, gap + 24, -gap - 24):
            label.set_position((-4 if is_right else 4, height))
            box = label.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _box_of(axes: Any, disc: _Disc, discs: list[_Disc]) -> Bbox:
    across, up = axes.transData.transform((disc.milliseconds, disc.score))
    radius = np.sqrt(_marker_area(disc, discs)) / 2 * axes.figure.dpi / 72
    return Bbox.from_extents(across - radius, up - radius, across + radius, up + radius)


def _draw_comparisons(task: TaskFacts, found: list[Comparison]) -> Chart:
    metric = METRICS[task.metric]
    with _figure(5.4, 0.8 + 0.36 * len(found)) as figure:
        axes = figure.subplots()
        for place, one in enumerate(found):
            colour = _ARM_COLOURS[one.first_arm]
            axes.plot(
                [metric.scale * one.low, metric.scale * one.high], [place, place], color=colour, linewidth=3, alpha=0.5
            )
            axes.plot([metric.scale * one.difference], [place], color=colour, marker="o", markersize=7)
        names = [formats.comparison_name(one.first_arm, one.second_arm) for one in found]
        axes.set_yticks(range(len(found)), names)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.axvline(0, color=_INK, linewidth=1)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"difference in {metric.label}, 95 % interval")
        side = "right" if metric.is_higher_better else "left"
        return _finish(f"{task.name}: paired differences; {side} of zero the first is better", figure)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _finish(title: str, figure: Figure) -> Chart:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg, count=2)
    # Several plots share one page: ids must not clash, or one plot is clipped by another's rectangle.
    prefix = "p" + hashlib.sha256(title.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{prefix}-", svg)
    for colour, css in _CSS_COLOURS.items():
        svg = svg.replace(colour, css)
    return Chart(title, svg.replace("<svg ", '<svg role="img" ', 1).strip())
