"""The page's plots of trainings and of differences."""

from collections.abc import Callable

import numpy as np

from lightpaff.report import formats
from lightpaff.report.canvas import INK, Chart, arm_colour, finish_chart, make_logarithmic, open_figure
from lightpaff.report.measured import in_order
from lightpaff.report.metrics import METRICS
from lightpaff.report.rows import Arm, Comparison, Curve, ReportData, TaskFacts

_LINE_STYLES: dict[Arm, str] = {"teacher": "-", "student": "-", "control": "--", "tfidf": ":"}
_MOST_POINTS = 60
_WIDE_RANGE = 10.0
"""A perplexity that falls by more than this factor is drawn on a logarithmic axis."""


def plot_learning_curves(data: ReportData) -> list[Chart]:
    """For each stage and task: the loss on gold labels, the divergence from the teacher, and the validation metric."""
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
    if any(curve.divergence for curve in curves):
        measures["divergence from the teacher (nats)"] = lambda curve: _thin_out(curve.steps, curve.divergence)
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
    with open_figure(3.6, 2.3) as figure:
        axes = figure.subplots()
        seeds = len({curve.seed for curve, _, _ in lines})
        marker = "o" if "validation" in title else None
        order = in_order(curve.arm for curve, _, _ in lines)
        for curve, steps, values in sorted(lines, key=lambda line: -order.index(line[0].arm)):
            axes.plot(
                *(steps, values),
                color=arm_colour(curve.arm),
                linestyle=_LINE_STYLES.get(curve.arm, "-."),
                linewidth=1.8 if seeds == 1 else 1.2,
                marker=marker,
                markersize=3.5,
            )
        axes.set_xlabel("step")
        axes.margins(x=0.02)
        axes.locator_params(axis="x", nbins=5)
        everything = [value for _, _, values in lines for value in values]
        if "perplexity" in title and max(everything) > _WIDE_RANGE * min(everything) > 0:
            make_logarithmic(axes, "y")
        else:
            axes.locator_params(axis="y", nbins=5)
        return finish_chart(title, figure)


def _draw_comparisons(task: TaskFacts, found: list[Comparison]) -> Chart:
    metric = METRICS[task.metric]
    with open_figure(5.4, 0.8 + 0.36 * len(found)) as figure:
        axes = figure.subplots()
        for place, one in enumerate(found):
            colour = arm_colour(one.first_arm)
            axes.plot(
                [metric.scale * one.low, metric.scale * one.high], [place, place], color=colour, linewidth=3, alpha=0.5
            )
            axes.plot([metric.scale * one.difference], [place], color=colour, marker="o", markersize=7)
        names = [formats.comparison_name(one.first_arm, one.second_arm) for one in found]
        axes.set_yticks(range(len(found)), names)
        axes.set_ylim(len(found) - 0.5, -0.5)
        axes.axvline(0, color=INK, linewidth=1)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"difference in {metric.label}, 95 % interval")
        side = "right" if metric.is_higher_better else "left"
        return finish_chart(f"{task.name}: paired differences; {side} of zero the first is better", figure)
