"""What a study says: every arm's scores, its differences to the baseline, and what it cost."""

import datetime
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from lightpaff.deployment.measuring import Measurement
from lightpaff.evaluation.intervals import Difference, adjusted, bootstrap_interval, paired_difference
from lightpaff.evaluation.outputs import Outputs
from lightpaff.models.opening import read_config
from lightpaff.models.shapes import count_parameters
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.pipeline.arms import STUDENT, TEACHER
from lightpaff.pipeline.build import TaskSteps, TrainingStep
from lightpaff.pipeline.context import evaluation_splits, task_objective
from lightpaff.pipeline.data_steps import read_warnings
from lightpaff.pipeline.environment import describe_environment
from lightpaff.pipeline.graph import DoneStep, Step
from lightpaff.pipeline.measuring_steps import read_latency
from lightpaff.pipeline.online_steps import read_online
from lightpaff.pipeline.outcome import read_predictions
from lightpaff.pipeline.workload import flops_of, workload_of
from lightpaff.report.metrics import METRICS
from lightpaff.study.budgets import Budgets
from lightpaff.study.cells import STAGES, Cell
from lightpaff.study.definition import Study
from lightpaff.study.noise import NoiseStep


@dataclass(frozen=True)
class ComparedDifference:
    """An arm less the baseline, over the same rows and the seeds of both; p is corrected for the number of arms."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class ArmRow:
    """One arm on one task.

    Attributes:
        values: by the seed.
        spread: their standard deviation; None with one seed.
        interval: 95 %, of the mean, over rows and seeds.
        minus_baseline: None of the baseline itself.
        minus_teacher: the same against the teacher, not corrected.
        teacher: the score of its teacher.
        share: of that; None where it means nothing, since one of the two is below 0, or the teacher's is 0.
        closed: the share of the way from the baseline to the teacher; None where it is not shown that there is one.
        steps: of each stage, by its name.
        flops: of the student's trainings, a seed.
        teacher_flops: of its teacher's answers, asked or captured.
        seconds: of the trainings and of asking the teacher, a seed, as they were when that was done.
        constant: who gives every row the same answer: the arm by its name, its teacher as "the teacher".
        has_another_teacher: than the baseline.
    """

    arm: str
    keys: dict[str, object]
    task: str
    split: str
    metric: str
    values: dict[int, float]
    mean: float
    spread: float | None
    interval: tuple[float, float]
    minus_baseline: ComparedDifference | None
    minus_teacher: ComparedDifference
    teacher: float
    share: float | None
    closed: float | None
    steps: dict[str, int]
    flops: float
    teacher_flops: float
    seconds: float
    parameters: int
    teacher_parameters: int
    median_ms: float | None = None
    teacher_median_ms: float | None = None
    constant: list[str] = field(default_factory=list)
    has_another_teacher: bool = False


@dataclass(frozen=True)
class ReferenceRow:
    """What is no arm: the teacher, or word counts."""

    name: str
    task: str
    metric: str
    value: float
    interval: tuple[float, float]
    parameters: int | None = None
    median_ms: float | None = None


@dataclass(frozen=True)
class ExportRow:
    """An arm's first student in another runtime."""

    arm: str
    task: str
    metric: str
    name: str
    """Such as onnx-int8."""
    value: float
    verdict: str
    """delivered, undecided or refused, against that student."""
    median_ms: float
    bytes: int
    faster: float
    """How many times as fast as the teacher in PyTorch, one at a time."""


@dataclass(frozen=True)
class NoiseLine:
    """An arm at one deviation of noise: the mean over draws and seeds, the lowest and the highest."""

    arm: str
    task: str
    metric: str
    deviation: float
    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class CurvatureLine:
    """The curvature of an arm's loss, a seed each."""

    arm: str
    task: str
    values: list[float]


@dataclass(frozen=True)
class StudyData:
    """Everything on a study's page."""

    name: str
    title: str
    created: str
    baseline: str
    reference: str
    match: str
    x: str | None
    examples: dict[str, str]
    """What the intervals are over, by the task."""
    answers: dict[str, str]
    """What a row is given, by the task: a class, a text."""
    warnings: dict[str, list[str]]
    """Of the tasks' splits, such as rows that are in two of them."""
    rows: list[ArmRow]
    references: list[ReferenceRow]
    environment: dict[str, str]
    command: str
    study_yaml: str
    exports: list[ExportRow] = field(default_factory=list)
    noise: list[NoiseLine] = field(default_factory=list)
    curvature: list[CurvatureLine] = field(default_factory=list)

    @property
    def headline(self) -> str:
        """The arm that the page leads with: the reference, or where that is the baseline, the next one."""
        arms = list(dict.fromkeys(row.arm for row in self.rows))
        return self.reference if self.reference != self.baseline else next(arm for arm in arms if arm != self.baseline)

    def colour(self, arm: str) -> str:
        """The name of an arm's colour, as `lightpaff.report.canvas` has it: six that differ, by the arms' order."""
        return f"arm{list(dict.fromkeys(row.arm for row in self.rows)).index(arm) % 6}"


def compare(
    study: Study,
    budgets: Budgets,
    cells: list[Cell],
    done: dict[str, DoneStep],
    noise: list[NoiseStep],
    command: str,
) -> StudyData:
    """Read what the cells' steps left."""
    import yaml

    by_arm = {arm: [cell for cell in cells if cell.arm == arm] for arm in study.arms}
    first = cells[0]
    rows = [row for place in range(len(first.graph.tasks)) for row in _rows(study, budgets, by_arm, done, place)]
    references = [line for place in range(len(first.graph.tasks)) for line in _references(study, by_arm, place)]
    return StudyData(
        name=study.name,
        title=study.title or study.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        baseline=study.baseline,
        reference=study.reference_arm,
        match=study.match,
        x=study.x,
        examples={steps.task.name: _counted(first, place) for place, steps in enumerate(first.graph.tasks)},
        answers={
            steps.task.name: TASK_OBJECTIVES[steps.task.objective].answer_words(steps.task).one
            for steps in first.graph.tasks
        },
        warnings={steps.task.name: read_warnings(steps.rows) for steps in first.graph.tasks},
        rows=rows,
        references=references,
        environment={
            **describe_environment(first.context.hardware),
            "seeds": ", ".join(map(str, study.seeds)),
            "study fingerprint": study.fingerprint(),
        },
        command=command,
        study_yaml=yaml.safe_dump(study.model_dump(mode="json", exclude_none=True), sort_keys=False),
        exports=[row for own in by_arm.values() for row in _exports(own[0])],
        noise=list(_noise_lines(study, first, noise)),
        curvature=_curvature_lines(study, noise),
    )


def _rows(
    study: Study, budgets: Budgets, by_arm: dict[str, list[Cell]], done: dict[str, DoneStep], place: int
) -> Iterator[ArmRow]:
    """Every arm on the task in that place."""
    outputs = {arm: [_outputs(cell, place, STUDENT) for cell in cells] for arm, cells in by_arm.items()}
    task = by_arm[study.baseline][0].graph.tasks[place].task
    metric = task.metric_names[0]
    others = [arm for arm in study.arms if arm != study.baseline]
    found = {arm: paired_difference(metric, outputs[arm], outputs[study.baseline]) for arm in others}
    corrected = dict(zip(others, adjusted([found[arm].p for arm in others]), strict=True))
    floor = statistics.fmean(one.score(metric) for one in outputs[study.baseline])
    room = paired_difference(metric, _outputs(by_arm[study.baseline][0], place, TEACHER), outputs[study.baseline])
    is_ahead = METRICS[metric].as_gain(room.low, room.high)[0] > 0
    for arm, cells in by_arm.items():
        # Its own: an arm with other rows has another one.
        teacher = _outputs(cells[0], place, TEACHER)
        goal = teacher.score(metric)
        values = [one.score(metric) for one in outputs[arm]]
        interval = bootstrap_interval(metric, outputs[arm])
        mean = statistics.fmean(values)
        has_another_teacher = _teacher(cells[0], place) != _teacher(by_arm[study.baseline][0], place)
        constant = [f"'{arm}'"] if all(one.is_constant for one in outputs[arm]) else []
        yield ArmRow(
            arm=arm,
            keys=study.arms[arm],
            task=task.name,
            split=evaluation_splits(task)[-1],
            metric=metric,
            values={cell.seed: value for cell, value in zip(cells, values, strict=True)},
            mean=mean,
            spread=statistics.stdev(values) if len(values) > 1 else None,
            interval=(interval.low, interval.high),
            minus_baseline=_compared(found[arm], corrected[arm]) if arm in found else None,
            minus_teacher=_compared(difference := paired_difference(metric, outputs[arm], teacher), difference.p),
            teacher=goal,
            share=mean / goal if goal > 0 <= mean else None,
            closed=(mean - floor) / (goal - floor) if is_ahead and not has_another_teacher else None,
            steps={stage: steps for stage, steps in budgets[arm].items() if stage in STAGES.values()},
            median_ms=_milliseconds(cells[0], place, STUDENT),
            teacher_median_ms=_milliseconds(cells[0], place, TEACHER),
            parameters=_parameters(cells[0], place, STUDENT),
            teacher_parameters=_parameters(cells[0], place, TEACHER),
            constant=[*constant, *(["the teacher"] if teacher.is_constant else [])],
            has_another_teacher=has_another_teacher,
            **_cost(cells[0], cells[0].graph.tasks[place], done),
        )


def _teacher(cell: Cell, place: int) -> str:
    return cell.graph.tasks[place].predictions[TEACHER, cell.seed].fingerprint


def _compared(difference: Difference, p: float) -> ComparedDifference:
    return ComparedDifference(difference.value, difference.low, difference.high, p)


def _outputs(cell: Cell, place: int, arm: str) -> Outputs:
    steps = cell.graph.tasks[place]
    split = evaluation_splits(steps.task)[-1]
    return read_predictions(cell.context, steps, steps.predictions[arm, cell.seed], split)


def _cost(cell: Cell, steps: TaskSteps, done: dict[str, DoneStep]) -> dict[str, float]:
    """Of one seed: pre-training, and fine-tuning on this task."""
    own, asked, seconds = 0.0, 0.0, 0.0
    for training in cell.trainings:
        if training.task is None or training.task.name == steps.task.name:
            flops = flops_of(cell.context, training, workload_of(cell.context, training))
            own, asked = own + flops.own, asked + flops.teacher
            seconds += sum(done[step.fingerprint].seconds for step in (training.step, *_asking(training)))
    return {"flops": own, "teacher_flops": asked, "seconds": seconds}


def _asking(training: TrainingStep) -> Iterator[Step]:
    """The steps that ask its teacher beforehand."""
    if (heard := training.supervision) is not None:
        yield from ([heard.captured.step] if heard.captured else [])
        yield from ([heard.sequences] if heard.sequences else [])


def _parameters(cell: Cell, place: int, arm: str) -> int:
    steps = cell.graph.tasks[place]
    data = task_objective(cell.context, steps.task, steps.rows, "validation")
    config = read_config(steps.models[arm, cell.seed].path)
    return count_parameters(config, data.head, data.number_of_classes).total


def _milliseconds(cell: Cell, place: int, arm: str) -> float | None:
    """Of a model in PyTorch, one row at a time; None where it was not measured."""
    steps = cell.graph.tasks[place]
    if steps.latency is not None and steps.latency in cell.steps and steps.latency.state == "done":
        return float(read_latency(steps.latency)["models"][arm]["median_ms"])
    row = None if steps.online is None else _measured(steps.online, arm)
    return None if row is None else row.median_ms


def _measured(online: Step, name: str) -> Measurement | None:
    """One row at a time; None where that could not be measured."""
    rows = read_online(online) if online.state == "done" else []
    return next((row for row in rows if row.contender == name and row.batch_size == 1), None)


def _exports(cell: Cell) -> Iterator[ExportRow]:
    for steps in cell.graph.tasks:
        for export in steps.exports if steps.online is not None else []:
            assert steps.online is not None
            measured = _measured(steps.online, export.request.name)
            if measured is None or measured.ratio is None or export.checked.state != "done":
                continue
            reported = export.checks[-1]
            yield ExportRow(
                arm=cell.arm,
                task=steps.task.name,
                metric=reported.metric,
                name=export.request.name,
                value=reported.export,
                verdict=export.judgement[0],
                median_ms=measured.median_ms,
                bytes=measured.bytes,
                faster=measured.ratio,
            )


def _references(study: Study, by_arm: dict[str, list[Cell]], place: int) -> Iterator[ReferenceRow]:
    cell = by_arm[study.baseline][0]
    steps = cell.graph.tasks[place]
    metric, split = steps.task.metric_names[0], evaluation_splits(steps.task)[-1]
    teacher = _outputs(cell, place, TEACHER)
    interval = bootstrap_interval(metric, teacher)
    size = _parameters(cell, place, TEACHER)
    speed = _milliseconds(cell, place, TEACHER)
    ends = (interval.low, interval.high)
    yield ReferenceRow("teacher", steps.task.name, metric, teacher.score(metric), ends, size, speed)
    if steps.baseline is not None:
        words = read_predictions(cell.context, steps, steps.baseline, split)
        interval = bootstrap_interval(metric, words)
        yield ReferenceRow("tfidf", steps.task.name, metric, words.score(metric), (interval.low, interval.high))


def _counted(cell: Cell, place: int) -> str:
    outputs = _outputs(cell, place, STUDENT)
    units = len(set(outputs.units_N.tolist()))
    counted = TASK_OBJECTIVES[cell.graph.tasks[place].task.objective].counted
    return f"{len(outputs):,} {counted}" + ("" if units == len(outputs) else f" in {units:,} groups, drawn whole")


def _noise_lines(study: Study, cell: Cell, steps: list[NoiseStep]) -> Iterator[NoiseLine]:
    if study.noise is None:
        return
    for task, shown in {one.task.name: one.task.metric_names[0] for one in cell.graph.tasks}.items():
        for arm in study.arms:
            own = [point for step in steps if (step.arm, step.task) == (arm, task) for point in step.points()]
            # Texts are not written under noise: of them there is the loss alone.
            for metric in (name for name in (shown, "loss") if name in own[0].values):
                for deviation in study.noise.deviations:
                    values = [point.values[metric] for point in own if point.deviation == deviation]
                    yield NoiseLine(arm, task, metric, deviation, statistics.fmean(values), min(values), max(values))


def _curvature_lines(study: Study, steps: list[NoiseStep]) -> list[CurvatureLine]:
    return [
        CurvatureLine(arm, task, [step.curvature() for step in steps if (step.arm, step.task) == (arm, task)])
        for task in dict.fromkeys(step.task for step in steps)
        for arm in study.arms
    ]
