"""Every objective by its word in the recipe: what prepares its data and what makes its batches."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lightpaff.data.corpus import Arrangement
from lightpaff.data.task_sources import TaskSources
from lightpaff.objectives import classify, clm, mlm, mssm, translate
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe import Pretraining, Task


class OpenSplit(Protocol):
    """Opens `train`, `validation` or `test` of a prepared task; the seed is that of the draws, if any."""

    def __call__(self, task: Task, rows: Path, split: str, vocabulary: Vocabulary, seed: int = 0) -> Objective:
        """The split as an objective."""
        ...


@dataclass(frozen=True)
class PretrainingObjective:
    """Stage one.

    Attributes:
        arrange: how the objective wants the corpus.
        open_corpus: the objective over what was written so.
    """

    arrange: Callable[[Pretraining, Vocabulary], Arrangement]
    open_corpus: Callable[[Path, Pretraining, Vocabulary, int], Objective]


@dataclass(frozen=True)
class TaskObjective:
    """Stage two.

    Attributes:
        prepare_rows: checks and tokenises all splits into a folder, and returns their data cards.
        open_split: one of them as an objective.
    """

    prepare_rows: Callable[[Task, TaskSources, Vocabulary, Path, Callable[[int], None]], list[dict[str, Any]]]
    open_split: OpenSplit


PRETRAINING_OBJECTIVES = {
    "mlm": PretrainingObjective(mlm.arrange, mlm.open_corpus),
    "clm": PretrainingObjective(clm.arrange, clm.open_corpus),
    "mssm": PretrainingObjective(mssm.arrange, mssm.open_corpus),
}

TASK_OBJECTIVES = {
    "classify": TaskObjective(classify.prepare_rows, classify.open_split),
    "regress": TaskObjective(classify.prepare_rows, classify.open_split),
    "clm": TaskObjective(clm.prepare_rows, clm.open_split),
    "translate": TaskObjective(translate.prepare_rows, translate.open_split),
}
