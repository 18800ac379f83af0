"""Plots of scores against latency: one disc for each model, its area the size on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from lightpaff.report import formats
from lightpaff.report.canvas import Chart, arm_colour, finish_chart, make_logarithmic, open_figure
from lightpaff.report.measured import measured_models
from lightpaff.report.metrics import METRICS, ShownMetric
from lightpaff.report.online import OnlineModel, online_models, online_score
from lightpaff.report.rows import Arm, ReportData, TaskFacts

_LARGEST_MARKER = 1000.0  # in square points
_LEAST_SPAN = 0.02
"""Of the axis of scores, as a share of the highest: chance differences must not fill the plot."""


def plot_quality_against_latency(data: ReportData) -> dict[str, Chart]:
    """For each task with two timed models or more: the score against the latency, the stored size as the area."""
    charts = {task.name: _draw_quality_against_latency(data, task) for task in data.tasks}
    return {name: chart for name, chart in charts.items() if chart is not None}


def plot_quality_online(data: ReportData) -> dict[str, Chart]:
    """For each task with two models online or more: the score against the median latency of one request, up to the
    99th percentile; the size on disk is the area. Exports that were not delivered are hollow."""
    charts = {task.name: _draw_quality_online(data, task) for task in data.tasks}
    return {name: chart for name, chart in charts.items() if chart is not None}


@dataclass(frozen=True)
class _Disc:
    label: str
    arm: Arm
    milliseconds: float
    score: float
    bytes: int
    tail_ms: float | None = None
    is_hollow: bool = False


def _draw_quality_against_latency(data: ReportData, task: TaskFacts) -> Chart | None:
    models, metric = measured_models(data, task), METRICS[task.metric]
    timed = [
        (model, model.median_ms, value)
        for model in models
        if model.median_ms is not None and (value := model.value(task.metric)) is not None
    ]
    if len(timed) < 2:
        return None
    has_several = len({model.runtime for model, _, _ in timed}) > 1
    names = [formats.arm_name(model.arm) + (f", {model.runtime}" if has_several else "") for model, _, _ in timed]
    discs = [
        _Disc(name, model.arm, milliseconds, metric.scale * value, model.bytes or 0)
        for name, (model, milliseconds, value) in zip(names, timed, strict=True)
    ]
    with open_figure(5.4, 3.2) as figure:
        axes = figure.subplots()
        _draw_discs(axes, discs)
        for model in models:
            if model.arm == "tfidf" and model.median_ms is None and (words := model.value(task.metric)) is not None:
                _draw_word_counts(axes, metric.scale * words)
        axes.set_xlim(0, max(disc.milliseconds for disc in discs) * 1.1)
        axes.margins(y=0.3)
        axes.set_xlabel(f"median latency (ms): {task.timed}")
        axes.set_ylabel(metric.label)
        _label_discs(figure, axes, discs)
        return finish_chart(f"{task.name}: {metric.name} against latency; {_name_better_side(metric)}", figure)


def _draw_quality_online(data: ReportData, task: TaskFacts) -> Chart | None:
    metric = METRICS[task.metric]
    discs = [
        _online_disc(model, metric.scale * score)
        for model in online_models(data, task)
        if (score := online_score(data, task, model.name)) is not None
    ]
    if len(discs) < 2:
        return None
    with open_figure(10.6, 3.3) as figure:
        axes = figure.subplots()
        make_logarithmic(axes, "x")
        for disc in discs:
            ends = [disc.milliseconds, max(disc.tail_ms or 0, disc.milliseconds)]
            axes.plot(ends, [disc.score] * 2, color=arm_colour(disc.arm), linewidth=1.4)
            axes.plot(ends[1:], [disc.score], color=arm_colour(disc.arm), marker="|", markersize=8)
        _draw_discs(axes, discs)
        axes.margins(x=0.08)
        _limit_scores(axes, [disc.score for disc in discs])
        axes.tick_params(axis="x", which="minor", length=0)
        axes.set_xlabel("latency of one request (ms): median, and line to the 99th percentile")
        axes.set_ylabel(metric.label)
        _label_discs(figure, axes, discs)
        return finish_chart(f"{task.name}: {metric.name} against latency online; {_name_better_side(metric)}", figure)


def _online_disc(model: OnlineModel, score: float) -> _Disc:
    first, refused = model.first, " (refused)" if model.is_refused else ""
    label = f"{model.shown_name}{refused}, {formats.milliseconds(first.median_ms)}"
    return _Disc(label, model.arm, first.median_ms, score, first.bytes, first.p99_ms, model.is_refused)


def _name_better_side(metric: ShownMetric) -> str:
    return f"{'up' if metric.is_higher_better else 'down'} and to the left is better"


def _draw_discs(axes: Any, discs: Sequence[_Disc]) -> None:
    for disc in discs:
        colour, area = arm_colour(disc.arm), _marker_area(disc, discs)
        if disc.is_hollow:
            axes.scatter([disc.milliseconds], [disc.score], s=max(area, 40), facecolors="none", edgecolors=colour)
            continue
        axes.scatter([disc.milliseconds], [disc.score], s=area, color=colour, alpha=0.35, linewidths=0)
        axes.scatter([disc.milliseconds], [disc.score], s=12, color=colour, linewidths=0)


def _draw_word_counts(axes: Any, score: float) -> None:
    colour = arm_colour("tfidf")
    axes.axhline(score, color=colour, linestyle=":", linewidth=1.4)
    place = ("axes fraction", "data")
    axes.annotate("TF-IDF", (0.99, score), xycoords=place, ha="right", va="bottom", color=colour)


def _limit_scores(axes: Any, scores: list[float]) -> None:
    low, high = min(scores), max(scores)
    # Where all scores are 0, as a BLEU after very little training is, the axis still needs a width.
    span = max(high - low, _LEAST_SPAN * max(abs(low), abs(high))) or 1.0
    middle = (low + high) / 2
    axes.set_ylim(middle - 0.85 * span, middle + 0.85 * span)


def _marker_area(disc: _Disc, discs: Sequence[_Disc]) -> float:
    largest = max(other.bytes for other in discs)
    return _LARGEST_MARKER * disc.bytes / largest if largest else 60.0


def _label_discs(figure: Figure, axes: Any, discs: Sequence[_Disc]) -> None:
    """Name every disc, above or below it, where the name lies on no disc and no other name."""
    figure.draw_without_rendering()
    taken = [_box_of(axes, disc, discs) for disc in discs]
    for disc in discs:
        across = axes.transAxes.inverted().transform(axes.transData.transform((disc.milliseconds, disc.score)))[0]
        is_right = across > 0.55
        label = axes.annotate(
            disc.label,
            (disc.milliseconds, disc.score),
            xytext=(0, 0),
            textcoords="offset points",
            ha="right" if is_right else "left",
            va="center",
            color=arm_colour(disc.arm),
        )
        gap = 8 + np.sqrt(_marker_area(disc, discs)) / 2
        for height in (gap, -gap, gap + 12, -gap - 12, gap + 24, -gap - 24):
            label.set_position((-4 if is_right else 4, height))
            box = label.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _box_of(axes: Any, disc: _Disc, discs: Sequence[_Disc]) -> Bbox:
    across, up = axes.transData.transform((disc.milliseconds, disc.score))
    radius = np.sqrt(_marker_area(disc, discs)) / 2 * axes.figure.dpi / 72
    return Bbox.from_extents(across - radius, up - radius, across + radius, up + radius)
