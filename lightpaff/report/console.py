"""The end of a run in the terminal: the table, the verdict and where the page is."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from lightpaff.report import formats
from lightpaff.report.metrics import METRICS
from lightpaff.report.online_tables import SHORT_ONLINE_COLUMNS, online_table
from lightpaff.report.rows import Arm, ReportData
from lightpaff.report.tables import SHARE_COLUMNS, Table, keep_columns, main_table
from lightpaff.report.verdict import Kind, write_verdict

_WIDE_ENOUGH = 115
_COLUMNS_WHERE_NARROW = [*SHARE_COLUMNS.values(), "size", "latency", "faster"]
_ARM_STYLES: dict[Arm, str] = {"teacher": "blue", "student": "bold green", "control": "yellow", "tfidf": "dim"}
_MARKS: dict[Kind, tuple[str, str]] = {
    "good": ("+", "green"),
    "bad": ("-", "red"),
    "neutral": ("*", "blue"),
    "caution": ("!", "yellow"),
}


def print_summary(data: ReportData, console: Console, page: Path) -> None:
    """Print each task's main table and how its exports answer online, the verdict, and the path of the page."""
    console.print()
    console.print(Text(data.title, style="bold"))
    for task in data.tasks:
        table = main_table(data, task)
        if not table.lines:
            continue
        if console.width < _WIDE_ENOUGH:
            table = keep_columns(table, [METRICS[task.metric].name, *_COLUMNS_WHERE_NARROW])
        console.print(terminal_table(table, f"{task.name}, {task.split} set"))
        online = replace(keep_columns(online_table(data, task), SHORT_ONLINE_COLUMNS), caption="")
        if online.lines:
            console.print(terminal_table(online, f"{task.name}, online"))
    for sentence in write_verdict(data):
        mark, style = _MARKS[sentence.kind]
        # Text, not markup: a task's name or an interval in brackets is not a style.
        console.print(Text.assemble((f"{mark} ", style), sentence.text))
    seconds = sum(step.seconds for step in data.steps if not step.reused)
    console.print(Text(f"{formats.duration(seconds)} of work; the report is at", style="dim"))
    console.print(Text(str(page)), soft_wrap=True)


def terminal_table(table: Table, title: str | None = None, best: Collection[tuple[str, str]] = ()) -> RichTable:
    """A table for a terminal, its lines in the colours of their arms.

    Args:
        table: is not changed.
        title: above it.
        best: the cells to be green, each by the first text of its line and by its column.
    """
    shown = RichTable(
        title=Text(title) if title else None,
        title_justify="left",
        caption=Text(table.caption),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for place, name in enumerate(table.columns):
        shown.add_column(Text(name), justify="right" if place else "left", no_wrap=place > 0)
    for line in table.lines:
        styles = ["bold green" if (line.cells[0].text, column) in best else "" for column in table.columns]
        cells = zip(line.cells, styles, strict=True)
        shown.add_row(
            *(Text.assemble((cell.text, own), (f"\n{cell.note}" if cell.note else "", "dim")) for cell, own in cells),
            style=_ARM_STYLES.get(line.arm or "", ""),
        )
    return shown
