"""What the steps of a run share: its inputs and hardware, its models, and the tasks' data."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightpaff.data.corpus import held_out
from lightpaff.data.token_table import TokenTable
from lightpaff.models.families import PRETRAINING_HEADS
from lightpaff.models.fetching import FetchedModel
from lightpaff.models.headed import HeadedModel
from lightpaff.models.opening import NAMED_CLASSES, open_headed
from lightpaff.objectives.few_classes import read_labels
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.table import PRETRAINING_OBJECTIVES, TASK_OBJECTIVES
from lightpaff.pipeline.data_steps import SEQUENCES
from lightpaff.pipeline.environment import what_decides_bits
from lightpaff.pipeline.graph import Step
from lightpaff.pipeline.inputs import Inputs
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import Task
from lightpaff.recipe_training import Training
from lightpaff.training.device import Hardware

MODEL = "model"


@dataclass(frozen=True)
class ModelSource:
    """The model that a training starts from: a directory that is there, or the result of a step.

    Attributes:
        identity: what fingerprints say of it besides the step.
    """

    path: Path
    step: Step | None
    identity: str

    @classmethod
    def of_fetched(cls, model: FetchedModel) -> "ModelSource":
        """Start from a ready-made model."""
        return cls(model.path, None, model.identity)

    @classmethod
    def of_step(cls, step: Step) -> "ModelSource":
        """Start from a step's model."""
        return cls(step.directory / MODEL, step, "step")

    @property
    def inputs(self) -> tuple[Step, ...]:
        """The step, if any, that must be done before."""
        return (self.step,) if self.step else ()


@dataclass(frozen=True)
class RunContext:
    """What all training steps of a run share.

    Attributes:
        made_with: see `what_decides_bits`; of a finished run, what it was made with.
    """

    recipe: Recipe
    inputs: Inputs
    hardware: Hardware
    root: Path
    made_with: dict[str, str] = field(default_factory=what_decides_bits)

    @property
    def settings(self) -> dict[str, Any]:
        """What the result of any step with a model depends on besides its own section of the recipe."""
        return {
            "device": self.hardware.device.type,
            "precision": self.hardware.precision,
            "attention": self.hardware.attention,
            "made with": self.made_with,
            **({} if self.hardware.deterministic else {"deterministic": False}),
        }

    def open(
        self, path: Path, head: str, classes: int, training: Training | None, labels: list[str] | None, seed: int
    ) -> HeadedModel:
        """Open a model directory on this run's device."""
        return open_headed(
            path,
            head,
            classes,
            device=self.hardware.device,
            attention=self.hardware.attention,
            dropout=training.dropout if training else None,
            labels=labels,
            seed=seed,
        )

    @property
    def pretraining_head(self) -> str:
        """What the family predicts in pre-training."""
        return PRETRAINING_HEADS[self.recipe.family]


def evaluation_splits(task: Task) -> list[str]:
    """The splits that are evaluated; the last one is the one to report."""
    return ["validation", "test"] if task.test else ["validation"]


def open_for_task(
    context: RunContext, task: Task, rows: Step, path: Path, training: Training | None, seed: int
) -> HeadedModel:
    """Open a model with the head of a task."""
    data = task_objective(context, task, rows, "validation")
    labels = read_labels(rows.directory) if data.head in NAMED_CLASSES else []
    return context.open(path, data.head, data.number_of_classes, training, labels or None, seed)


def task_objective(context: RunContext, task: Task, rows: Step, split: str) -> Objective:
    """A split of a prepared task as the objective of a training."""
    return TASK_OBJECTIVES[task.objective].open_split(task, rows.directory, split, context.inputs.vocabulary)


def corpus_objective(context: RunContext, corpus: Step, seed: int | None = None) -> Objective:
    """The pre-training objective over the prepared corpus, with the masks of this seed; left out, of the students'."""
    pretraining = context.recipe.pretraining
    assert pretraining is not None
    return PRETRAINING_OBJECTIVES[pretraining.objective].open_corpus(
        corpus.directory / SEQUENCES,
        pretraining,
        context.inputs.vocabulary,
        context.recipe.seeds.pretraining if seed is None else seed,
    )


def corpus_ids(context: RunContext, corpus: Step) -> tuple[np.ndarray, np.ndarray]:
    """The prepared corpus's row numbers for training and for validation."""
    pretraining = context.recipe.pretraining
    assert pretraining is not None
    return held_out(TokenTable(corpus.directory / SEQUENCES), pretraining.validation_fraction)
