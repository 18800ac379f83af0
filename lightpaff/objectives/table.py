"""Every objective by its word in the recipe.

An objective is a file of this room, from rows to scores.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from lightpaff.data.corpus import Arrangement
from lightpaff.data.task_sources import TaskSources
from lightpaff.evaluation.outputs import ChoosingOutputs, Outputs
from lightpaff.objectives import answer, classify, clm, mlm, mssm, tag, translate
from lightpaff.objectives.answers import Answerer
from lightpaff.objectives.objective import AnswerWords, Objective
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Pretraining, Task


class PretrainingObjective(Protocol):
    """Stage one: what a file offers that prepares a corpus."""

    @property
    def draws_anew(self) -> bool:
        """Whether every epoch sees another masking of the same text."""
        ...

    def arrange(self, pretraining: Pretraining, vocabulary: Vocabulary) -> Arrangement:
        """How the objective wants the corpus."""
        ...

    def open_corpus(self, path: Path, pretraining: Pretraining, vocabulary: Vocabulary, seed: int) -> Objective:
        """The objective over what was written so; the seed is that of the draws, if any."""
        ...


class TaskObjective(Protocol):
    """Stage two: what a file offers that prepares a task, asks models and scores what they answer.

    Attributes:
        counted: what scores and intervals are over.
        has_baseline: TF-IDF with a linear model can do the task.
    """

    counted: str
    has_baseline: bool

    def prepare_rows(
        self, task: Task, sources: TaskSources, vocabulary: Vocabulary, result: Path, advance: Callable[[int], None]
    ) -> list[dict[str, Any]]:
        """Check and tokenise all splits into the folder `result`; their data cards."""
        ...

    def open_split(self, task: Task, rows: Path, split: str, vocabulary: Vocabulary) -> Objective:
        """`train`, `validation` or `test` of a prepared task."""
        ...

    def for_validation(self, task: Task) -> Task:
        """The task as the loop validates it: cheaper, where evaluation costs much."""
        ...

    def answer(
        self, answerer: Answerer, data: Objective, task: Task, vocabulary: Vocabulary, path: Path, description: str
    ) -> None:
        """Ask a model about a split and write what it says; `path` is the file without its ending."""
        ...

    def read_outputs(self, path: Path, data: Objective) -> Outputs:
        """What was written so, with the gold answers."""
        ...

    def answer_words(self, task: Task) -> AnswerWords:
        """How the report speaks of the answers."""
        ...

    def describe_timing(self, task: Task) -> str:
        """What one measurement of the latency is."""
        ...

    def timing_inputs(self, data: Objective, count: int, turn: int, device: torch.device) -> dict[str, torch.Tensor]:
        """`count` inputs drawn from the data, for one measurement; `turn` numbers the draws."""
        ...

    def answer_tokens(self, task: Task) -> int:
        """How many tokens an answer has; at most, where the model may end sooner."""
        ...

    def run(
        self,
        model: PreTrainedModel,
        data: Objective,
        task: Task,
        vocabulary: Vocabulary,
        inputs: dict[str, torch.Tensor],
    ) -> object:
        """What is timed."""
        ...

    def describe_export(self, task: Task, rows: Path, data: Objective, vocabulary: Vocabulary) -> dict[str, Any]:
        """What an export's card says of the task: its `kind`, and how it is used."""
        ...

    def describe_use(self, directory: Path, data: Objective, task: Task, vocabulary: Vocabulary) -> None:
        """Write into a delivered model's directory how it is meant to be used."""
        ...

    def notes(self, task: Task, outputs: Outputs) -> dict[str, str]:
        """What the report says beside the scores."""
        ...


class FewClasses(TaskObjective, Protocol):
    """One whose logits are few enough to keep: the teacher is asked once for every training row, and the best
    checkpoint is that with the best first metric. Of the others it is asked at every batch or in part beforehand,
    and the best checkpoint is that with the best likelihood of the gold targets."""

    def outputs_of(self, logits_TV: NDArray[np.float32], data: Objective) -> ChoosingOutputs:
        """The logits at all targets of the data, with its gold answers."""
        ...


PRETRAINING_OBJECTIVES: dict[str, PretrainingObjective] = {"mlm": mlm, "clm": clm, "mssm": mssm}

WITH_FEW_CLASSES: dict[str, FewClasses] = {"classify": classify, "regress": classify, "tag": tag, "answer": answer}

TASK_OBJECTIVES: dict[str, TaskObjective] = {**WITH_FEW_CLASSES, "clm": clm, "translate": translate}


def draw_timed_rows(task: Task, data: Objective, count: int, turn: int) -> tuple[tuple[int, ...], ...]:
    """Token ids of `count` inputs drawn from the data, as they are timed; `turn` numbers the draws."""
    inputs = TASK_OBJECTIVES[task.objective].timing_inputs(data, count, turn, torch.device("cpu"))
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    return tuple(tuple(ids[:length]) for ids, length in zip(inputs["input_ids"].tolist(), lengths, strict=True))
