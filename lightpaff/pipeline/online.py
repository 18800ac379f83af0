"""The last steps of a run: every task's student exported, checked and measured beside its teacher.

Which student is exported is known only when all are trained, so these steps are laid out then.
"""

from dataclasses import dataclass

from lightpaff.deployment.benchmark_table import describe_runtime
from lightpaff.deployment.measuring import Measurement
from lightpaff.errors import UserError
from lightpaff.pipeline.arms import TEACHER
from lightpaff.pipeline.build import Graph, TaskSteps
from lightpaff.pipeline.delivery import CheckedExport, ExportPlan, best_student, make_export
from lightpaff.pipeline.exporting import Verdict
from lightpaff.pipeline.graph import DoneStep, run_step
from lightpaff.pipeline.online_steps import online_step, read_online
from lightpaff.pipeline.training_steps import Workshop
from lightpaff.progress import console
from lightpaff.report.rows import ExportLine, OnlineLine

_BECOMES: dict[Verdict, str] = {
    "delivered": "delivered",
    "undecided": "delivered, undecided",
    "refused": "reported, and not delivered",
}


@dataclass(frozen=True)
class OnlineTask:
    """A task's exports and how fast they are.

    Attributes:
        measured: None where nothing could be exported or measured.
        failures: why, of those exports, or of that measurement.
    """

    steps: TaskSteps
    exports: list[CheckedExport]
    measured: DoneStep | None
    failures: list[str]

    @property
    def done(self) -> list[DoneStep]:
        """All that was done for it, in order."""
        made = [step for export in self.exports for step in (export.exported, export.checked)]
        return [*made, *([self.measured] if self.measured else [])]


def go_online(shop: Workshop, graph: Graph, plan: ExportPlan) -> list[OnlineTask]:
    """Export, check and measure every task's student; what is done is reused."""
    return [_go_online(shop, steps, plan) for steps in graph.tasks]


def _go_online(shop: Workshop, steps: TaskSteps, plan: ExportPlan) -> OnlineTask:
    exports, failures = _make_exports(shop, steps, plan)
    for export in exports:
        verdict, why = export.judgement
        console.print(f"{export.request.name} of {steps.task.name} is {_BECOMES[verdict]}: {why}")
    if not exports:
        return OnlineTask(steps, [], None, failures)
    teacher = next(start for (arm, _), start in steps.models.items() if arm == TEACHER)
    models = {"teacher": teacher, "student": best_student(shop, steps)[1]}
    made = {export.request.name: export.exported.step for export in exports}
    try:
        measured = run_step(online_step(shop, steps.task, steps.rows, models, made))
    except UserError as error:
        return OnlineTask(steps, exports, None, [*failures, _tell(f"the measurement of {steps.task.name}", error)])
    return OnlineTask(steps, exports, measured, failures)


def _make_exports(shop: Workshop, steps: TaskSteps, plan: ExportPlan) -> tuple[list[CheckedExport], list[str]]:
    """What could be made, and why the rest could not: a trained student is worth its report all the same."""
    exports, failures = [], []
    for request in plan.exports:
        try:
            exports.append(make_export(shop, steps, request))
        except UserError as error:
            failures.append(_tell(f"{request.name} of {steps.task.name}", error))
    return exports, failures


def _tell(what: str, error: UserError) -> str:
    failure = f"{what} failed: {error}"
    console.print(failure)
    return failure


def export_lines(task: OnlineTask) -> list[ExportLine]:
    """What the checks found, for the report."""
    return [
        ExportLine(
            task.steps.task.name,
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
        for export in task.exports
        for check in export.checks
    ]


def online_lines(task: OnlineTask) -> list[OnlineLine]:
    """What was measured, for the report."""
    rows = read_online(task.measured.step) if task.measured else []
    return [_online_line(task.steps.task.name, row) for row in rows]


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
    )
