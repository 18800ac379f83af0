"""A study as files: one self-contained page, the same as Markdown, and the numbers as JSON."""

from dataclasses import asdict
from pathlib import Path

from markupsafe import Markup

from lightpaff.files import write_json_whole, write_whole
from lightpaff.report.canvas import Chart
from lightpaff.report.markdown import escape, render_table
from lightpaff.report.page import PAGE
from lightpaff.report.tables import Table
from lightpaff.report.templates import render
from lightpaff.study.comparing import StudyData
from lightpaff.study.plots import NARROW, WIDE, plot_against_latency, plot_along, plot_arms, plot_noise
from lightpaff.study.tables import answer, cost_table, curvature_table, exports_table, score_table


def write_study(data: StudyData, directory: Path) -> Path:
    """Write index.html, study.md and study.json into `directory`, each whole; the page's path."""
    sentences = [asdict(sentence) for sentence in answer(data)]
    # All of them before any is written.
    markdown, page = render_markdown(data), render_page(data)
    write_json_whole(directory / "study.json", {"answer": sentences, **asdict(data)})
    write_whole(directory / "study.md", markdown)
    write_whole(directory / PAGE, page)
    return directory / PAGE


def render_page(data: StudyData) -> str:
    """The page: no scripts, nothing from the network, all text escaped."""
    content = {
        "data": data,
        "verdict": answer(data),
        "tasks": [(task, _charts(data, task), _tables(data, task)) for task in data.examples],
        "noise": {task: [_embedded(chart) for chart in plot_noise(data, task)] for task in data.examples},
        "curvature": curvature_table(data),
    }
    return render("study.html.jinja", **content)


def render_markdown(data: StudyData) -> str:
    """The sentences and tables."""
    lines = [f"# {escape(data.title)}", "", *(f"- {escape(sentence.text)}" for sentence in answer(data)), ""]
    for task in data.examples:
        lines += [f"## {task}", "", *(line for table in _tables(data, task) for line in (render_table(table), ""))]
    if data.curvature:
        lines += ["## Curvature", "", render_table(curvature_table(data)), ""]
    return "\n".join([*lines, f"    {data.command}", ""])


def _tables(data: StudyData, task: str) -> list[Table]:
    exports = exports_table(data, task)
    return [score_table(data, task), cost_table(data, task)] + ([] if exports is None else [exports])


def _charts(data: StudyData, task: str) -> list[tuple[str, Markup, Markup]]:
    """Titles, and plots for a page and for a telephone."""
    charts = []
    for plot in (plot_arms, plot_along, plot_against_latency):
        wide, narrow = plot(data, task, WIDE), plot(data, task, NARROW)
        if wide is not None and narrow is not None:
            charts.append((*_embedded(wide), _embedded(narrow)[1]))
    return charts


def _embedded(chart: Chart) -> tuple[str, Markup]:
    # matplotlib has escaped the text within.
    return chart.title, Markup(chart.svg)
