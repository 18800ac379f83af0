"""The choice of the student that a run delivers, as a step: what is exported, checked and measured comes after it."""

import json
import shutil
from collections.abc import Mapping
from typing import Any

from lightpaff.deployment.tokenizer_writing import write_longest_text
from lightpaff.files import write_json_whole
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.pipeline.context import MODEL, ModelSource, RunContext, task_objective
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.pipeline.training_steps import TRAINING
from lightpaff.recipe_sections import Task

CHOICE = "choice.json"


def choose_step(context: RunContext, task: Task, rows: Step, students: Mapping[int, Step]) -> Step:
    """Keep the fine-tuned student with the best validation score, of equals the one with the lowest validation loss.

    Its directory is what the run delivers: it also says how the task's models are used.

    Args:
        students: the fine-tunings, by their seeds.
    """

    def rank(seed: int) -> tuple[float, float]:
        training = json.loads((students[seed].directory / TRAINING).read_text())
        return training["best_score"], -training["best_loss"]

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        seed, model = max(students, key=rank), folders.result / MODEL
        shutil.copytree(ModelSource.of_step(students[seed]).path, model)
        data = task_objective(context, task, rows, "validation")
        TASK_OBJECTIVES[task.objective].describe_use(model, data, task, context.inputs.vocabulary)
        write_longest_text(model, task.max_length)
        write_json_whole(folders.result / CHOICE, {"seed": seed})
        return {}

    settings = {"seeds": list(students), "generation": task.generation.model_dump()}
    return Step(
        f"choose the student of {task.name}", "choose", settings, (rows, *students.values()), context.root, work
    )


def chosen_seed(step: Step) -> int:
    """The seed of the student that `choose_step` chose."""
    return int(json.loads((step.directory / CHOICE).read_text())["seed"])
