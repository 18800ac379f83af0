"""A teacher is one method: the soft targets of a batch. Here: asked live, stored, or none."""

import contextlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from lightpaff.data.batch_order import sequential_batches
from lightpaff.errors import UserError
from lightpaff.files import write_whole
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import Objective
from lightpaff.progress import progress_bar
from lightpaff.targets.soft_targets import Dense, Projected, SoftTargets

LOGITS = "logits_NV"


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
        self._logits_NV = load_targets(path).to(device)
        if len(self._logits_NV) != examples:
            raise UserError(
                f"{path}: holds soft targets of {len(self._logits_NV)} examples, but the data has {examples}; "
                "delete its folder and run again"
            )

    def targets(self, batch: Batch) -> Dense:
        """The stored logits of the batch's examples."""
        return Dense(self._logits_NV.index_select(0, batch.example_ids_B))


def predict(
    model: HeadedModel,
    data: Objective,
    tokens_at_once: int,
    device: torch.device,
    description: str | None = None,
    example_ids: np.ndarray | None = None,
) -> Tensor:
    """The model's logits for every example of `data`, one target each, in order: float32 N x V, on the CPU.

    With a description, progress is shown under it; with example ids, the other rows are NaN.
    """
    count = len(data.lengths_N)
    asked = np.arange(count) if example_ids is None else example_ids
    logits_NV = torch.full((count, data.number_of_classes), torch.nan)
    model.eval()
    shown = progress_bar(description, len(asked), "rows") if description else contextlib.nullcontext(None)
    with torch.inference_mode(), shown as advance:
        for ids in sequential_batches(data.lengths_N, asked, tokens_at_once):
            batch = data.batch(ids, draw=0).to(device)
            logits_NV[torch.from_numpy(ids)] = model.logits(batch.inputs, batch.positions_P).float().cpu()
            if advance is not None:
                advance(len(ids))
    return logits_NV


def store_targets(logits_NV: Tensor, path: Path) -> None:
    """Write logits as a store that `StoredTeacher` reads."""
    write_whole(path, save({LOGITS: logits_NV.contiguous()}))


def load_targets(path: Path) -> Tensor:
    """The logits of a store, N x V.

    Raises:
        UserError: when the file is no store.
    """
    try:
        logits_NV: Tensor = load_file(path)[LOGITS]
    except (SafetensorError, KeyError, OSError) as error:
        raise UserError(f"{path}: is no store of soft targets; delete its folder and run again") from error
    return logits_NV
