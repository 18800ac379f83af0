"""Figure 1 of the paper as steps: pre-train and fine-tune the teacher, ask it, pre-train and fine-tune the student.

Every one of them is the same loop (`lightpaff.training.loop`) with another objective, teacher and starting model.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from lightpaff import ranks
from lightpaff.data.batch_order import sequential_batches
from lightpaff.data.languages import tokenizer_between
from lightpaff.data.token_table import TokenTable
from lightpaff.files import write_json_whole
from lightpaff.models.headed import HeadedModel
from lightpaff.models.initialisation import carry_pooler, create_student, taken_layers
from lightpaff.models.narrowing import is_narrower
from lightpaff.models.opening import quiet_transformers
from lightpaff.models.shapes import config_identity
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.objectives.translate import Translation
from lightpaff.pipeline.arms import Arm, spoken
from lightpaff.pipeline.budget import Budget, with_steps_over
from lightpaff.pipeline.capture_steps import Supervision
from lightpaff.pipeline.context import (
    MODEL,
    ModelSource,
    RunContext,
    corpus_ids,
    corpus_objective,
    open_for_task,
    task_objective,
)
from lightpaff.pipeline.data_steps import NOT_OF_THE_ROWS
from lightpaff.pipeline.environment import describe_maker
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.recipe_sections import Languages, Task
from lightpaff.recipe_training import Distillation, Training
from lightpaff.targets.teacher import LiveTeacher, NoTeacher, StoredTeacher, Teacher
from lightpaff.training.loop import TrainingJob, Validate, train
from lightpaff.training.validation import validate_task, validate_tokens

TRAINING = "training.json"
MADE_WITH = "made with"
"""Among a training step's facts: see `describe_maker`."""
TEACHER_TARGETS = "teacher_targets.arrow"
_NO_DISTILLATION = Distillation(weight=0.0)
_CALIBRATION_EXAMPLES = 128
_CALIBRATION_TOKENS_TOGETHER = 4096


def initial_step(
    context: RunContext,
    arm: Arm,
    start: ModelSource | None,
    text: Step | None = None,
    open_text: Callable[[], Objective] | None = None,
) -> Step:
    """Make the model that training starts from: the student, shared by the distilled one and its control, or a
    teacher with random weights.

    Args:
        start: the teacher that a student is cut out of.
        text: prepared text, which tells what a narrower student takes of its teacher.
        open_text: the same, opened.
    """
    config = context.inputs.student_config if arm.is_small else context.inputs.teacher_config
    initialisation = context.recipe.student.initialisation if arm.is_small else "random"
    seeds = context.recipe.seeds
    seed = seeds.pretraining if arm.is_small else seeds.of_teacher[0]
    is_cut = start is not None and is_narrower(config, context.inputs.teacher_config)

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        model = create_student(
            config,
            context.pretraining_head,
            context.inputs.vocabulary.size,
            initialisation=initialisation,
            teacher_path=start.path if start else None,
            seed=seed,
            attention="eager",
            named_layers=context.recipe.student.named_layers,
            calibration=_calibration(open_text()) if is_cut and open_text else (),
        )
        _save(model, context, folders.result)
        if start is not None:
            carry_pooler(start.path, folders.result / MODEL)
        return {}

    settings = {
        "made with": context.made_with,
        "config": config_identity(config),
        "initialisation": initialisation,
        "seed": seed,
        "start": start.identity if start else None,
    }
    if start is not None:
        settings["layers"] = taken_layers(config, context.inputs.teacher_config, context.recipe.student.named_layers)
    if is_cut and context.recipe.pretraining is not None:
        # The inputs by which it is cut are masked as in pre-training.
        settings |= context.recipe.pretraining.model_dump(include={"mask_rate", "fragment_ratio"})
    name = "make the student" if arm.is_small else "make the teacher"
    inputs = (*(start.inputs if start else ()), *([text] if text and is_cut else []))
    return Step(name, "initial", settings, inputs, context.root, work)


def _calibration(data: Objective) -> Iterator[dict[str, Tensor]]:
    """Inputs of some examples, spread over all."""
    count = min(_CALIBRATION_EXAMPLES, len(data.lengths_N))
    ids = np.arange(count) * len(data.lengths_N) // count
    for some in sequential_batches(data.lengths_N, ids, _CALIBRATION_TOKENS_TOGETHER):
        yield data.batch(some, draw=0).inputs


@dataclass(frozen=True)
class _Lesson:
    """What a training step trains, opened when the step is done: see `TrainingJob`."""

    model: HeadedModel
    data: Objective
    example_ids: np.ndarray
    teacher: Teacher
    settings: Training
    validate: Validate


def _train_step(
    context: RunContext,
    name: str,
    kind: Literal["pretrain", "finetune"],
    open_lesson: Callable[[], _Lesson],
    *,
    start: ModelSource,
    training: Training,
    distillation: Distillation,
    draws: int | None,
    seed: int,
    settings: dict[str, Any],
    inputs: tuple[Step, ...],
    languages: Languages | None = None,
) -> Step:
    """One training, of whichever stage; `settings` are what fingerprints say of it besides what is given here."""

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        lesson = open_lesson()
        job = TrainingJob(
            description=step.name,
            model=lesson.model,
            data=lesson.data,
            example_ids=lesson.example_ids,
            teacher=lesson.teacher,
            settings=lesson.settings,
            distillation=distillation,
            draws=draws,
            seed=seed,
            validate=lesson.validate,
            checkpoints=folders.checkpoints,
            fingerprint=step.fingerprint,
            hardware=context.hardware,
        )
        progress = train(job)
        if not ranks.is_first():
            return {}
        _save(job.model.model, context, folders.result, languages)
        if kind == "pretrain":
            carry_pooler(start.path, folders.result / MODEL)
        write_json_whole(folders.result / TRAINING, asdict(progress))
        return {
            "seconds": round(progress.seconds, 2),
            "steps": progress.step,
            "best_step": progress.best_step,
            "tokens": progress.tokens,
            "targets": progress.targets,
            MADE_WITH: describe_maker(context.hardware.device),
        }

    everything = {
        **context.settings,
        "training": what_matters(training),
        # Where its soft targets come from is an input.
        "distillation": distillation.model_dump(exclude={"targets"}),
        "draws": draws,
        "seed": seed,
        "start": start.identity,
        **settings,
    }
    return Step(name, kind, everything, inputs, context.root, work)


def pretrain_step(
    context: RunContext,
    arm: Arm,
    corpus: Step,
    start: ModelSource,
    supervision: Supervision | None = None,
    draws: int | None = None,
) -> Step:
    """The family's pre-training objective on the corpus, with distillation where a teacher gives supervision.

    Args:
        draws: how many maskings an example has, before they come again; None: another one in every epoch.
    """
    recipe = arm.recipe
    assert recipe.pretraining is not None
    pretraining = recipe.pretraining
    training = pretraining.training if arm.is_small else recipe.teacher.pretraining
    assert training is not None
    seed = recipe.seeds.pretraining if arm.is_small else recipe.seeds.of_teacher[0]

    def open_lesson() -> _Lesson:
        open_model = partial(
            context.open, head=context.pretraining_head, classes=context.inputs.vocabulary.size, labels=None, seed=seed
        )
        data = corpus_objective(context, corpus, seed)
        training_ids, validation_ids = corpus_ids(context, corpus)
        return _Lesson(
            model=open_model(start.path, training=training),
            data=data,
            example_ids=training_ids,
            teacher=_teacher_of(context, supervision, lambda path: open_model(path, training=None)),
            settings=training,
            validate=partial(validate_tokens, data, validation_ids, training.micro_batch_tokens, context.hardware),
        )

    settings = {
        # The corpus is an input; the rest of the section is another arm's.
        "pretraining": pretraining.model_dump(exclude={"corpus", "training", "distillation"}),
        "advice": _supervision_identity(None, supervision),
    }
    return _train_step(
        context,
        f"pre-train {spoken(arm.name)}",
        "pretrain",
        open_lesson,
        start=start,
        training=training,
        distillation=pretraining.distillation if supervision else _NO_DISTILLATION,
        draws=draws,
        seed=seed,
        settings=settings,
        inputs=(corpus, *start.inputs, *(supervision.inputs if supervision else ())),
    )


def finetune_step(
    context: RunContext,
    arm: Arm,
    task: Task,
    rows: Step,
    start: ModelSource,
    supervision: Supervision | None,
    budget: Budget,
    seed: int,
) -> Step:
    """The task's objective on its rows, with distillation where the teacher gives supervision."""
    training = training_of(arm)

    def open_lesson() -> _Lesson:
        data = training_objective(context, task, rows, supervision, seed)
        checked_on = TASK_OBJECTIVES[task.objective].for_validation(task)
        validation = task_objective(context, checked_on, rows, "validation")
        return _Lesson(
            model=open_for_task(context, task, rows, start.path, training, seed),
            data=data,
            example_ids=np.arange(len(data.lengths_N)) if supervision else data.gold_ids,
            teacher=_teacher_of(context, supervision, lambda path: open_for_task(context, task, rows, path, None, 0)),
            # Over the gold texts, also where the teacher's own are longer: the control takes as many.
            settings=with_steps_over(budget, training, task_objective(context, task, rows, "train")),
            validate=partial(validate_task, validation, task, training.micro_batch_tokens, context.hardware),
        )

    settings = {
        "budget": budget,
        "task": task.model_dump(exclude=NOT_OF_THE_ROWS),
        "metric": task.metric_names[0],
        "advice": _supervision_identity(task, supervision),
    }
    return _train_step(
        context,
        f"fine-tune {spoken(arm.name)} on {task.name}, seed {seed}",
        "finetune",
        open_lesson,
        start=start,
        training=training,
        distillation=arm.recipe.fine_tuning.distillation if supervision else _NO_DISTILLATION,
        draws=None,
        seed=seed,
        settings=settings,
        inputs=(rows, *start.inputs, *(supervision.inputs if supervision else ())),
        languages=task.languages,
    )


def training_of(arm: Arm) -> Training:
    """How an arm is fine-tuned."""
    fine_tuning = arm.recipe.fine_tuning
    return fine_tuning.training if arm.is_small else fine_tuning.teacher_training or fine_tuning.training


def training_objective(
    context: RunContext, task: Task, rows: Step, supervision: Supervision | None, seed: int
) -> Objective:
    """The training rows of a task; for a student in sequence-level distillation, with the teacher's own outputs."""
    if supervision is None or supervision.sequences is None:
        return task_objective(context, task, rows, "train")
    assert task.sequence_distillation is not None
    return with_teacher_targets(context, task, rows, supervision.sequences, task.sequence_distillation.ratio, seed)


def with_teacher_targets(
    context: RunContext, task: Task, rows: Step, sequences: Step, ratio: float, seed: int = 0
) -> Objective:
    """The training rows of a task, the share `ratio` of them with what the teacher wrote in place of the gold text."""
    data = task_objective(context, task, rows, "train")
    assert isinstance(data, Translation)
    return data.with_teacher_targets(TokenTable(sequences.directory / TEACHER_TARGETS), ratio, seed)


def _teacher_of(
    context: RunContext, supervision: Supervision | None, open_model: Callable[[Path], HeadedModel]
) -> Teacher:
    if supervision is not None and supervision.captured is not None:
        return StoredTeacher(supervision.captured.store())
    if supervision is not None and supervision.live is not None:
        return LiveTeacher(open_model(supervision.live.path), context.hardware.precision)
    return NoTeacher()


def _supervision_identity(task: Task | None, supervision: Supervision | None) -> Any:
    if supervision is None:
        return None
    mixture = task.sequence_distillation if task and supervision.sequences else None
    return {"live": supervision.live and supervision.live.identity, "mixture": mixture and mixture.model_dump()}


def _save(model: Any, context: RunContext, result: Path, languages: Languages | None = None) -> None:
    with quiet_transformers():
        model.save_pretrained(result / MODEL)
    tokenizer_between(context.inputs.tokenizer, languages).save_pretrained(result / MODEL)


def what_matters(training: Training) -> dict[str, Any]:
    """The settings that change the result: not how often it is saved."""
    return training.model_dump(exclude={"checkpoint_seconds"})
