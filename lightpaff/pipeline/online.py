"""What a task's exports are worth, as the report's rows."""

from lightpaff.deployment.benchmark_table import describe_runtime
from lightpaff.deployment.measuring import Measurement
from lightpaff.pipeline.build import TaskSteps
from lightpaff.pipeline.online_steps import read_online
from lightpaff.report.rows import ExportLine, OnlineLine


def export_lines(steps: TaskSteps) -> list[ExportLine]:
    """What the checks found."""
    return [
        ExportLine(
            steps.task.name,
            export.request.name,
            check.split,
            check.metric,
            check.student,
            check.export,
            check.loss,
            export.request.tolerance,
            export.is_delivered,
            loss_low=check.loss_low,
            loss_high=check.loss_high,
            judgement=": ".join(export.judgement),
            examples=check.rows,
            agreement=check.agreement,
            largest_difference=check.largest_difference,
        )
        for export in steps.exports
        for check in export.checks
    ]


def online_lines(steps: TaskSteps) -> list[OnlineLine]:
    """What was measured."""
    rows = read_online(steps.online) if steps.online else []
    return [_online_line(steps.task.name, row) for row in rows]


def _online_line(task: str, row: Measurement) -> OnlineLine:
    assert row.ratio is not None, "teacher and exports read the same inputs"
    assert row.ratio_low is not None
    assert row.ratio_high is not None
    return OnlineLine(
        task,
        row.contender,
        describe_runtime(row.runtime, row.quantisation),
        row.threads,
        row.batch_size,
        row.mean_length,
        row.bytes,
        row.size_ratio,
        row.median_ms,
        row.p95_ms,
        row.p99_ms,
        row.throughput_per_s,
        row.ratio,
        row.ratio_low,
        row.ratio_high,
        row.peak_bytes,
        row.load_seconds,
        row.cost_per_million,
        row.price_per_core_hour,
        row.baseline,
        written=row.written,
    )
