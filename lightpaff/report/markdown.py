"""The report as Markdown, for a repository or a pull request; readable as plain text too."""

from lightpaff.report import formats
from lightpaff.report.online_tables import exports_table, online_table
from lightpaff.report.rows import DataCard, ReportData, Sample, StepLine
from lightpaff.report.tables import (
    Cell,
    Table,
    agreement_table,
    comparison_table,
    compute_table,
    latency_table,
    main_table,
)
from lightpaff.report.verdict import write_verdict


def render_markdown(data: ReportData) -> str:
    """The whole report but its plots and disagreements."""
    parts = [
        f"# {escape(data.title)}",
        f"{escape(data.name)}, {formats.moment(data.created)}",
        "\n".join(f"- {escape(sentence.text)}" for sentence in write_verdict(data)),
        _facts(dict(data.summary)),
    ]
    for task in data.tasks:
        parts += [f"## {escape(task.name)}", render_table(main_table(data, task)), _facts(dict(task.notes))]
        if (exports := exports_table(data, task)).lines:
            parts += ["### Exports", render_table(exports)]
        if (online := online_table(data, task)).lines:
            parts += ["### Online", render_table(online)]
        if (latency := latency_table(data, task)).lines:
            parts += ["### Latency", render_table(latency)]
    if data.comparisons:
        parts += ["## Paired differences", render_table(comparison_table(data))]
    if data.samples:
        parts += ["## Samples", *(_sample(sample) for sample in data.samples)]
    if data.agreement:
        parts += ["## Agreement with the teacher, and calibration", render_table(agreement_table(data))]
    for card in data.data_cards:
        parts += [f"## Data: {escape(card.name)}", _facts(card_facts(card))]
    if data.steps:
        parts += ["## What was done", "\n".join(_step(step) for step in data.steps)]
    if data.compute:
        parts += ["### Compute", render_table(compute_table(data))]
    parts += ["## Environment", _facts(dict(data.environment))]
    parts += ["## Recipe", _fence(data.recipe_yaml, "yaml"), "## Make it again", _fence(data.command, "bash")]
    return "\n\n".join(part for part in parts if part) + "\n"


def card_facts(card: DataCard) -> dict[str, str | int | float]:
    """A card's facts, then what was dropped and why."""
    return {**card.facts, **{f"dropped: {reason}": number for reason, number in card.dropped.items()}}


def render_table(table: Table) -> str:
    """A pipe table whose columns line up in plain text too, under its caption."""
    header = list(table.columns)
    lines = [[_cell(cell) for cell in line.cells] for line in table.lines]
    widths = [max(3, *(len(line[place]) for line in [header, *lines])) for place in range(len(header))]
    is_right = [table.numeric and place > 0 for place in range(len(header))]
    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, is_right, strict=True)]

    def pipe(cells: list[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, is_right, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    text = "\n".join([pipe(header), pipe(rule), *(pipe(line) for line in lines)])
    return f"{text}\n\n{escape(table.caption)}" if table.caption else text


def _cell(cell: Cell) -> str:
    is_interval = cell.note.startswith("[")
    note = "" if not cell.note else f" {cell.note}" if is_interval else f" ({cell.note})"
    return escape(cell.text + note)


def _facts(facts: dict[str, str | int | float]) -> str:
    return "\n".join(f"- {escape(name)}: {escape(formats.fact(value))}" for name, value in facts.items())


def _sample(sample: Sample) -> str:
    told = {"source": [sample.source], "reference": sample.references}
    told |= {"teacher": [sample.teacher], "student": [sample.student]}
    told["control"] = [] if sample.control is None else [sample.control]
    texts = [f"  - {name}: {escape(text)}" for name, several in told.items() for text in several]
    return "\n".join([f"- {escape(sample.task)}", *texts])


def _step(step: StepLine) -> str:
    done = "kept from an earlier run" if step.reused else formats.duration(step.seconds)
    return f"- {escape(step.name)}: {done}" + (f" ({escape(step.detail)})" if step.detail else "")


def _fence(text: str, language: str) -> str:
    # A longer fence than any in the text.
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def escape(text: str) -> str:
    """Text of which nothing is markup."""
    for sign in ("\\", "|", "<", ">", "*", "`"):
        text = text.replace(sign, "\\" + sign)
    # A bracket alone is an interval; before a parenthesis it would be a link.
    return " ".join(text.replace("](", "]\\(").split())
