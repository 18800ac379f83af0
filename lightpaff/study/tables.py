"""A study's tables and the sentences above them."""

from collections.abc import Iterator

from lightpaff.report import formats
from lightpaff.report.metrics import METRICS
from lightpaff.report.tables import UNKNOWN, Cell, Line, Table, drop_unknown_columns
from lightpaff.report.verdict import Kind, Sentence, tell_constant
from lightpaff.study.comparing import ArmRow, ComparedDifference, StudyData
from lightpaff.study.definition import own_budgets

_SURE = 0.05


def answer(data: StudyData) -> list[Sentence]:
    """For every task: whether the reference arm is ahead of the baseline, then its share of the teacher, size and
    speed; then what limits that."""
    return [_answer_for(data, task) for task in data.examples] + _limits(data)


def _answer_for(data: StudyData, task: str) -> Sentence:
    row, baseline = (
        next(row for row in data.rows if (row.arm, row.task) == (arm, task)) for arm in (data.headline, data.baseline)
    )
    found, metric = row.minus_baseline, METRICS[row.metric]
    assert found is not None
    place = f"{task}: " if len(data.examples) > 1 else ""
    if constant := sorted({*row.constant, *baseline.constant}):
        scores = f"{metric.name} {metric.write(row.mean)} against {metric.write(baseline.mean)}"
        return Sentence("bad", f"{place}Not to be told: {tell_constant(constant, data.answers[task], scores)}.")
    lead, kind = _lead(row, found)
    told = f"{_tell_difference(row, found)}, {_budget(row, baseline, data.match)}"
    parts = [f"{place}{lead}: '{row.arm}' against '{data.baseline}' is {told}", *_share(row), *_size_and_speed(row)]
    return Sentence(kind, "; ".join([*parts, *_exports(data, task)]) + ".")


def _lead(row: ArmRow, found: ComparedDifference) -> tuple[str, Kind]:
    low, high = METRICS[row.metric].as_gain(found.low, found.high)
    if found.p >= _SURE or low <= 0 <= high:
        return "Not measurably", "neutral"
    lead: tuple[str, Kind] = ("Yes", "good") if low > 0 else ("No", "bad")
    return lead if len(row.values) > 1 else (f"With this one seed, {lead[0].lower()}", "neutral")


def _tell_difference(row: ArmRow, found: ComparedDifference) -> str:
    told = METRICS[row.metric].tell_difference(found.value, found.low, found.high)
    is_one_sided = not found.low <= 0 <= found.high
    doubt = f" (p {_p_value(found.p)}, corrected for the number of arms)"
    return told + doubt if is_one_sided and found.p >= _SURE else told


def _share(row: ArmRow) -> Iterator[str]:
    metric = METRICS[row.metric]
    if row.share is not None and metric.is_higher_better:
        yield f"it has {metric.write_share(row.share)} of the teacher's {metric.name}"
    elif row.share is not None:
        yield f"its {metric.name} is {formats.hundredths(row.share)} times its teacher's"


def _size_and_speed(row: ArmRow) -> Iterator[str]:
    smaller = row.teacher_parameters / row.parameters
    size = f"{formats.times(smaller)} fewer" if smaller > 1 else f"{formats.times(1 / smaller)} as many"
    yield f"with {size} parameters"
    if row.median_ms and row.teacher_median_ms:
        yield f"and is {formats.times(row.teacher_median_ms / row.median_ms)} as fast in PyTorch"


def _exports(data: StudyData, task: str) -> Iterator[str]:
    for export in data.exports:
        if (export.arm, export.task) == (data.headline, task) and export.verdict != "refused":
            doubt = " (undecided: too few rows to check it)" if export.verdict == "undecided" else ""
            yield f"as {export.name}{doubt} {formats.times(export.faster)} as fast as its teacher in PyTorch"


def _budget(row: ArmRow, baseline: ArmRow, match: str) -> str:
    if own_budgets(row.keys) or own_budgets(baseline.keys):
        return "each with the budget that the study gives it"
    told = f"at equal {'floating point operations' if match == 'flops' else match}"
    shared = [stage for stage in row.steps if stage in baseline.steps]
    is_whole = len(shared) == len(row.steps) == len(baseline.steps)
    return told if is_whole else f"{told} in {formats.joined(shared)} alone: one of them has another stage too"


def _limits(data: StudyData) -> list[Sentence]:
    seeds = len(data.rows[0].values)
    prefixes = {task: f"{task}: " if len(data.examples) > 1 else "" for task in data.examples}
    found = [
        Sentence("bad", f"{prefixes[task]}{warning}.")
        for task, warnings in data.warnings.items()
        for warning in warnings
    ]
    if on_validation := sorted({row.task for row in data.rows if row.split == "validation"}):
        found.append(
            Sentence(
                "caution",
                f"{formats.joined(on_validation)}: reported on the validation set, which also chose the checkpoints: "
                "expect less on new text.",
            )
        )
    found += [
        Sentence("bad", f"{counts.task}: a linear model over word counts (TF-IDF) is as good as '{row.arm}' or better.")
        for counts in data.references
        for row in data.rows
        if counts.name == "tfidf" and (row.arm, row.task) == (data.headline, counts.task) and counts.value >= row.mean
    ]
    several = "Arms differ in their teachers too: each is compared with its own; the plots have the baseline's."
    found += [Sentence("caution", several)] if any(row.has_another_teacher for row in data.rows) else []
    found += [Sentence("caution", "One teacher: how another one would have done is not in the intervals.")]
    if seeds < 3:
        told = "One seed" if seeds == 1 else "Two seeds"
        found.append(Sentence("caution", f"{told}: run three at least before anything is decided."))
    return found


def score_table(data: StudyData, task: str) -> Table:
    """The arms of a task against the baseline and the teacher; then the teacher and the word counts."""
    rows = [row for row in data.rows if row.task == task]
    metric = METRICS[rows[0].metric]
    columns = [
        "",
        metric.directed_name,
        f"minus '{data.baseline}'",
        "p",
        "minus teacher",
        "of the teacher's" if metric.is_higher_better else "above the teacher's",
        "gap closed",
    ]
    lines = [_scores(row, data.colour(row.arm)) for row in rows]
    for one in data.references:
        if one.task == task:
            score = Cell(metric.write(one.value), metric.write_interval(*one.interval))
            unknown = [Cell(UNKNOWN)] * (len(columns) - 2)
            lines.append(Line([Cell(formats.arm_name(one.name)), score, *unknown], one.name))
    seeds = len(rows[0].values)
    means = "Of one seed" if seeds == 1 else f"Means over {seeds} seeds, with their standard deviation"
    over = f"{data.examples[task]} of the {rows[0].split} set"
    caption = (
        f"{means}; brackets are 95 % intervals over {over}{'' if seeds == 1 else ' and the seeds'}. p: how often "
        "chance alone would make so large a difference, corrected for the number of arms (Holm), which the brackets "
        "are not. "
        "Gap closed: the share of the way from the baseline to the teacher, where the teacher is shown to be better."
    )
    return drop_unknown_columns(Table(caption, columns, lines))


def _scores(row: ArmRow, colour: str) -> Line:
    metric = METRICS[row.metric]
    return Line(
        [
            Cell(row.arm),
            Cell(metric.write(row.mean, row.spread), metric.write_interval(*row.interval)),
            _difference(row, row.minus_baseline),
            Cell(UNKNOWN if row.minus_baseline is None else _p_value(row.minus_baseline.p)),
            _difference(row, row.minus_teacher),
            Cell(UNKNOWN if row.share is None else metric.write_share(row.share)),
            Cell(UNKNOWN if row.closed is None else formats.percent(row.closed)),
        ],
        colour,
    )


def cost_table(data: StudyData, task: str) -> Table:
    """What each arm of a task is, and took; then the teacher's size and speed."""
    columns = ["", "parameters", "latency", "steps", "compute, student", "compute, teacher", "time"]
    lines = [_costs(row, data.colour(row.arm)) for row in data.rows if row.task == task]
    for one in data.references:
        if one.task == task and one.parameters:
            cells = [formats.arm_name(one.name), formats.count(one.parameters), _latency(one.median_ms)]
            unknown = [UNKNOWN] * (len(columns) - len(cells))
            lines.append(Line([Cell(text) for text in (*cells, *unknown)], one.name))
    return drop_unknown_columns(
        Table("Compute and time are of one seed, with what asking the teacher took.", columns, lines)
    )


def _costs(row: ArmRow, colour: str) -> Line:
    cells = [
        row.arm,
        formats.count(row.parameters),
        _latency(row.median_ms),
        " + ".join(f"{steps:,}" for steps in row.steps.values()),
        formats.flops(row.flops),
        formats.flops(row.teacher_flops) if row.teacher_flops else UNKNOWN,
        formats.duration(row.seconds),
    ]
    return Line([Cell(text) for text in cells], colour)


def _latency(milliseconds: float | None) -> str:
    return UNKNOWN if milliseconds is None else formats.milliseconds(milliseconds)


def _difference(row: ArmRow, found: ComparedDifference | None) -> Cell:
    metric = METRICS[row.metric]
    if found is None:
        return Cell(UNKNOWN)
    return Cell(metric.write_difference(found.value), metric.write_signed_interval(found.low, found.high))


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < _SURE else f"{p:.2f}"


def exports_table(data: StudyData, task: str) -> Table | None:
    """Each arm's first student in the runtimes that it would answer in; None where nothing was exported."""
    rows = [row for row in data.exports if row.task == task]
    if not rows:
        return None
    metric = METRICS[rows[0].metric]
    lines = [
        Line(
            [
                Cell(row.arm),
                Cell(row.name),
                Cell(metric.write(row.value)),
                Cell(formats.milliseconds(row.median_ms)),
                Cell(formats.times(row.faster)),
                Cell(formats.megabytes(row.bytes)),
                Cell(row.verdict),
            ],
            data.colour(row.arm),
        )
        for row in rows
    ]
    columns = ["", "export", metric.directed_name, "latency", "against the teacher", "size", "check"]
    caption = (
        "The first seed's students, each in its runtime; latency is of one row at a time, in turn with the teacher in "
        "PyTorch. Check: whether an export loses more than its tolerance of its student's score."
    )
    return Table(caption, columns, lines)


def curvature_table(data: StudyData) -> Table:
    """The curvature of each arm's loss, a seed each."""
    lines = [
        Line(
            [Cell(one.arm), Cell(one.task), Cell(", ".join(f"{value:.3g}" for value in one.values))],
            data.colour(one.arm),
        )
        for one in data.curvature
    ]
    caption = (
        "The trace of the loss's Hessian, each parameter in units of its tensor's root mean square, by the seed: half "
        "of it times the squared deviation is how much the loss rises where the noise is small."
    )
    return Table(caption, ["", "task", "curvature"], lines)
