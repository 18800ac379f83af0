"""Asking models: the teacher for what students learn from, and every fine-tuned model for what is scored."""

from typing import Any

import numpy as np

from lightpaff.objectives.model_answers import ModelAnswers
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.objectives.translate import Translation, write_rows, write_targets
from lightpaff.pipeline.arms import spoken
from lightpaff.pipeline.context import ModelSource, RunContext, evaluation_splits, open_for_task, task_objective
from lightpaff.pipeline.data_steps import NOT_OF_THE_ROWS
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.pipeline.training_steps import TEACHER_TARGETS
from lightpaff.recipe_sections import Task


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
        # Cut as gold targets are: with its end, a row is no longer than they may be.
        rows_T = (np.array([*row[: task.max_target_length - 1], end], dtype=np.int32) for row in written)
        write_targets(folders.result / TEACHER_TARGETS, rows_T)
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
