"""A teacher is one method: the soft targets of a batch. Here: asked live, stored, or none."""

from typing import Protocol

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.batch import Batch
from lightpaff.targets.soft_targets import Projected, SoftTargets, Stored
from lightpaff.targets.store import TargetStore


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
    """A frozen model in evaluation mode, asked at every batch: for pre-training, where no text is seen twice.

    Args:
        model: the teacher; its weights are changed as `precision` says.
        precision: `bf16` where autocast asks for it: matrices are then rounded once, not at every batch, to the same
            bits.
    """

    def __init__(self, model: HeadedModel, precision: str = "float32") -> None:
        self._model = model.eval().requires_grad_(False)
        if precision == "bf16":
            _round_matrices(model)

    def targets(self, batch: Batch) -> Projected:
        """The features and the projection; the logits are made chunk by chunk by the loss."""
        with torch.no_grad():
            return Projected(*self._model.output_layer(batch.inputs, batch.positions_P))


def _round_matrices(model: HeadedModel) -> None:
    """Round what autocast would: the matrices of the trunk and their biases, but none that is an embedding table too,
    or the output layer, whose products are kept in float32."""
    exact = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    exact |= {id(weight) for weight in model.projection_weights()}
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D) and id(module.weight) not in exact:
            module.to(torch.bfloat16)


class StoredTeacher:
    """Soft targets that were captured once, reused in each epoch, by each student and seed.

    Args:
        store: of these examples.
    """

    def __init__(self, store: TargetStore) -> None:
        self._store = store

    def targets(self, batch: Batch) -> Stored:
        """The stored soft targets of a batch on the CPU.

        Raises:
            UserError: some of them were not captured.
        """
        return self._store.read(batch.keys_B, batch.counts_B, batch.draw)
