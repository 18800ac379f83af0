"""How likely a model finds the gold tokens, example by example.

Shapes: P target positions, C positions of one chunk, V classes, N examples.
"""

from contextlib import nullcontext

import numpy as np
import torch
from torch.nn import functional

from lightpaff.data.batch_order import sequential_batches
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import Objective
from lightpaff.progress import progress_bar

_POSITIONS_AT_ONCE = 512


def measure_nll(
    model: HeadedModel, data: Objective, tokens_at_once: int, device: torch.device, description: str | None = None
) -> np.ndarray:
    """The sum of -log P(gold token) over the targets of every example, in nats: float64, N, in order.

    In the model's own precision; the softmax is in float32, the sum in float64. With a description, progress is shown.
    """
    count = len(data.lengths_N)
    nll_N = np.zeros(count)
    model.eval()
    shown = progress_bar(description, count, "windows") if description else nullcontext(None)
    with torch.inference_mode(), shown as advance:
        for ids in sequential_batches(data.lengths_N, np.arange(count), tokens_at_once):
            batch = data.batch(ids, draw=0).to(device)
            nll_P = _token_nll(model, batch)
            rows_P = np.repeat(np.arange(len(ids)), data.targets_N[ids])
            nll_N[ids] = np.bincount(rows_P, nll_P, minlength=len(ids))
            if advance is not None:
                advance(len(ids))
    return nll_N


def _token_nll(model: HeadedModel, batch: Batch) -> np.ndarray:
    features_PD = model.features(batch.inputs, batch.positions_P)
    parts = []
    for start in range(0, len(features_PD), _POSITIONS_AT_ONCE):
        chunk = slice(start, start + _POSITIONS_AT_ONCE)
        logits_CV = functional.linear(features_PD[chunk], model.weight_VD, model.bias_V).float()
        parts.append(functional.cross_entropy(logits_CV, batch.labels_P[chunk], reduction="none").double())
    return torch.cat(parts).cpu().numpy()
