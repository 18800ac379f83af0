"""Text to tokens: the pre-training corpus and the tasks' rows."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightpaff.data.corpus import prepare_corpus
from lightpaff.data.evaluation_texts import read_evaluation_texts
from lightpaff.data.sources import source_identity
from lightpaff.data.task_sources import TaskSources
from lightpaff.files import write_json_whole
from lightpaff.objectives.table import PRETRAINING_OBJECTIVES, TASK_OBJECTIVES
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.pipeline.inputs import Inputs
from lightpaff.progress import progress_bar
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import Task

SEQUENCES = "sequences.arrow"
CARD = "card.json"
NOT_OF_THE_ROWS = {
    # A name for people.
    "name",
    # Inputs, by content.
    "train",
    "validation",
    "test",
    "unlabelled",
    "teacher",
    # How a trained model is evaluated, and what else the teacher wrote: in the fingerprints of those steps.
    "metrics",
    "stride",
    "generation",
    "sequence_distillation",
}
"""The keys of a task that neither its prepared rows nor, by themselves, its trainings depend on."""


@dataclass(frozen=True)
class TaskData:
    """The prepared rows of a task.

    Attributes:
        rows: all of them.
        labelled: the same without those of `unlabelled`: all that the task's teacher learns from, so that recipes which
            differ in the others share it.
    """

    rows: Step
    labelled: Step

    @property
    def steps(self) -> list[Step]:
        """What is to be done: one step where every row has its label."""
        return [self.rows] if self.labelled is self.rows else [self.rows, self.labelled]


def read_warnings(rows: Step) -> list[str]:
    """What makes a prepared task's scores say less than they seem to."""
    cards: list[dict[str, Any]] = json.loads((rows.directory / CARD).read_text())
    return [warning for card in cards for warning in card["warnings"]]


def corpus_step(recipe: Recipe, inputs: Inputs, root: Path) -> Step:
    """Read, clean, leak-check, tokenise and arrange the pre-training text."""
    pretraining = recipe.pretraining
    assert pretraining is not None
    evaluated = inputs.sources.evaluated(recipe.tasks)

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        with progress_bar(step.name, None, "texts") as advance:
            card = prepare_corpus(
                inputs.sources.corpus,
                inputs.tokenizer,
                PRETRAINING_OBJECTIVES[pretraining.objective].arrange(pretraining, inputs.vocabulary),
                read_evaluation_texts(evaluated),
                folders.result / SEQUENCES,
                advance,
            )
        write_json_whole(folders.result / CARD, card)
        return {"sequences": card["facts"]["sequences"], "tokens": card["facts"]["tokens"]}

    settings = {
        # How batches are made of the rows, and what is trained on them: in the fingerprints of the trainings.
        "pretraining": pretraining.model_dump(
            exclude={"corpus", "validation_fraction", "mask_rate", "fragment_ratio", "training", "distillation"}
        ),
        "sources": source_identity(inputs.sources.corpus),
        "tokenizer": inputs.tokenizer_identity,
        "evaluated": [rows.identity for rows in evaluated],
    }
    return Step("prepare the pre-training text", "corpus", settings, (), root, work)


def task_data(task: Task, inputs: Inputs, root: Path) -> TaskData:
    """Check, label and tokenise a task's rows."""
    sources = inputs.sources.tasks[task.name]
    rows = _rows_step(f"prepare the rows of {task.name}", task, sources, inputs, root)
    if not sources.unlabelled:
        return TaskData(rows, rows)
    labelled = replace(sources, unlabelled=[])
    return TaskData(rows, _rows_step(f"prepare the labelled rows of {task.name}", task, labelled, inputs, root))


def _rows_step(name: str, task: Task, sources: TaskSources, inputs: Inputs, root: Path) -> Step:
    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        with progress_bar(step.name, None, "rows") as advance:
            cards = TASK_OBJECTIVES[task.objective].prepare_rows(
                task, sources, inputs.vocabulary, folders.result, advance
            )
        write_json_whole(folders.result / CARD, cards)
        return {card["split"]: card["facts"]["rows"] for card in cards}

    settings = {
        "task": task.model_dump(exclude=NOT_OF_THE_ROWS),
        # Whose tags have to mark entities is seen when the rows are prepared.
        **({"metrics": task.metric_names} if task.objective == "tag" else {}),
        "train": source_identity(sources.train),
        "unlabelled": source_identity(sources.unlabelled),
        "validation": source_identity(sources.validation),
        "test": source_identity(sources.test),
        "tokenizer": inputs.tokenizer_identity,
    }
    return Step(name, "task", settings, (), root, work)
