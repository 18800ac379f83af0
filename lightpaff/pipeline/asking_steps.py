"""Asking models: the teacher for what students learn from, and every fine-tuned model for what is scored."""

from typing import Any

import numpy as np

from lightpaff.data.batch_order import BatchOrder
from lightpaff.evaluation.metrics import write_logits
from lightpaff.objectives.answers import TOKENS_PREDICTED_TOGETHER, ask_logits
from lightpaff.objectives.model_answers import ModelAnswers
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.objectives.translate import Translation, write_rows, write_targets
from lightpaff.pipeline.arms import Arm, spoken
from lightpaff.pipeline.context import ModelSource, RunContext, evaluation_splits, open_for_task, task_objective
from lightpaff.pipeline.data_steps import NOT_OF_THE_ROWS
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.pipeline.training_steps import SOFT_TARGETS, TEACHER_TARGETS, what_matters
from lightpaff.recipe_sections import Task, Training
from lightpaff.training.loop import count_steps


def capture_step(context: RunContext, arm: Arm, task: Task, rows: Step, teacher: ModelSource) -> Step:
    """Ask the fine-tuned teacher once for its logits of every training row that a student will see."""
    training, seeds = arm.recipe.fine_tuning.training, context.recipe.seeds.fine_tuning

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        data = task_objective(context, task, rows, "train")
        model = open_for_task(context, task, rows, teacher.path, None, 0)
        ids = _seen_ids(training, seeds, data)
        with context.hardware.autocast():
            answerer = ModelAnswers(model, context.hardware.device)
            logits_TV = ask_logits(answerer, data, TOKENS_PREDICTED_TOGETHER, step.name, ids)
        write_logits(folders.result / SOFT_TARGETS, logits_TV.numpy())
        return {"rows": len(ids)}

    # With a whole epoch every row is seen, and the captured answers serve any budget.
    is_part = training.epochs is None or training.epochs < 1
    seen_by = {"training": what_matters(training), "seeds": seeds} if is_part else "every epoch"
    settings = {**context.settings, "teacher": teacher.identity, "seen by": seen_by}
    name = f"capture the teacher's soft targets for {task.name}"
    return Step(name, "capture", settings, (rows, *teacher.inputs), context.root, work)


def _seen_ids(training: Training, seeds: list[int], data: Objective) -> np.ndarray:
    """The training rows that are in some batch of some seed."""
    ids = np.arange(len(data.lengths_N))
    seen = np.zeros(len(ids), dtype=bool)
    for seed in seeds:
        order = BatchOrder(data.lengths_N, ids, training.batch_size, training.micro_batch_tokens, seed)
        for step in range(min(count_steps(training, data.lengths_N, order.steps_per_epoch), order.steps_per_epoch)):
            seen[np.concatenate(order.micro_batches(step)[1])] = True
    return np.flatnonzero(seen)


def sequences_step(context: RunContext, task: Task, rows: Step, teacher: ModelSource) -> Step:
    """Let the fine-tuned teacher write its own targets for every training row, by beam search (Kim and Rush 2016)."""

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        data = task_objective(context, task, rows, "train")
        assert isinstance(data, Translation)
        vocabulary = context.inputs.vocabulary
        model = open_for_task(context, task, rows, teacher.path, None, 0)
        with context.hardware.autocast():
            written = write_rows(ModelAnswers(model, context.hardware.device), data, task, vocabulary, step.name)
        end = np.int32(vocabulary.tokenizer.eos_token_id)
        write_targets(folders.result / TEACHER_TARGETS, (np.array([*row, end], dtype=np.int32) for row in written))
        return {"rows": len(written)}

    settings = {**context.settings, "teacher": teacher.identity, "generation": task.generation.model_dump()}
    name = f"let the teacher write the targets of {task.name}"
    return Step(name, "sequences", settings, (rows, *teacher.inputs), context.root, work)


def predict_step(context: RunContext, arm: str, task: Task, rows: Step, model: ModelSource, seed: int) -> Step:
    """A fine-tuned model's outputs for the validation and test rows, in float32, as it will be used."""

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        opened = open_for_task(context, task, rows, model.path, None, 0)
        for split in evaluation_splits(task):
            data = task_objective(context, task, rows, split)
            TASK_OBJECTIVES[task.objective].answer(
                ModelAnswers(opened, context.hardware.device),
                data,
                task,
                context.inputs.vocabulary,
                folders.result / split,
                f"{step.name} ({split})",
            )
        return {}

    settings = {
        "device": context.hardware.device.type,
        "made with": context.made_with,
        "start": model.identity,
        "splits": evaluation_splits(task),
        # The rows are an input.
        "task": task.model_dump(exclude=NOT_OF_THE_ROWS - {"stride", "generation"}),
    }
    name = f"predict with {spoken(arm)} on {task.name}, seed {seed}"
    return Step(name, "predict", settings, (rows, *model.inputs), context.root, work)
