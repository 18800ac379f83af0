"""A teacher is one method: the soft targets of a batch. Here: asked live, stored, or none."""

from pathlib import Path
from typing import Protocol

import torch

from lightpaff.errors import UserError
from lightpaff.evaluation.metrics import read_logits
from lightpaff.models.headed import HeadedModel
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
            features_PD = self._model.features(batch.inputs, batch.positions_P)
        return Projected(features_PD, self._model.weight_VD, self._model.bias_V)


class StoredTeacher:
    """Logits captured once an example, reused in each epoch: for classification, where nothing is drawn.

    Raises:
        UserError: when the file is no store, or not of `examples` examples.
    """

    def __init__(self, path: Path, examples: int, device: torch.device) -> None:
        self._logits_NV = torch.from_numpy(read_logits(path)).to(device)
        if len(self._logits_NV) != examples:
            raise UserError(
                f"{path}: holds soft targets of {len(self._logits_NV)} examples, but the data has {examples}; "
                "delete its folder and run again"
            )

    def targets(self, batch: Batch) -> Dense:
        """The stored logits of the batch's examples."""
        return Dense(self._logits_NV.index_select(0, batch.example_ids_B))
