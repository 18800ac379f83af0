"""An export, in its own runtime, as one that answers batches.

Shapes: B rows, S tokens, P target positions, V classes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.runner import Ids, open_export
from lightpaff.evaluation.generation import Search
from lightpaff.models.headed import span_logits
from lightpaff.objectives.batch import Batch


class ExportAnswers:
    """See `Answerer`; of what it can be asked, an export answers what its card says that it is.

    Raises:
        UserError: the directory holds no export that can be opened.
    """

    def __init__(self, directory: Path) -> None:
        card = ExportCard.read(directory)
        self._kind, self._max_length = card.kind, card.max_length
        self._runner: Any = open_export(card, directory)
        # Online most texts come alone.
        self._is_alone = card.shares_scales

    def logits(self, batch: Batch) -> Tensor:
        """Of a classifier, whose targets are the rows, or of what has logits for tokens."""
        inputs = {name: tensor.numpy() for name, tensor in batch.inputs.items()}
        given = inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids")
        logits: NDArray[np.float32] = self._alone(*given) if self._is_alone else self._runner.logits(*given)
        if self._kind == "spans":
            return span_logits(torch.from_numpy(logits), batch.inputs["attention_mask"], self._max_length)
        if self._kind == "token_classes":
            logits = logits.reshape(-1, logits.shape[-1])[batch.positions_P.numpy()]
        return torch.from_numpy(logits)

    def _alone(self, ids_BS: Ids, mask_BS: Ids, segments_BS: Ids | None) -> NDArray[np.float32]:
        """Each row without padding and by itself; of tokens, zeros stand where there was padding."""
        rows = []
        for row, length in enumerate(mask_BS.sum(axis=1)):
            one = slice(row, row + 1), slice(length)
            logits = self._runner.logits(ids_BS[one], mask_BS[one], None if segments_BS is None else segments_BS[one])
            padding = [(0, 0), (0, ids_BS.shape[1] - length), (0, 0)]
            rows.append(logits if logits.ndim == 2 else np.pad(logits, padding))
        return np.concatenate(rows)

    def nll(self, batch: Batch) -> NDArray[np.float64]:
        """Of a decoder, where each row's targets are its last tokens."""
        ids_BS = batch.inputs["input_ids"].numpy()
        row_P, place_P = np.divmod(batch.positions_P.numpy(), ids_BS.shape[1])
        targets_B = np.bincount(row_P, minlength=len(ids_BS))
        last_B = np.cumsum(targets_B) - 1
        rows = [
            [*ids_BS[row, : place_P[last] + 1].tolist(), int(batch.labels_P[last])] for row, last in enumerate(last_B)
        ]
        scored = self._runner.nll(rows)
        return np.concatenate([nll_S[-targets:] for nll_S, targets in zip(scored, targets_B, strict=True)]).astype(
            np.float64
        )

    def write(self, inputs: dict[str, Tensor], search: Search) -> list[list[int]]:
        """Of an encoder-decoder; what it begins with is in the export."""
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        sources = [row[:length] for row, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
        written: list[list[int]] = self._runner.write(
            sources, beams=search.beams, length_penalty=search.length_penalty, max_tokens=search.max_new_tokens
        )
        return written
