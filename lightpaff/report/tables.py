"""From rows to tables of text, which the page, the Markdown file and the terminal show alike."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from lightpaff.report import formats
from lightpaff.report.measured import (
    MeasuredModel,
    count_seeds,
    measured_models,
    reference_teacher,
    share_of_teacher,
    size_ratio,
    speed_ratio,
)
from lightpaff.report.rows import Arm, ComputeLine, ReportData, TaskFacts

UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """What a cell says, and what is said beside it in a lower voice."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a table; the arm gives it its colour."""

    cells: list[Cell]
    arm: Arm | None = None


@dataclass(frozen=True)
class Table:
    """A table of text. The first column names the line, the others are numbers (aligned right) if `numeric`."""

    caption: str
    columns: list[str]
    lines: list[Line]
    numeric: bool = True


def main_table(data: ReportData, task: TaskFacts) -> Table:
    """The models of a task: scores, size, speed, and each against the teacher. Columns without a value are left out."""
    models = measured_models(data, task)
    teacher = reference_teacher(models)
    metrics = list(dict.fromkeys([task.metric, *(metric for model in models for metric in model.rows)]))
    columns: dict[str, Callable[[MeasuredModel], Cell]] = {
        **{metric: partial(_score, metric=metric) for metric in metrics},
        "of teacher": lambda model: _cell(share_of_teacher(teacher, model, task.metric), formats.percent),
        "parameters": lambda model: _cell(model.parameters, formats.count),
        "size": lambda model: _cell(model.bytes, formats.megabytes),
        "smaller": lambda model: _cell(size_ratio(teacher, model), _times),
        "latency": lambda model: _cell(model.median_ms, formats.milliseconds),
        "faster": lambda model: _cell(speed_ratio(teacher, model), _times),
    }
    return _build_table(_main_caption(data, task, models), columns, models)


def keep_columns(table: Table, names: list[str]) -> Table:
    """The table with its first column and those of `names` that it has."""
    places = [place for place, name in enumerate(table.columns) if place == 0 or name in names]
    lines = [replace(line, cells=[line.cells[place] for place in places]) for line in table.lines]
    return replace(table, columns=[table.columns[place] for place in places], lines=lines)


def latency_table(data: ReportData, task: TaskFacts) -> Table:
    """The times of every model that was timed."""
    models = [model for model in measured_models(data, task) if model.median_ms is not None]
    columns: dict[str, Callable[[MeasuredModel], Cell]] = {
        "median": lambda model: _cell(model.median_ms, formats.milliseconds),
        "p95": lambda model: _cell(model.p95_ms, formats.milliseconds),
        "examples/s, batched": lambda model: _cell(model.throughput, formats.per_second),
        "times as fast": lambda model: _speed_with_interval(data, task, model, models),
    }
    caption = (
        "Median and 95th percentile of one example at a time; times as fast as the teacher, with a 95 % interval. "
        "The model alone: tokenising is not in these times."
    )
    return _build_table(caption, columns, models)


def comparison_table(data: ReportData) -> Table:
    """Every paired difference with its interval, and what it allows to say."""
    lines = [
        Line(
            [
                Cell(
                    formats.comparison_name(found.first_arm, found.second_arm),
                    _describe_place(data, found.task, found.metric),
                ),
                Cell(formats.signed_points(found.difference)),
                Cell(formats.signed_interval(found.low, found.high)),
                Cell(reading(found.low, found.high)),
            ],
            found.first_arm,
        )
        for found in data.comparisons
    ]
    over = "rows"
    if (seeds := count_seeds(data, "student")) > 1:
        over = f"rows and over the {seeds} seeds of student and control, whose mean is compared"
    caption = f"Paired on the same rows; 95 % bootstrap interval over the {over}; in points."
    return Table(caption, ["compared", "difference", "95 % interval", "reading"], lines)


def reading(low: float, high: float) -> str:
    """What the interval of a difference allows to say."""
    return "better" if low > 0 else "worse" if high < 0 else "no measurable difference"


def agreement_table(data: ReportData) -> Table:
    """How far the models say what the teacher says, and how far their confidence can be believed."""
    lines = [
        Line(
            [
                Cell(formats.ARM_NAMES[found.arm], _describe_place(data, found.task, found.split)),
                _cell(found.agreement, formats.percent),
                _cell(found.mean_kl, lambda value: f"{value:.3f}"),
                _cell(found.calibration_error, formats.percent),
            ],
            found.arm,
        )
        for found in data.agreement
    ]
    columns = ["model", "same answer as the teacher", "KL to the teacher (nats)", "calibration error"]
    seeds = count_seeds(data, "student")
    caption = f"Student and control: the mean over the {seeds} seeds." if seeds > 1 else ""
    return Table(caption, columns, lines)


def compute_table(data: ReportData) -> Table:
    """What the trainings took, the teacher's answers included; those that differ in the seed alone are added up."""
    groups: dict[tuple[Arm, str, str | None], list[ComputeLine]] = {}
    for line in data.compute:
        groups.setdefault((line.arm, line.stage, line.task), []).append(line)
    lines = []
    for (arm, stage, task), members in groups.items():
        own, asking = sum(line.training_flops for line in members), sum(line.teacher_flops for line in members)
        several = f"{len(members)} seeds" if len(members) > 1 else None
        cells = [
            Cell(formats.ARM_NAMES[arm], ", ".join(filter(None, [stage, task, several]))),
            Cell(formats.flops(own)),
            Cell(formats.flops(asking) if asking else UNKNOWN),
            Cell(formats.flops(own + asking)),
        ]
        lines.append(Line(cells, arm))
    return Table("", ["training", "own", "asking the teacher", "together"], lines)


def _describe_place(data: ReportData, task: str, more: str) -> str:
    return f"{task}, {more}" if len(data.tasks) > 1 else more


def _build_table(
    caption: str, columns: dict[str, Callable[[MeasuredModel], Cell]], models: list[MeasuredModel]
) -> Table:
    content = {name: [make_cell(model) for model in models] for name, make_cell in columns.items()}
    known = {name: cells for name, cells in content.items() if any(cell.text != UNKNOWN for cell in cells)}
    lines = [
        Line(
            [Cell(formats.ARM_NAMES[model.arm], model.runtime), *(cells[place] for cells in known.values())], model.arm
        )
        for place, model in enumerate(models)
    ]
    return Table(caption, ["model", *known], lines)


def _main_caption(data: ReportData, task: TaskFacts, models: list[MeasuredModel]) -> str:
    rows = [row for model in models for row in model.rows.values()]
    parts = ["Scores are in points (0.925 is 92.5)"]
    if examples := max((row.examples for row in rows), default=0):
        parts[0] += f", on {examples:,} rows of the {task.split} set"
    if any(row.interval for row in rows):
        and_seeds = ", and over the seeds where several were run" if any(row.spread is not None for row in rows) else ""
        parts.append(f"brackets are 95 % intervals over the rows{and_seeds}")
    if any(row.spread is not None for row in rows):
        seeds = count_seeds(data, "student", task)
        parts.append(f"\N{PLUS-MINUS SIGN} is the standard deviation over {seeds} seeds")
    teacher = reference_teacher(models)
    if teacher is not None and teacher.runtime:
        parts.append(f"smaller and faster are against the teacher in {teacher.runtime}")
    return "; ".join(parts) + "."


def _score(model: MeasuredModel, metric: str) -> Cell:
    row = model.rows.get(metric)
    if row is None:
        return Cell(UNKNOWN)
    spread = f" \N{PLUS-MINUS SIGN} {formats.points(row.spread)}" if row.spread is not None else ""
    return Cell(formats.points(row.value) + spread, formats.interval(*row.interval) if row.interval else "")


def _speed_with_interval(data: ReportData, task: TaskFacts, model: MeasuredModel, models: list[MeasuredModel]) -> Cell:
    teacher = reference_teacher(models)
    if teacher is None or model == teacher:
        return Cell(UNKNOWN)
    for found in data.speed_ratios:
        ends = (found.task, found.first_arm, found.first_runtime, found.second_arm, found.second_runtime)
        if ends == (task.name, model.arm, model.runtime, teacher.arm, teacher.runtime):
            note = f"[{formats.ratio(found.low)}, {formats.ratio(found.high)}]"
            return Cell(_times(found.ratio), note)
    return _cell(speed_ratio(teacher, model), _times)


def _times(value: float) -> str:
    return f"{formats.ratio(value)}\N{MULTIPLICATION SIGN}"


def _cell(value: float | None, write: Callable[..., str]) -> Cell:
    return Cell(UNKNOWN) if value is None else Cell(write(value))
