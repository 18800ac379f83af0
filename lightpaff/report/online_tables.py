"""The tables of exports, and of how the models answer online."""

from lightpaff.report import formats
from lightpaff.report.measured import count_seeds
from lightpaff.report.metrics import METRICS
from lightpaff.report.online import OnlineModel, exports_of, online_baseline, online_models, tell_loss
from lightpaff.report.rows import ExportLine, ReportData, TaskFacts
from lightpaff.report.tables import UNKNOWN, Cell, Line, Table, drop_unknown_columns, keep_columns

SHORT_ONLINE_COLUMNS = ["size", "median", "times as fast"]
"""What a terminal shows of the online table."""
WRITTEN = "tokens written"


def exports_table(data: ReportData, task: TaskFacts) -> Table:
    """Every export beside the student that it was made from, on each split, and whether it was delivered."""
    lines = [
        Line(
            [
                Cell(found.name, f"{found.split} set, {found.examples:,} {task.counted}"),
                Cell(METRICS[found.metric].write(found.student)),
                Cell(METRICS[found.metric].write(found.export)),
                Cell(tell_loss(found)),
                Cell(UNKNOWN if found.agreement is None else formats.percent(found.agreement)),
                Cell(UNKNOWN if found.largest_difference is None else f"{found.largest_difference:.2g}"),
                Cell(_tell_delivery(found)),
            ],
            "student",
        )
        for found in exports_of(data, task)
    ]
    columns = ["export", "student's score", "its score", "loss", f"same {task.answers}"]
    return drop_unknown_columns(
        Table(_exports_caption(data, task), [*columns, "largest difference", "delivery"], lines)
    )


def online_table(data: ReportData, task: TaskFacts) -> Table:
    """How every model answers online: size, times of one request, speed, memory, and what a million requests cost."""
    models = online_models(data, task)
    batch_sizes = sorted({line.batch_size for model in models for line in model.lines})
    has_several_threads = len({model.first.threads for model in models}) > 1
    columns = ["model", "size", "median", "p95", "p99", "times as fast"]
    columns += [f"rows/s, batch {size}" for size in batch_sizes]
    lines = [_online_line(model, batch_sizes, has_several_threads) for model in models]
    columns += ["memory", "loading", "cost of 1M", WRITTEN]
    table = Table(_online_caption(task, models), columns, lines)
    return table if _writes(models) else keep_columns(table, columns[:-1])


def _writes(models: list[OnlineModel]) -> bool:
    return any(model.first.written for model in models)


def _tell_delivery(found: ExportLine) -> str:
    if found.delivered:
        return "undecided: too few rows" if found.judgement.startswith("undecided") else "delivered"
    # The tolerance is about the validation set: another split may well have lost less.
    return f"refused: more than {found.tolerance:g} %" if found.split == "validation" else "refused"


def _exports_caption(data: ReportData, task: TaskFacts) -> str:
    metric = METRICS[task.metric]
    parts = [
        f"{metric.name[0].upper()}{metric.name[1:]} of the delivered student in PyTorch"
        + (", one of several seeds," if count_seeds(data, "student", task) > 1 else "")
        + " and of the exports made from it",
        "loss: what the export loses, in per cent of the student's score, with a 95 % interval; below 0 it gains",
        "an export is not delivered where a loss above its tolerance is shown on the validation set, and undecided "
        "where the rows are too few to tell",
    ]
    if task.difference:
        parts.append(f"largest difference: {task.difference}")
    return f"{'; '.join(parts)}."


def _online_line(model: OnlineModel, batch_sizes: list[int], has_several_threads: bool) -> Line:
    first, throughput = model.first, {line.batch_size: line.throughput for line in model.lines}
    notes = [
        first.runtime,
        formats.threads(first.threads) if has_several_threads else "",
        "refused" if model.is_refused else "",
    ]
    speed = Cell(formats.times(first.ratio), formats.ratio_interval(first.low, first.high))
    cells = [
        Cell(model.shown_name, ", ".join(filter(None, notes))),
        Cell(formats.megabytes(first.bytes), "" if model.is_baseline else f"{formats.times(first.size_ratio)} smaller"),
        Cell(formats.milliseconds(first.median_ms)),
        Cell(formats.milliseconds(first.p95_ms)),
        Cell(formats.milliseconds(first.p99_ms)),
        Cell(UNKNOWN) if model.is_baseline else speed,
        *(Cell(formats.per_second(throughput[size]) if size in throughput else UNKNOWN) for size in batch_sizes),
        Cell(formats.megabytes(max(line.peak_bytes for line in model.lines))),
        Cell(formats.duration(first.load_seconds)),
        Cell(formats.price(first.cost_per_million)),
        Cell(formats.tokens(first.written)),
    ]
    return Line(cells, model.arm)


def _online_caption(task: TaskFacts, models: list[OnlineModel]) -> str:
    if not models:
        return ""
    first, baseline = models[0].first, online_baseline(models)
    threads = {model.first.threads for model in models}
    on_threads = f" on {formats.threads(first.threads)}" if len(threads) == 1 else ""
    against = f"the {baseline.name} in {baseline.first.runtime}" if baseline else first.baseline
    parts = [
        f"Times of batch size {first.batch_size} ({task.timed}){on_threads}: median, 95th and 99th percentile",
        f"inputs of the task's own, {first.mean_length:.0f} tokens on average",
        f"smaller and times as fast are against {against}, with a 95 % interval",
        "memory is the most that the process held, at any batch size",
        f"a million requests, one at a time, cost this at {first.price_per_core_hour:g} a core-hour",
        "tokenising is not in the times",
        *(
            [f"{WRITTEN}: of an answer, on average; a model that writes fewer does less work"]
            if _writes(models)
            else []
        ),
    ]
    return f"{'; '.join(parts)}."
