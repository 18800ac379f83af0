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
from lightpaff.report.metrics import METRICS, Unit
from lightpaff.report.rows import Arm, ComputeLine, ReportData, TaskFacts

UNKNOWN = "\N{EN DASH}"
SHARE_COLUMNS = {True: "of teacher", False: "against teacher"}
"""The share of the teacher's score that is reached where higher is better, how much more it is where lower is."""

_UNITS: dict[Unit, str] = {"points": "in points", "plain": "in the metric's own unit, where lower is better"}
_SCORES: dict[Unit, str] = {
    "points": "scores are in points (0.925 is 92.5)",
    "plain": "perplexities: lower is better",
}


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
    headline = METRICS[task.metric]
    columns: dict[str, Callable[[MeasuredModel], Cell]] = {
        **{METRICS[metric].name: partial(_score, metric=metric) for metric in metrics},
        SHARE_COLUMNS[headline.is_higher_better]: lambda model: (
            Cell(UNKNOWN)
            if model == teacher and not headline.is_higher_better
            else _cell(share_of_teacher(teacher, model, task.metric), headline.write_share)
        ),
        "parameters": lambda model: _cell(model.parameters, formats.count),
        "size": lambda model: _cell(model.bytes, formats.megabytes),
        "smaller": lambda model: _cell(size_ratio(teacher, model), formats.times),
        "latency": lambda model: _cell(model.median_ms, formats.milliseconds),
        "faster": lambda model: _cell(speed_ratio(teacher, model), formats.times),
    }
    return _build_table(_main_caption(data, task, models), columns, models)


def keep_columns(table: Table, names: list[str]) -> Table:
    """The table with its first column and those of `names` that it has."""
    places = [place for place, name in enumerate(table.columns) if place == 0 or name in names]
    lines = [replace(line, cells=[line.cells[place] for place in places]) for line in table.lines]
    return replace(table, columns=[table.columns[place] for place in places], lines=lines)


def drop_unknown_columns(table: Table) -> Table:
    """The table without the columns in which nothing is known."""
    known = [
        name
        for place, name in enumerate(table.columns)
        if any(line.cells[place].text != UNKNOWN for line in table.lines)
    ]
    return keep_columns(table, known)


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
        f"Timed: {task.timed}. Median and 95th percentile; times as fast as the teacher, with a 95 % interval. "
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
                    _describe_place(data, found.task, METRICS[found.metric].name),
                ),
                Cell(METRICS[found.metric].write_difference(found.difference)),
                Cell(METRICS[found.metric].write_signed_interval(found.low, found.high)),
                Cell(reading(*METRICS[found.metric].as_gain(found.low, found.high))),
            ],
            found.first_arm,
        )
        for found in data.comparisons
    ]
    over = _list_counted(data)
    if (seeds := count_seeds(data, "student")) > 1:
        over += f" and over the {seeds} seeds of student and control, whose mean is compared"
    units = {_UNITS[METRICS[found.metric].unit]: None for found in data.comparisons}
    caption = (
        f"Paired on the same {_list_counted(data)}; 95 % bootstrap interval over the {over}; {' and '.join(units)}."
    )
    return Table(caption, ["compared", "difference", "95 % interval", "reading"], lines)


def reading(low: float, high: float) -> str:
    """What the interval of a difference allows to say, where more than 0 is better."""
    return "better" if low > 0 else "worse" if high < 0 else "no measurable difference"


def agreement_table(data: ReportData) -> Table:
    """How far the models say what the teacher says, and how far their confidence can be believed."""
    lines = [
        Line(
            [
                Cell(formats.arm_name(found.arm), _describe_place(data, found.task, found.split)),
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
    return drop_unknown_columns(Table(caption, columns, lines))


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
            Cell(formats.arm_name(arm), ", ".join(filter(None, [stage, task, several]))),
            Cell(formats.flops(own)),
            Cell(formats.flops(asking) if asking else UNKNOWN),
            Cell(formats.flops(own + asking)),
        ]
        lines.append(Line(cells, arm))
    return Table("", ["training", "own", "asking the teacher", "together"], lines)


def _list_counted(data: ReportData) -> str:
    return formats.joined(list(dict.fromkeys(task.counted for task in data.tasks)) or ["rows"])


def _describe_place(data: ReportData, task: str, more: str) -> str:
    return f"{task}, {more}" if len(data.tasks) > 1 else more


def _build_table(
    caption: str, columns: dict[str, Callable[[MeasuredModel], Cell]], models: list[MeasuredModel]
) -> Table:
    lines = [
        Line(
            [Cell(formats.arm_name(model.arm), model.runtime), *(make_cell(model) for make_cell in columns.values())],
            model.arm,
        )
        for model in models
    ]
    return drop_unknown_columns(Table(caption, ["model", *columns], lines))


def _main_caption(data: ReportData, task: TaskFacts, models: list[MeasuredModel]) -> str:
    rows = [row for model in models for row in model.rows.values()]
    units = list(dict.fromkeys(METRICS[metric].unit for metric in [task.metric, *(row.metric for row in rows)]))
    parts = [_SCORES[unit] for unit in units]
    if examples := max((row.examples for row in rows), default=0):
        parts.append(f"measured on {examples:,} {task.counted} of the {task.split} set")
    if any(row.interval for row in rows):
        and_seeds = ", and over the seeds where several were run" if any(row.spread is not None for row in rows) else ""
        parts.append(f"brackets are 95 % intervals over the {task.counted}{and_seeds}")
    if any(row.spread is not None for row in rows):
        seeds = count_seeds(data, "student", task)
        parts.append(f"\N{PLUS-MINUS SIGN} is the standard deviation over {seeds} seeds")
    teacher = reference_teacher(models)
    if teacher is not None and teacher.runtime:
        parts.append(f"smaller and faster are against the teacher in {teacher.runtime}")
    caption = "; ".join(parts)
    return f"{caption[0].upper()}{caption[1:]}."


def _score(model: MeasuredModel, metric: str) -> Cell:
    row = model.rows.get(metric)
    if row is None:
        return Cell(UNKNOWN)
    shown = METRICS[metric]
    return Cell(shown.write(row.value, row.spread), shown.write_interval(*row.interval) if row.interval else "")


def _speed_with_interval(data: ReportData, task: TaskFacts, model: MeasuredModel, models: list[MeasuredModel]) -> Cell:
    teacher = reference_teacher(models)
    if teacher is None or model == teacher:
        return Cell(UNKNOWN)
    for found in data.speed_ratios:
        ends = (found.task, found.first_arm, found.first_runtime, found.second_arm, found.second_runtime)
        if ends == (task.name, model.arm, model.runtime, teacher.arm, teacher.runtime):
            return Cell(formats.times(found.ratio), formats.ratio_interval(found.low, found.high))
    return _cell(speed_ratio(teacher, model), formats.times)


def _cell(value: float | None, write: Callable[..., str]) -> Cell:
    return Cell(UNKNOWN) if value is None else Cell(write(value))
