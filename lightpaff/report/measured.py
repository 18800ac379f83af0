"""The models of a task with what was measured of each: the view of the rows that tables, verdict and plots share."""

from collections.abc import Iterable
from dataclasses import dataclass

from lightpaff.report.rows import Arm, Comparison, ReportData, Row, TaskFacts

_FIRST: tuple[Arm, ...] = ("teacher", "student", "control")
_LAST: Arm = "tfidf"


def in_order(arms: Iterable[Arm]) -> list[Arm]:
    """Each arm once: teacher, student, control, the others as they come, and the baseline."""
    given = list(dict.fromkeys(arms))
    others = [arm for arm in given if arm not in (*_FIRST, _LAST)]
    return [arm for arm in (*_FIRST, *others, _LAST) if arm in given]


@dataclass(frozen=True)
class MeasuredModel:
    """One arm in one runtime, its seeds summed up."""

    arm: Arm
    runtime: str
    rows: dict[str, Row]
    """By metric."""

    def value(self, metric: str) -> float | None:
        """The score, if it was measured."""
        return self.rows[metric].value if metric in self.rows else None

    @property
    def is_constant(self) -> bool:
        """It gave every row the same answer."""
        return any(row.constant for row in self.rows.values())

    @property
    def parameters(self) -> int | None:
        return next((row.parameters for row in self.rows.values() if row.parameters is not None), None)

    @property
    def bytes(self) -> int | None:
        return next((row.bytes for row in self.rows.values() if row.bytes is not None), None)

    @property
    def median_ms(self) -> float | None:
        return next((row.median_ms for row in self.rows.values() if row.median_ms is not None), None)

    @property
    def p95_ms(self) -> float | None:
        return next((row.p95_ms for row in self.rows.values() if row.p95_ms is not None), None)

    @property
    def throughput(self) -> float | None:
        return next((row.throughput for row in self.rows.values() if row.throughput is not None), None)


def measured_models(data: ReportData, task: TaskFacts) -> list[MeasuredModel]:
    """The models with rows on the task's reported split: teacher, student, control, baseline; runtimes as they came."""
    by_model: dict[tuple[Arm, str], dict[str, Row]] = {}
    for row in data.rows:
        if (row.task, row.split) == (task.name, task.split):
            own = by_model.setdefault((row.arm, row.runtime), {})
            # The mean over seeds has none.
            own[row.metric] = row if row.seed is None else own.get(row.metric, row)
    models = [MeasuredModel(arm, runtime, rows) for (arm, runtime), rows in by_model.items()]
    order = in_order(model.arm for model in models)
    return sorted(models, key=lambda model: order.index(model.arm))


def count_seeds(data: ReportData, arm: Arm, task: TaskFacts | None = None) -> int:
    """How many fine-tuning seeds of an arm were run (for a task, or the most of any); 0 where nothing was random."""
    tasks = [task] if task else data.tasks
    seeds = ({row.seed for row in data.rows if (row.arm, row.task) == (arm, one.name)} - {None} for one in tasks)
    return max((len(own) for own in seeds), default=0)


def reference_teacher(models: list[MeasuredModel]) -> MeasuredModel | None:
    """The teacher that sizes and speeds are compared with: its first runtime."""
    return next((model for model in models if model.arm == "teacher"), None)


def headline_student(models: list[MeasuredModel]) -> MeasuredModel | None:
    """The student that the headline speaks of: in the reference teacher's runtime where there is one, so that the
    speed-up is the model's own and not the runtime's."""
    students = [model for model in models if model.arm == "student"]
    teacher = reference_teacher(models)
    alike = [model for model in students if teacher is not None and model.runtime == teacher.runtime]
    return next(iter(alike + students), None)


def size_ratio(teacher: MeasuredModel | None, model: MeasuredModel) -> float | None:
    """How many times smaller the stored weights are; by parameters where the teacher's bytes are not known."""
    if teacher is None:
        return None
    if teacher.bytes:
        return teacher.bytes / model.bytes if model.bytes else None
    return teacher.parameters / model.parameters if teacher.parameters and model.parameters else None


def speed_ratio(teacher: MeasuredModel | None, model: MeasuredModel) -> float | None:
    """How many times as fast, by the median latency."""
    return teacher.median_ms / model.median_ms if teacher and teacher.median_ms and model.median_ms else None


def share_of_teacher(teacher: MeasuredModel | None, model: MeasuredModel, metric: str) -> float | None:
    """The model's score over the teacher's, whichever way is better.

    None where the teacher's is not positive, since no share means anything."""
    if teacher is None:
        return None
    own, reference = model.value(metric), teacher.value(metric)
    return own / reference if own is not None and reference is not None and reference > 0 else None


def find_comparison(data: ReportData, task: TaskFacts, first: Arm, second: Arm) -> Comparison | None:
    """The paired difference first - second of the task's first metric, whichever way round it was recorded."""
    for found in data.comparisons:
        if (found.task, found.split, found.metric) != (task.name, task.split, task.metric):
            continue
        if (found.first_arm, found.second_arm) == (first, second):
            return found
        if (found.first_arm, found.second_arm) == (second, first):
            return Comparison(
                *(found.task, found.split, found.metric, first, second),
                *(-found.difference, -found.high, -found.low),
            )
    return None
