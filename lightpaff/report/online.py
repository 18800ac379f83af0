"""The models of a task as they answer online: the view that tables, cards, verdict and plots share.

Scores of the student here are those of the delivered one, which the exports were made from, not the mean over seeds.
"""

from dataclasses import dataclass

from lightpaff.report import formats
from lightpaff.report.measured import measured_models, reference_teacher
from lightpaff.report.rows import Arm, ExportLine, OnlineLine, ReportData, TaskFacts


@dataclass(frozen=True)
class OnlineModel:
    """A model in its runtime, with what was measured at every batch size, the smallest first."""

    name: str
    lines: list[OnlineLine]
    checks: list[ExportLine]
    """Of an export, one for each split; empty for teacher and student."""

    @property
    def first(self) -> OnlineLine:
        """At the smallest batch size: one request at a time."""
        return self.lines[0]

    @property
    def arm(self) -> Arm:
        """Whose colour it has: every export is the student's."""
        return "teacher" if self.name == "teacher" else "student"

    @property
    def shown_name(self) -> str:
        return formats.arm_name(self.name)

    @property
    def is_refused(self) -> bool:
        """An export that loses too much: it was measured, but is not in the run's directory."""
        return any(not check.delivered for check in self.checks)

    @property
    def is_baseline(self) -> bool:
        """Whom the ratios are against."""
        return self.name == self.first.baseline


def exports_of(data: ReportData, task: TaskFacts) -> list[ExportLine]:
    """What the checks of a task's exports found."""
    return [line for line in data.exports if line.task == task.name]


def online_models(data: ReportData, task: TaskFacts) -> list[OnlineModel]:
    """The models of a task that were measured online, as they came."""
    by_name: dict[str, list[OnlineLine]] = {}
    for line in data.online:
        if line.task == task.name:
            by_name.setdefault(line.model, []).append(line)
    exports = exports_of(data, task)
    return [
        OnlineModel(
            name,
            sorted(lines, key=lambda line: line.batch_size),
            [check for check in exports if check.name == name],
        )
        for name, lines in by_name.items()
    ]


def online_baseline(models: list[OnlineModel]) -> OnlineModel | None:
    """The model that the ratios are against, if it is among them."""
    return next((model for model in models if model.is_baseline), None)


def online_score(data: ReportData, task: TaskFacts, name: str) -> float | None:
    """The task's first metric on the reported split, of a model online; None where it is not known."""
    if name == "teacher":
        teacher = reference_teacher(measured_models(data, task))
        return teacher.value(task.metric) if teacher else None
    checks = [line for line in exports_of(data, task) if (line.split, line.metric) == (task.split, task.metric)]
    if name == "student":
        return checks[0].student if checks else None
    return next((line.export for line in checks if line.name == name), None)


def fastest_export(data: ReportData, task: TaskFacts) -> OnlineModel | None:
    """The delivered export with the least median latency, among those with a score on the reported split."""
    delivered = [
        model
        for model in online_models(data, task)
        if model.checks and not model.is_refused and online_score(data, task, model.name) is not None
    ]
    return min(delivered, key=lambda model: model.first.median_ms, default=None)


def tell_loss(found: ExportLine) -> str:
    """0.54 % [−0.10, 1.20], of the student's score."""
    told = f"{formats.hundredths(found.loss)} %"
    if found.loss_low is None or found.loss_high is None:
        return told
    return f"{told} [{formats.hundredths(found.loss_low)}, {formats.hundredths(found.loss_high)}]"
