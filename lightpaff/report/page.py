"""The report as files: one self-contained page, the same as Markdown, and the numbers as JSON."""

import json
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup

from lightpaff.errors import UserError
from lightpaff.files import write_json_whole, write_whole
from lightpaff.report import formats
from lightpaff.report.canvas import Chart
from lightpaff.report.cards import headline_cards
from lightpaff.report.markdown import card_facts, render_markdown
from lightpaff.report.measured import count_seeds, in_order
from lightpaff.report.online_tables import exports_table, online_table
from lightpaff.report.plots import plot_comparisons, plot_learning_curves
from lightpaff.report.rows import (
    Disagreement,
    ReportData,
    Sample,
    report_from_json,
    report_to_json,
)
from lightpaff.report.score_plots import plot_quality_against_latency, plot_quality_online
from lightpaff.report.tables import (
    Table,
    agreement_table,
    comparison_table,
    compute_table,
    latency_table,
    main_table,
)
from lightpaff.report.templates import render
from lightpaff.report.verdict import name_training_rows, write_verdict

PAGE = "index.html"
_MOST_TEXT = 360
_MOST_SAMPLE_TEXT = 1500

WhoIsRight = Literal["student is right", "teacher is right", "both are wrong"]


def write_report(data: ReportData, directory: Path) -> None:
    """Write index.html, report.md, report.json (a list of rows) and report_data.json (everything) into `directory`.

    Each file is written whole.

    Raises:
        UserError: when a number is not finite or a field is of another type than declared; then nothing is written.
    """
    everything = report_to_json(data)
    page, markdown = render_page(data), render_markdown(data)
    write_json_whole(directory / "report.json", everything["rows"])
    write_json_whole(directory / "report_data.json", everything)
    write_whole(directory / "report.md", markdown)
    write_whole(directory / PAGE, page)


def write_report_again(run: Path) -> Path:
    """Write the report of a finished run anew, from its report_data.json; the page's path.

    Raises:
        UserError: there is none, or it is none.
    """
    path = run / "report" / "report_data.json"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: no such file; give a finished run's directory, or --all for a folder of runs"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the recipe again") from error
    write_report(report_from_json(content, str(path)), path.parent)
    return path.parent / PAGE


def render_page(data: ReportData) -> str:
    """The page: no scripts, nothing from the network, all text escaped. The same data gives the same bytes."""
    return render("page.html.jinja", **_page_content(data))


def who_is_right(example: Disagreement) -> WhoIsRight:
    """Whose answer is the gold label."""
    if example.student_label == example.label:
        return "student is right"
    return "teacher is right" if example.teacher_label == example.label else "both are wrong"


def _page_content(data: ReportData) -> dict[str, Any]:
    return {
        "data": data,
        "arms": in_order(curve.arm for curve in data.curves),
        "student_seeds": count_seeds(data, "student"),
        "verdict": write_verdict(data),
        "cards": headline_cards(data),
        "main_tables": {task.name: main_table(data, task) for task in data.tasks},
        "latency_tables": _with_lines({task.name: latency_table(data, task) for task in data.tasks}),
        "online_tables": _with_lines({task.name: online_table(data, task) for task in data.tasks}),
        "online_charts": {name: _embed([chart]) for name, chart in plot_quality_online(data).items()},
        "export_tables": _with_lines({task.name: exports_table(data, task) for task in data.tasks}),
        "comparisons": comparison_table(data),
        "comparison_charts": _embed(plot_comparisons(data)),
        "curves": _embed(plot_learning_curves(data)),
        "latency_charts": {name: _embed([chart]) for name, chart in plot_quality_against_latency(data).items()},
        "agreement": agreement_table(data),
        "compute": compute_table(data),
        "examples": [
            (example, who_is_right(example), _shorten(example.text), _shorten(example.text_pair or ""))
            for example in data.disagreements
        ],
        "training_rows": name_training_rows(data),
        "samples": [(sample.task, _sample_texts(sample)) for sample in data.samples],
        "data_cards": [(card.name, card_facts(card)) for card in data.data_cards],
        "longest_step": max((step.seconds for step in data.steps), default=0.0),
        "total_seconds": sum(step.seconds for step in data.steps if not step.reused),
    }


def _with_lines(tables: dict[str, Table]) -> dict[str, Table]:
    return {name: table for name, table in tables.items() if table.lines}


def _embed(charts: list[Chart]) -> list[tuple[str, Markup]]:
    # matplotlib has escaped the text within; everything else on the page is escaped by the template.
    return [(chart.title, Markup(chart.svg)) for chart in charts]


def _sample_texts(sample: Sample) -> list[list[tuple[str, str, str]]]:
    """What was given, then what was written: each text's class on the page, its name and itself; lines stay lines."""
    several = len(sample.references) > 1
    given = [("Source", sample.source)]
    given += [(f"Reference {n}" if several else "Reference", text) for n, text in enumerate(sample.references, 1)]
    answers = {"teacher": sample.teacher, "student": sample.student, "control": sample.control}
    return [
        [("given", name, _cut(text.strip(), _MOST_SAMPLE_TEXT)) for name, text in given],
        [
            (arm, formats.arm_name(arm), _cut(text.strip(), _MOST_SAMPLE_TEXT))
            for arm, text in answers.items()
            if text is not None
        ],
    ]


def _shorten(text: str) -> str:
    return _cut(" ".join(text.split()), _MOST_TEXT)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"
