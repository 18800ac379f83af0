"""Models are asked batch by batch, whatever they run in: what they can be asked, and the one walk over a data set.

Shapes: N examples, P target positions, T target positions of all examples, V classes.
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

TOKENS_PREDICTED_TOGETHER = 16384
"""Where logits are few."""


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
    """The logits at the targets of every example of `data`, in order: float32 T x V, on the CPU.

    With a description, progress is shown under it; with example ids, the others' are NaN.
    """
    targets_N = torch.from_numpy(data.targets_N.astype(np.int64))
    logits_TV = torch.full((int(targets_N.sum()), data.number_of_classes), torch.nan)
    for ids in walk(data, tokens_at_once, description, example_ids=example_ids):
        batch = data.batch(ids, draw=0)
        logits_TV[target_rows(targets_N, batch)] = answerer.logits(batch)
    return logits_TV


def target_rows(targets_N: Tensor, batch: Batch) -> Tensor:
    """Where the targets of a batch lie among those of all examples: int64, P; does not wait for the device.

    Args:
        targets_N: int64, the target positions of each example, on the batch's device.
        batch: of these examples.
    """
    counts_B = targets_N[batch.example_ids_B]
    starts_B = (targets_N.cumsum(0) - targets_N)[batch.example_ids_B]
    place_P = torch.arange(len(batch.positions_P), device=targets_N.device)
    shift_B = starts_B - (counts_B.cumsum(0) - counts_B)
    return place_P + shift_B.repeat_interleave(counts_B, output_size=len(place_P))


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
