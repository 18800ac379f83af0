"""A model in PyTorch as one that answers batches, in its own precision or in that of the autocast around it.

Shapes: P target positions, C positions of one chunk, V classes.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lightpaff.evaluation.generation import Search, generate
from lightpaff.models.headed import HeadedModel
from lightpaff.models.projection import project
from lightpaff.objectives.batch import Batch

_POSITIONS_AT_ONCE = 512


class ModelAnswers:
    """See `Answerer`. The model is put into evaluation mode.

    Args:
        model: on `device`.
        device: where the batches go.
    """

    def __init__(self, model: HeadedModel, device: torch.device) -> None:
        self._model, self._device = model.eval(), device

    @torch.inference_mode()
    def logits(self, batch: Batch) -> Tensor:
        """The projection's at the target positions alone."""
        batch = batch.to(self._device)
        return self._model.logits(batch.inputs, batch.positions_P).float().cpu()

    @torch.inference_mode()
    def nll(self, batch: Batch) -> NDArray[np.float64]:
        """The logits are never rounded to bf16; no more than 512 positions x V are in memory."""
        batch = batch.to(self._device)
        features_PD = self._model.features(batch.inputs, batch.positions_P)
        parts = []
        for start in range(0, len(features_PD), _POSITIONS_AT_ONCE):
            chunk = slice(start, start + _POSITIONS_AT_ONCE)
            logits_CV = project(features_PD[chunk], self._model.weight_VD, self._model.bias_V)
            parts.append(functional.cross_entropy(logits_CV, batch.labels_P[chunk], reduction="none").double())
        nll_P: NDArray[np.float64] = torch.cat(parts).cpu().numpy()
        return nll_P

    def write(self, inputs: dict[str, Tensor], search: Search) -> list[list[int]]:
        """By transformers' own generation."""
        on_device = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        rows = generate(self._model.model, on_device, search)
        return [[int(id_) for id_ in row if id_ != search.end_id] for row in rows]
