"""A teacher is one method: the soft targets of a batch. Here: asked live, stored, or none."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from lightpaff.errors import UserError
from lightpaff.evaluation.metrics import read_logits
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.answers import target_rows
from lightpaff.objectives.batch import Batch
from lightpaff.targets.soft_targets import Dense, Projected, SoftTargets


class Teacher(Protocol):
    """Who knows the soft targets."""

    def targets(self, batch: Batch) -> SoftTargets | None:
        """What the teacher says at the batch's target positions; None when nobody is asked."""
        ...


class NoTeacher:
    """Ordinary training: the control."""

    def targets(self, batch: Batch) -> None:
        """Nothing."""
        return None


class LiveTeacher:
    """A frozen model in evaluation mode, asked at every batch: for pre-training, where no text is seen twice."""

    def __init__(self, model: HeadedModel) -> None:
        self._model = model.eval().requires_grad_(False)

    def targets(self, batch: Batch) -> Projected:
        """The features and the projection; the logits are made chunk by chunk by the loss."""
        with torch.no_grad():
            return Projected(*self._model.output_layer(batch.inputs, batch.positions_P))


class StoredTeacher:
    """Logits captured once a target, reused in each epoch: where nothing is drawn and the classes are few.

    Args:
        path: what `write_logits` wrote: T x V.
        targets_N: the target positions of each example; they sum to T.
        device: where the batches are.

    Raises:
        UserError: when the file is no store, or not of so many targets.
    """

    def __init__(self, path: Path, targets_N: np.ndarray, device: torch.device) -> None:
        self._logits_TV = torch.from_numpy(read_logits(path)).to(device)
        self._targets_N = torch.from_numpy(targets_N.astype(np.int64)).to(device)
        if len(self._logits_TV) != (targets := int(targets_N.sum())):
            raise UserError(
                f"{path}: holds soft targets of {len(self._logits_TV)} positions, but the data has {targets}; "
                "delete its folder and run again"
            )

    def targets(self, batch: Batch) -> Dense:
        """The stored logits of the batch's targets."""
        return Dense(self._logits_TV.index_select(0, target_rows(self._targets_N, batch)))
