"""From a recipe to the graph of its steps: the paper's figure 1, with the control beside it."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lightpaff.objectives.table import TASK_OBJECTIVES, WITH_FEW_CLASSES
from lightpaff.pipeline.arms import STUDENT, TEACHER, Arm, arms_of
from lightpaff.pipeline.choosing import choose_step
from lightpaff.pipeline.data_steps import corpus_step, task_step
from lightpaff.pipeline.exporting import ExportSteps, check_step, export_step
from lightpaff.pipeline.graph import Step
from lightpaff.pipeline.measuring_steps import baseline_step, latency_step
from lightpaff.pipeline.online_steps import online_step
from lightpaff.pipeline.training_steps import (
    Advice,
    Budget,
    Start,
    Workshop,
    capture_step,
    finetune_step,
    initial_step,
    predict_step,
    pretrain_step,
    sequences_step,
    training_of,
)
from lightpaff.recipe_sections import Export, Task, Training
from lightpaff.report.rows import Stage

LAST = ("choose", "export", "check", "online")
"""The kinds of steps that come when all is trained."""


@dataclass(frozen=True)
class TrainingStep:
    """A step that trains, with what its cost depends on.

    Attributes:
        advice: what it hears from the task's teacher, in fine-tuning.
        budget: what its steps are counted over, in fine-tuning.
        asks_teacher: at every batch (`live`), `once` for all rows, or `never`. Rows that are captured once for several
            seeds count for the first.
    """

    step: Step
    arm: Arm
    stage: Stage
    task: Task | None
    seed: int
    training: Training
    data: Step
    advice: Advice | None
    asks_teacher: Literal["live", "once", "never"]
    budget: Budget = "every row"


@dataclass(frozen=True)
class TaskSteps:
    """The steps of one task. `predictions` are by the arm's name and the seed, `models` where the fine-tuned models
    are; `baseline` is None where TF-IDF cannot do the task, `online` where there are no exports to measure."""

    task: Task
    rows: Step
    predictions: dict[tuple[str, int], Step]
    models: dict[tuple[str, int], Start]
    baseline: Step | None
    latency: Step
    chosen: Step
    exports: list[ExportSteps]
    online: Step | None


@dataclass(frozen=True)
class Graph:
    """All steps of a run, each after its inputs; `arms` begins with the teacher and the student."""

    arms: list[Arm]
    data: list[Step]
    trainings: list[TrainingStep]
    tasks: list[TaskSteps]
    corpus: Step | None
    steps: list[Step]


def build_graph(shop: Workshop, exports: Sequence[Export], left_out: Collection[str] = ()) -> Graph:
    """Lay out a run; nothing is done yet.

    Args:
        shop: what all steps share.
        exports: of every task's student.
        left_out: the names of last steps that failed: they, and what needs them, are not in the graph.
    """
    recipe = shop.recipe
    arms = arms_of(recipe)
    corpus = corpus_step(recipe, shop.inputs, shop.root) if recipe.pretraining else None
    trainings: list[TrainingStep] = []
    starts = _pretrain(shop, corpus, arms, trainings)
    tasks = [_task_steps(shop, task, starts, arms, trainings, exports, left_out) for task in recipe.tasks]
    # Done already: the configs of the models have as many words as the tokenizer.
    tokenizer = shop.inputs.trained_tokenizer
    data = [*([tokenizer.step] if tokenizer else []), *([corpus] if corpus else []), *(steps.rows for steps in tasks)]
    ends = [*data]
    for steps in tasks:
        ends += [*([steps.baseline] if steps.baseline else []), *steps.predictions.values(), steps.latency]
    # What is delivered comes when all is trained: a failing export then costs nothing.
    for steps in tasks:
        ends += [steps.chosen, *(export.checked for export in steps.exports), *([steps.online] if steps.online else [])]
    return Graph(arms, data, trainings, tasks, corpus, list(_in_order(ends)))


def _pretrain(shop: Workshop, corpus: Step | None, arms: list[Arm], trainings: list[TrainingStep]) -> dict[str, Start]:
    """Stage one: where each arm stands before fine-tuning."""
    recipe, inputs, (large, *small_arms) = shop.recipe, shop.inputs, arms
    if inputs.teacher is not None:
        teacher = Start.of_fetched(inputs.teacher)
    else:
        teacher = Start.of_step(initial_step(shop, large, None))
    if corpus is not None and recipe.teacher.pretraining is not None:
        step = pretrain_step(shop, large, corpus, teacher, None)
        trainings.append(
            TrainingStep(
                step,
                large,
                "pre-training",
                None,
                recipe.seeds.pretraining,
                recipe.teacher.pretraining,
                corpus,
                advice=None,
                asks_teacher="never",
            )
        )
        teacher = Start.of_step(step)
    starts = {TEACHER: teacher}
    if inputs.ready_student is not None:
        initial = Start.of_fetched(inputs.ready_student)
    else:
        initial = Start.of_step(
            initial_step(shop, small_arms[0], teacher if recipe.student.initialisation == "teacher" else None)
        )
    for arm in small_arms:
        starts[arm.name] = initial
        if corpus is not None and arm.recipe.pretraining is not None:
            listens = arm.recipe.pretraining.distillation.weight > 0
            step = pretrain_step(shop, arm, corpus, initial, teacher if listens else None)
            trainings.append(
                TrainingStep(
                    step,
                    arm,
                    "pre-training",
                    None,
                    recipe.seeds.pretraining,
                    arm.recipe.pretraining.training,
                    corpus,
                    advice=None,
                    asks_teacher="live" if listens else "never",
                )
            )
            starts[arm.name] = Start.of_step(step)
    return starts


def _task_steps(
    shop: Workshop,
    task: Task,
    starts: dict[str, Start],
    arms: list[Arm],
    trainings: list[TrainingStep],
    requests: Sequence[Export],
    left_out: Collection[str],
) -> TaskSteps:
    """Stage two for one task, and what is measured of it."""
    rows = task_step(task, shop.inputs, shop.root)
    seeds = shop.recipe.seeds.fine_tuning
    models: dict[tuple[str, int], Start] = {}
    large, *small_arms = arms

    def finetune(arm: Arm, seed: int, advice: Advice | None, budget: Budget) -> None:
        step = finetune_step(shop, arm, task, rows, starts[arm.name], advice, budget, seed)
        asks: Literal["live", "once", "never"] = "never"
        if advice is not None and advice.live is not None:
            asks = "live"
        elif advice is not None and seed == seeds[0]:
            asks = "once"
        trainings.append(
            TrainingStep(
                step,
                arm,
                "fine-tuning",
                task,
                seed,
                training_of(arm),
                rows,
                advice=advice,
                asks_teacher=asks,
                budget=budget,
            )
        )
        models[arm.name, seed] = Start.of_step(step)

    if task.name in shop.inputs.task_teachers:
        models[TEACHER, seeds[0]] = Start.of_fetched(shop.inputs.task_teachers[task.name])
    else:
        finetune(large, seeds[0], None, "labelled rows")
    teacher = models[TEACHER, seeds[0]]
    advice = {arm.name: _advice(shop, arm, task, rows, teacher) for arm in small_arms}
    # Of the student, for all: who hears nothing takes as many steps.
    budget: Budget = "every row" if advice[STUDENT] else "labelled rows"
    for seed in seeds:
        for arm in small_arms:
            finetune(arm, seed, advice[arm.name], budget)
    predictions = {
        (name, seed): predict_step(shop, name, task, rows, model, seed) for (name, seed), model in models.items()
    }
    # All students have one shape, so their speed is the student's.
    latency = latency_step(shop, task, rows, {"teacher": teacher, "student": models[STUDENT, seeds[0]]})
    baseline = baseline_step(shop, task, rows) if TASK_OBJECTIVES[task.objective].has_baseline else None
    students = {seed: step for seed in seeds if (step := models[STUDENT, seed].step)}
    chosen = choose_step(shop, task, rows, students)
    answers = {seed: predictions[STUDENT, seed] for seed in students}
    exports = []
    for request in requests:
        exported = export_step(shop, task, rows, Start.of_step(chosen), request)
        checked = check_step(shop, task, rows, exported, chosen, answers, request)
        if not {exported.name, checked.name} & set(left_out):
            exports.append(ExportSteps(request, exported, checked))
    measured = {"teacher": teacher, "student": Start.of_step(chosen)}
    online = online_step(shop, task, rows, measured, {one.request.name: one.exported for one in exports})
    is_measured = exports and online.name not in left_out
    return TaskSteps(
        task, rows, predictions, models, baseline, latency, chosen, exports, online if is_measured else None
    )


def _advice(shop: Workshop, arm: Arm, task: Task, rows: Step, teacher: Start) -> Advice | None:
    """What a student hears from the task's teacher; nothing where λ is 0 and no outputs are wanted."""
    if arm.is_silenced:
        return None
    sequences = sequences_step(shop, task, rows, teacher) if task.sequence_distillation else None
    listens = arm.recipe.fine_tuning.distillation.weight > 0
    is_live = task.objective not in WITH_FEW_CLASSES
    if not listens and sequences is None:
        return None
    captured = capture_step(shop, arm, task, rows, teacher) if listens and not is_live else None
    return Advice(captured, teacher if listens and is_live else None, sequences)


def _in_order(ends: list[Step]) -> Iterator[Step]:
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
