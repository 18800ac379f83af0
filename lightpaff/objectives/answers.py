"""Models are asked batch by batch, whatever they run in: what they can be asked, and the one walk over a data set.

Shapes: N examples, P target positions, V classes.
"""

import contextlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightpaff.data.batch_order import sequential_batches
from lightpaff.evaluation.generation import Search
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import Objective
from lightpaff.progress import progress_bar


class Answerer(Protocol):
    """A trained model or an export; each answers what its head can."""

    def logits(self, batch: Batch) -> Tensor:
        """At the target positions: float32, P x V, on the CPU."""
        ...

    def nll(self, batch: Batch) -> NDArray[np.float64]:
        """-log P of the gold class at every target position, in nats: P."""
        ...

    def write(self, inputs: dict[str, Tensor], search: Search) -> list[list[int]]:
        """For every source the token ids that the search finds, without the start token and the end token."""
        ...


def ask_logits(
    answerer: Answerer,
    data: Objective,
    tokens_at_once: int,
    description: str | None = None,
    example_ids: NDArray[np.int64] | None = None,
) -> Tensor:
    """The logits for every example of `data`, one target each, in order: float32 N x V, on the CPU.

    With a description, progress is shown under it; with example ids, the other rows are NaN.
    """
    logits_NV = torch.full((len(data.lengths_N), data.number_of_classes), torch.nan)
    for ids in walk(data, tokens_at_once, description, example_ids=example_ids):
        logits_NV[torch.from_numpy(ids)] = answerer.logits(data.batch(ids, draw=0))
    return logits_NV


def ask_nll(
    answerer: Answerer, data: Objective, tokens_at_once: int, description: str | None = None, unit: str = "rows"
) -> NDArray[np.float64]:
    """The sum of -log P(gold class) over the targets of every example, in nats: N, in order."""
    nll_N = np.zeros(len(data.lengths_N))
    for ids in walk(data, tokens_at_once, description, unit):
        rows_P = np.repeat(np.arange(len(ids)), data.targets_N[ids])
        nll_N[ids] = np.bincount(rows_P, answerer.nll(data.batch(ids, draw=0)), minlength=len(ids))
    return nll_N


def walk(
    data: Objective,
    tokens_at_once: int,
    description: str | None,
    unit: str = "rows",
    example_ids: NDArray[np.int64] | None = None,
) -> Iterator[NDArray[np.int64]]:
    """The examples in batches of like lengths; with a description, progress is shown under it."""
    asked = np.arange(len(data.lengths_N)) if example_ids is None else example_ids
    shown = progress_bar(description, len(asked), unit) if description else contextlib.nullcontext(None)
    with shown as advance:
        for ids in sequential_batches(data.lengths_N, asked, tokens_at_once):
            yield ids
            if advance is not None:
                advance(len(ids))
