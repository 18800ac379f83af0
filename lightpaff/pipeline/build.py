"""From a recipe to the graph of its steps: the paper's figure 1, with the control beside it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from lightpaff.objectives.objective import Objective
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.pipeline.arms import STUDENT, TEACHER, Arm, arms_of
from lightpaff.pipeline.asking_steps import predict_step
from lightpaff.pipeline.budget import Budget
from lightpaff.pipeline.capture_steps import Supervision
from lightpaff.pipeline.choosing import choose_step
from lightpaff.pipeline.context import ModelSource, RunContext, corpus_objective, task_objective
from lightpaff.pipeline.data_steps import TaskData, corpus_step, task_data
from lightpaff.pipeline.exporting import ExportSteps, check_step, export_step
from lightpaff.pipeline.graph import Step
from lightpaff.pipeline.measuring_steps import baseline_step, latency_step
from lightpaff.pipeline.online_steps import online_step
from lightpaff.pipeline.supervising import (
    choose_pretraining_targets,
    choose_task_targets,
    supervise_pretraining,
    supervise_task,
)
from lightpaff.pipeline.target_choice import TargetChoice
from lightpaff.pipeline.training_steps import finetune_step, initial_step, pretrain_step, training_of
from lightpaff.recipe_sections import Export, Task
from lightpaff.recipe_training import Training
from lightpaff.report.rows import Stage

LAST = ("choose", "export", "check", "online")
"""The kinds of steps that come when all is trained."""


@dataclass(frozen=True)
class TrainingStep:
    """A step that trains, with what its cost depends on.

    Attributes:
        supervision: what it hears from a teacher; None where it hears nothing.
        asks_teacher: at every batch (`live`), `once` into a store, or `never`. What is captured once for several
            trainings counts for the first.
        lets_teacher_write: its own targets, which count for the first of several trainings likewise.
        targets: of a student: where its soft targets come from, or would.
        budget: what its steps are counted over, in fine-tuning.
    """

    step: Step
    arm: Arm
    stage: Stage
    task: Task | None
    seed: int
    training: Training
    data: Step
    supervision: Supervision | None
    asks_teacher: Literal["live", "once", "never"]
    targets: TargetChoice | None = None
    budget: Budget = "every row"
    lets_teacher_write: bool = False


@dataclass(frozen=True)
class TaskSteps:
    """The steps of one task.

    Attributes:
        predictions: by the arm's name and the seed.
        models: by the same: where the fine-tuned models are.
        baseline: None where TF-IDF cannot do the task.
        latency: None where `online` measures teacher and student on this run's device.
        online: None where there are no exports to measure.
    """

    task: Task
    rows: Step
    predictions: dict[tuple[str, int], Step]
    models: dict[tuple[str, int], ModelSource]
    baseline: Step | None
    latency: Step | None
    chosen: Step
    exports: list[ExportSteps]
    online: Step | None


@dataclass(frozen=True)
class Graph:
    """All steps of a run, each after its inputs; `arms` begins with the teacher and the student."""

    arms: list[Arm]
    trainings: list[TrainingStep]
    tasks: list[TaskSteps]
    corpus: Step | None
    steps: list[Step]


def build_graph(context: RunContext, exports: Sequence[Export], left_out: Collection[str] = ()) -> Graph:
    """Lay out a run whose data is prepared; nothing else is done yet.

    Args:
        context: what all steps share.
        exports: of every task's student.
        left_out: the names of last steps that failed: they, and what needs them, are not in the graph.
    """
    recipe = context.recipe
    arms = arms_of(recipe)
    corpus, prepared = data_steps(context)
    rows = [data.rows for data in prepared]
    trainings: list[TrainingStep] = []
    starts = _pretrain(context, corpus, rows, arms, trainings)
    tasks = [
        _task_steps(context, task, data, starts, arms, trainings, exports, left_out)
        for task, data in zip(recipe.tasks, prepared, strict=True)
    ]
    # Done already: the configs of the models have as many words as the tokenizer.
    tokenizer = context.inputs.trained_tokenizer
    ends = [*([tokenizer.step] if tokenizer else []), *([corpus] if corpus else []), *rows]
    for steps in tasks:
        ends += [*([steps.baseline] if steps.baseline else []), *steps.predictions.values()]
        ends += [steps.latency] if steps.latency else []
    # What is delivered comes when all is trained: a failing export then costs nothing.
    for steps in tasks:
        ends += [steps.chosen, *(export.checked for export in steps.exports), *([steps.online] if steps.online else [])]
    return Graph(arms, trainings, tasks, corpus, list(in_order(ends)))


def data_steps(context: RunContext) -> tuple[Step | None, list[TaskData]]:
    """What a graph is laid out over, and needs done: the corpus, if there is a first stage, and each task's rows."""
    recipe, inputs, root = context.recipe, context.inputs, context.root
    corpus = corpus_step(recipe, inputs, root) if recipe.pretraining else None
    return corpus, [task_data(task, inputs, root) for task in recipe.tasks]


def _text(context: RunContext, corpus: Step | None, rows: list[Step]) -> tuple[Step, Callable[[], Objective]]:
    """What the models read: the corpus, or else the first task's training rows."""
    if corpus is not None:
        return corpus, partial(corpus_objective, context, corpus)
    return rows[0], partial(task_objective, context, context.recipe.tasks[0], rows[0], "train")


def _pretrain(
    context: RunContext, corpus: Step | None, rows: list[Step], arms: list[Arm], trainings: list[TrainingStep]
) -> dict[str, ModelSource]:
    """Stage one: where each arm stands before fine-tuning."""
    recipe, inputs, (large, *small_arms) = context.recipe, context.inputs, arms
    if inputs.teacher is not None:
        teacher = ModelSource.of_fetched(inputs.teacher)
    else:
        teacher = ModelSource.of_step(initial_step(context, large, None))
    if corpus is not None and recipe.teacher.pretraining is not None:
        step = pretrain_step(context, large, corpus, teacher, None)
        trainings.append(
            TrainingStep(
                step,
                large,
                "pre-training",
                None,
                recipe.seeds.of_teacher[0],
                recipe.teacher.pretraining,
                corpus,
                supervision=None,
                asks_teacher="never",
            )
        )
        teacher = ModelSource.of_step(step)
    starts = {TEACHER: teacher}
    if inputs.ready_student is not None:
        initial = ModelSource.of_fetched(inputs.ready_student)
    else:
        start = teacher if recipe.student.initialisation == "teacher" else None
        initial = ModelSource.of_step(initial_step(context, small_arms[0], start, *_text(context, corpus, rows)))
    asked: set[str] = set()
    for arm in small_arms:
        starts[arm.name] = initial
        if corpus is not None and arm.recipe.pretraining is not None:
            choice = choose_pretraining_targets(context, corpus, arm, small_arms)
            supervision = supervise_pretraining(context, arm, corpus, teacher, choice)
            step = pretrain_step(context, arm, corpus, initial, supervision, choice.draws)
            trainings.append(
                TrainingStep(
                    step,
                    arm,
                    "pre-training",
                    None,
                    recipe.seeds.pretraining,
                    arm.recipe.pretraining.training,
                    corpus,
                    supervision=supervision,
                    asks_teacher=_asks(supervision, asked),
                    targets=choice,
                )
            )
            starts[arm.name] = ModelSource.of_step(step)
    return starts


def _asks(supervision: Supervision | None, asked: set[str]) -> Literal["live", "once", "never"]:
    """How a training asks its teacher; `asked` are the captures that count for another one."""
    if supervision is None or (supervision.captured is None and supervision.live is None):
        return "never"
    if supervision.captured is None:
        return "live"
    return "once" if _is_first(supervision.captured.step, asked) else "never"


def _is_first(step: Step | None, asked: set[str]) -> bool:
    """Whether nothing needed a step before; it joins what `asked`."""
    if step is None or step.fingerprint in asked:
        return False
    asked.add(step.fingerprint)
    return True


def _task_steps(
    context: RunContext,
    task: Task,
    data: TaskData,
    starts: dict[str, ModelSource],
    arms: list[Arm],
    trainings: list[TrainingStep],
    requests: Sequence[Export],
    left_out: Collection[str],
) -> TaskSteps:
    """Stage two for one task, and what is measured and delivered of it."""
    rows = data.rows
    models = _fine_tune(context, task, data, starts, arms, trainings)
    predictions = {
        (name, seed): predict_step(context, name, task, data.labelled if name == TEACHER else rows, model, seed)
        for (name, seed), model in models.items()
    }
    baseline = baseline_step(context, task, data.labelled) if TASK_OBJECTIVES[task.objective].has_baseline else None
    students = {seed: step for (name, seed), model in models.items() if name == STUDENT and (step := model.step)}
    chosen = choose_step(context, task, rows, students)
    answers = {seed: predictions[STUDENT, seed] for seed in students}
    exports = []
    for request in requests:
        exported = export_step(context, task, rows, ModelSource.of_step(chosen), request)
        checked = check_step(context, task, rows, exported, chosen, answers, request)
        if not {exported.name, checked.name} & set(left_out):
            exports.append(ExportSteps(request, exported, checked))
    latency, online = _measurements(context, task, rows, models, chosen, exports, left_out)
    return TaskSteps(task, rows, predictions, models, baseline, latency, chosen, exports, online)


def _fine_tune(
    context: RunContext,
    task: Task,
    data: TaskData,
    starts: dict[str, ModelSource],
    arms: list[Arm],
    trainings: list[TrainingStep],
) -> dict[tuple[str, int], ModelSource]:
    """The teacher of the task, then every small arm with every seed."""
    seeds, (large, *small_arms) = context.recipe.seeds.fine_tuning, arms
    rows = data.rows
    models: dict[tuple[str, int], ModelSource] = {}
    choices = {arm.name: choose_task_targets(context, task, rows, arm, small_arms) for arm in small_arms}
    asked: set[str] = set()

    def finetune(arm: Arm, seed: int, supervision: Supervision | None, budget: Budget) -> None:
        own_seed = seed if arm.is_small else context.recipe.seeds.of_teacher[1]
        own_rows = rows if arm.is_small else data.labelled
        step = finetune_step(context, arm, task, own_rows, starts[arm.name], supervision, budget, own_seed)
        trainings.append(
            TrainingStep(
                step,
                arm,
                "fine-tuning",
                task,
                own_seed,
                training_of(arm),
                own_rows,
                supervision=supervision,
                asks_teacher=_asks(supervision, asked),
                targets=choices.get(arm.name),
                budget=budget,
                lets_teacher_write=_is_first(supervision.sequences if supervision else None, asked),
            )
        )
        models[arm.name, seed] = ModelSource.of_step(step)

    if task.name in context.inputs.task_teachers:
        models[TEACHER, seeds[0]] = ModelSource.of_fetched(context.inputs.task_teachers[task.name])
    else:
        finetune(large, seeds[0], None, "labelled rows")
    teacher = models[TEACHER, seeds[0]]
    supervision = {arm.name: supervise_task(context, arm, task, rows, teacher, choices[arm.name]) for arm in small_arms}
    # Of the student, for all: who hears nothing takes as many steps.
    budget: Budget = "every row" if supervision[STUDENT] else "labelled rows"
    for seed in seeds:
        for arm in small_arms:
            finetune(arm, seed, supervision[arm.name], budget)
    return models


def _measurements(
    context: RunContext,
    task: Task,
    rows: Step,
    models: dict[tuple[str, int], ModelSource],
    chosen: Step,
    exports: list[ExportSteps],
    left_out: Collection[str],
) -> tuple[Step | None, Step | None]:
    """How fast teacher and student are on this run's device, and beside the exports; not the same twice."""
    seed = context.recipe.seeds.fine_tuning[0]
    # All students have one shape, so their speed is the student's.
    latency = latency_step(context, task, rows, {name: models[name, seed] for name in (TEACHER, STUDENT)})
    if not exports:
        return latency, None
    delivered = {TEACHER: models[TEACHER, seed], STUDENT: ModelSource.of_step(chosen)}
    online = online_step(context, task, rows, delivered, {one.request.name: one.exported for one in exports})
    if online.name in left_out:
        return latency, None
    return None if context.hardware.device.type == "cpu" else latency, online


def in_order(ends: list[Step]) -> Iterator[Step]:
    """Every step that `ends` need, once, inputs first."""
    seen: set[str] = set()

    def visit(step: Step) -> Iterator[Step]:
        if step.fingerprint in seen:
            return
        for needed in step.inputs:
            yield from visit(needed)
        if step.fingerprint not in seen:
            seen.add(step.fingerprint)
            yield step

    for end in ends:
        yield from visit(end)
