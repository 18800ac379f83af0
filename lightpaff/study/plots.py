"""A study's plots: the arms with their seeds, score against size and speed or against a key, and noise."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightpaff.report import formats
from lightpaff.report.canvas import INK, Chart, arm_colour, finish_chart, make_logarithmic, open_figure
from lightpaff.report.metrics import METRICS
from lightpaff.study.comparing import ArmRow, ExportRow, NoiseLine, ReferenceRow, StudyData

WIDE, NARROW = 7.2, 4.4
"""Inches of a page's and of a telephone's plots: what is scaled down cannot be read."""
_MARKERS = ("o", "s", "^", "D", "v", "P")
"""Colours alone do not tell arms apart for everybody."""


def plot_arms(data: StudyData, task: str, width: float) -> Chart:
    """Every arm's seeds as dots, their mean with its interval; teacher and word counts as lines."""
    rows = _rows_of(data, task)
    metric = METRICS[rows[0].metric]
    is_wide = width >= WIDE
    with open_figure(width, 1.0 + (0.42 if is_wide else 0.56) * len(rows)) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            colour = arm_colour(data.colour(row.arm))
            ends = [metric.scale * end for end in row.interval]
            axes.plot(ends, [place, place], color=colour, linewidth=5, alpha=0.3, solid_capstyle="round")
            axes.plot(
                [metric.scale * value for value in row.values.values()],
                [place] * len(row.values),
                color=colour,
                marker="|",
                markersize=11,
                linestyle="none",
            )
            axes.plot([metric.scale * row.mean], [place], color=colour, marker="o", markersize=7)
            if not is_wide:
                axes.annotate(
                    row.arm,
                    (0.0, place),
                    xycoords=("axes fraction", "data"),
                    xytext=(2, 8),
                    textcoords="offset points",
                )
        for one in _references_of(data, task):
            style = "-" if one.name == "teacher" else ":"
            axes.axvline(metric.scale * one.value, color=arm_colour(one.name), linewidth=1.4, linestyle=style)
            axes.annotate(
                formats.arm_name(one.name),
                (metric.scale * one.value, -0.5),
                xytext=(3, -1),
                textcoords="offset points",
                va="top",
                fontsize=8,
            )
        axes.set_yticks(range(len(rows)), [row.arm if is_wide else "" for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.9)
        axes.margins(x=0.08)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{metric.label}: mean, seeds, 95 % interval")
        better = "right" if metric.is_higher_better else "left"
        return finish_chart(f"{task}: {metric.name} of each arm; further {better} is better", figure)


def plot_along(data: StudyData, task: str, width: float) -> Chart | None:
    """The score along the study's key; None where there is no such key."""
    if data.x is None:
        return None
    rows = sorted(_rows_of(data, task), key=lambda row: float(str(row.keys[data.x or ""])))
    places = [float(str(row.keys[data.x])) for row in rows]
    return _draw_along(data, task, rows, places, data.x, width)


def plot_against_latency(data: StudyData, task: str, width: float) -> Chart | None:
    """The score against the measured latency, teacher and word counts drawn in; None where nothing was measured."""
    rows = [row for row in _rows_of(data, task) if row.median_ms is not None]
    if len(rows) < 2:
        return None
    places = [row.median_ms or 0.0 for row in rows]
    return _draw_along(data, task, rows, places, "latency (ms), one at a time", width)


def _draw_along(
    data: StudyData, task: str, rows: Sequence[ArmRow], places: list[float], label: str, width: float
) -> Chart:
    metric = METRICS[rows[0].metric]
    with open_figure(width, 3.0) as figure:
        axes = figure.subplots()
        if data.x is not None and label == data.x:
            axes.plot(places, [metric.scale * row.mean for row in rows], color=INK, linewidth=1)
        for number, (place, row) in enumerate(zip(places, rows, strict=True)):
            colour, ends = arm_colour(data.colour(row.arm)), [metric.scale * end for end in row.interval]
            axes.plot([place, place], ends, color=colour, linewidth=4, alpha=0.3, solid_capstyle="round")
            axes.plot([place], [metric.scale * row.mean], color=colour, marker="o", markersize=7)
            axes.annotate(
                row.arm,
                (place, metric.scale * row.mean),
                # Arms of one shape are side by side: one name above the other.
                xytext=(6, 4 + 11 * (number % 3)),
                textcoords="offset points",
                fontsize=8,
            )
        for export in data.exports if label != data.x else []:
            if export.task == task:
                _draw_export(axes, export, metric.scale * export.value, arm_colour(data.colour(export.arm)))
        for one in _references_of(data, task):
            if label != data.x and one.median_ms is not None:
                axes.plot([one.median_ms], [metric.scale * one.value], color=arm_colour(one.name), marker="D")
                axes.annotate(
                    formats.arm_name(one.name),
                    (one.median_ms, metric.scale * one.value),
                    xytext=(6, 4),
                    textcoords="offset points",
                    fontsize=8,
                )
            else:
                axes.axhline(metric.scale * one.value, color=arm_colour(one.name), linewidth=1.2, linestyle=":")
                axes.annotate(
                    formats.arm_name(one.name),
                    (0.0, metric.scale * one.value),
                    xycoords=("axes fraction", "data"),
                    xytext=(3, 3),
                    textcoords="offset points",
                    fontsize=8,
                )
        if label != data.x and data.exports:
            make_logarithmic(axes, "x")
        axes.margins(x=0.12, y=0.12)
        axes.set_xlabel(label)
        axes.set_ylabel(metric.label)
        return finish_chart(f"{task}: {metric.directed_name} against {label}", figure)


def _draw_export(axes: Any, export: ExportRow, value: float, colour: str) -> None:
    """An open square: the models in PyTorch are dots."""
    axes.plot([export.median_ms], [value], color=colour, marker="s", markersize=7, markerfacecolor="none")
    axes.annotate(
        export.name, (export.median_ms, value), xytext=(6, -12), textcoords="offset points", fontsize=7, color=colour
    )


def plot_noise(data: StudyData, task: str) -> list[Chart]:
    """Figure 2 of the paper: each arm's quality, and its loss, with noise on its parameters; mean and range."""
    lines = [line for line in data.noise if line.task == task]
    return [
        _draw_noise(data, task, metric, [line for line in lines if line.metric == metric])
        for metric in dict.fromkeys(line.metric for line in lines)
    ]


def _draw_noise(data: StudyData, task: str, name: str, lines: list[NoiseLine]) -> Chart:
    loss = "mse" if _rows_of(data, task)[0].metric in ("pearson", "spearman") else "nll"
    metric = METRICS.get(name, METRICS[loss])
    with open_figure(5.2, 3.0) as figure:
        axes: Any = figure.subplots()
        for number, arm in enumerate(dict.fromkeys(line.arm for line in lines)):
            own = [line for line in lines if line.arm == arm]
            places = [line.deviation for line in own]
            lowest, highest = (
                np.array([metric.scale * value for value in values])
                for values in ([line.lowest for line in own], [line.highest for line in own])
            )
            axes.fill_between(places, lowest, highest, color=arm_colour(data.colour(arm)), alpha=0.18, linewidth=0)
            axes.plot(
                places,
                [metric.scale * line.mean for line in own],
                color=arm_colour(data.colour(arm)),
                marker=_MARKERS[number % len(_MARKERS)],
                markersize=4.5,
                label=arm,
            )
        if "perplexity" in name:
            make_logarithmic(axes, "y")
        axes.set_xlabel("standard deviation of the noise / root mean square of the tensor")
        axes.set_ylabel(metric.label)
        axes.legend(frameon=False, fontsize=8)
        return finish_chart(f"{task}: {metric.name} with noise on the parameters", figure)


def _rows_of(data: StudyData, task: str) -> list[ArmRow]:
    return [row for row in data.rows if row.task == task]


def _references_of(data: StudyData, task: str) -> list[ReferenceRow]:
    return [one for one in data.references if one.task == task]
