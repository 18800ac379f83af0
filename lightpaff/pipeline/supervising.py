"""What each student hears of its teachers: laid out once the data is prepared, since it decides what is cheaper."""

from typing import Any

import numpy as np

from lightpaff.objectives.objective import Objective
from lightpaff.objectives.table import PRETRAINING_OBJECTIVES, WITH_FEW_CLASSES
from lightpaff.pipeline.arms import Arm
from lightpaff.pipeline.asking_steps import sequences_step
from lightpaff.pipeline.budget import epochs_of
from lightpaff.pipeline.capture_steps import Supervision, capture_pretraining, capture_task
from lightpaff.pipeline.context import ModelSource, RunContext, corpus_ids, corpus_objective, task_objective
from lightpaff.pipeline.graph import Step
from lightpaff.pipeline.target_choice import TargetChoice, choose_targets
from lightpaff.pipeline.training_steps import training_of, with_teacher_targets
from lightpaff.recipe_sections import Pretraining, Task
from lightpaff.recipe_training import Distillation


def choose_pretraining_targets(context: RunContext, corpus: Step, arm: Arm, small_arms: list[Arm]) -> TargetChoice:
    """For an arm, with those that can learn from the same soft targets; for one that hears nothing (the control) too:
    it sees the same maskings, as if it listened where it is alone (in a study)."""
    data, ids = corpus_objective(context, corpus), corpus_ids(context, corpus)[0]
    sections = [_pretraining_of(other) for other in small_arms]
    own = _pretraining_of(arm)
    epochs = [
        epochs_of(other.training, data, ids)
        for other in sections
        if _is_shared(own.distillation, other.distillation) and other.distillation.weight > 0
    ]
    own_epochs = epochs_of(own.training, data, ids)
    return choose_targets(
        own.distillation,
        own_epochs,
        sum(epochs) or own_epochs,
        draws_anew=PRETRAINING_OBJECTIVES[own.objective].draws_anew,
    )


def supervise_pretraining(
    context: RunContext, arm: Arm, corpus: Step, teacher: ModelSource, choice: TargetChoice
) -> Supervision | None:
    """What a student hears from the pre-trained teacher; nothing where λ is 0."""
    if _pretraining_of(arm).distillation.weight == 0:
        return None
    if choice.kind == "live":
        return Supervision(None, teacher, None)
    return Supervision(capture_pretraining(context, arm, corpus, teacher, choice), None, None)


def choose_task_targets(context: RunContext, task: Task, rows: Step, arm: Arm, small_arms: list[Arm]) -> TargetChoice:
    """For an arm, with those that can learn from the same soft targets, over all seeds."""
    data = task_objective(context, task, rows, "train")
    distillation = arm.recipe.fine_tuning.distillation
    if task.objective in WITH_FEW_CLASSES:
        return TargetChoice("dense", "its classes are few", min(1.0, _task_epochs(arm, data)))
    epochs = [
        _task_epochs(other, data)
        for other in small_arms
        if _is_shared(distillation, other.recipe.fine_tuning.distillation)
        and other.recipe.fine_tuning.distillation.weight > 0
    ]
    return choose_targets(
        distillation,
        _task_epochs(arm, data),
        sum(epochs) * len(context.recipe.seeds.fine_tuning),
        draws_anew=False,
        variants=2 if task.sequence_distillation else 1,
    )


def supervise_task(
    context: RunContext, arm: Arm, task: Task, rows: Step, teacher: ModelSource, choice: TargetChoice
) -> Supervision | None:
    """What a student hears from the task's teacher; nothing where λ is 0 and no outputs are wanted."""
    if arm.is_silenced:
        return None
    sequences = sequences_step(context, task, rows, teacher) if task.sequence_distillation else None
    if arm.recipe.fine_tuning.distillation.weight == 0:
        return None if sequences is None else Supervision(None, None, sequences)
    if choice.kind == "live":
        return Supervision(None, teacher, sequences)

    def open_data() -> list[Objective]:
        if sequences is None:
            return [task_objective(context, task, rows, "train")]
        # Either may be an example's target: the gold text and the teacher's own.
        return [with_teacher_targets(context, task, rows, sequences, ratio) for ratio in (0.0, 1.0)]

    captured = capture_task(context, arm, task, rows, teacher, choice, open_data, (sequences,) if sequences else ())
    return Supervision(captured, None, sequences)


def _pretraining_of(arm: Arm) -> Pretraining:
    assert arm.recipe.pretraining is not None
    return arm.recipe.pretraining


def _is_shared(one: Distillation, other: Distillation) -> bool:
    def without_weight(distillation: Distillation) -> dict[str, Any]:
        return distillation.model_dump(exclude={"weight"})

    return without_weight(one) == without_weight(other)


def _task_epochs(arm: Arm, data: Objective) -> float:
    return epochs_of(training_of(arm), data, np.arange(len(data.lengths_N)))
