"""The one batch that every objective makes, and everything after it takes.

Shapes: B examples, S tokens, P target positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NO_GOLD_LABEL = -100
"""Marks a target position without a gold class: only the teacher's term applies there."""


@dataclass(frozen=True)
class Batch:
    """Model inputs with the positions to predict.

    Attributes:
        inputs: what the trunk takes, by argument name (`input_ids` B x S, `attention_mask` B x S, ...).
        positions_P: int64 indices into the B*S flattened hidden states, ascending.
        labels_P: int64 gold classes, `NO_GOLD_LABEL` where there is none; float32 scores for regression, NaN where
            there is none.
        example_ids_B: int64 row numbers of the examples in their data set.
        keys_B: what the examples' contents are known by (`data/draws.py`), corrupted or not; on the CPU.
        draw: which corruption of the examples this is (the epoch, for MLM); 0 where nothing is drawn.
    """

    inputs: dict[str, Tensor]
    positions_P: Tensor
    labels_P: Tensor
    example_ids_B: Tensor
    keys_B: NDArray[np.uint64]
    draw: int

    @property
    def counts_B(self) -> NDArray[np.int64]:
        """How many target positions each example has; of a batch on the CPU."""
        rows, width = self.inputs.get("decoder_input_ids", self.inputs["input_ids"]).shape
        return np.bincount(self.positions_P.numpy() // width, minlength=rows).astype(np.int64)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The same batch with every tensor changed."""
        return replace(
            self,
            inputs={name: change(value) for name, value in self.inputs.items()},
            positions_P=change(self.positions_P),
            labels_P=change(self.labels_P),
            example_ids_B=change(self.example_ids_B),
        )

    def to(self, device: torch.device) -> "Batch":
        """The same batch with every tensor on `device`."""
        return self.map(partial(Tensor.to, device=device, non_blocking=True))
