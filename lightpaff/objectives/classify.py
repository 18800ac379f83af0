"""Language understanding (the paper's LU): one class, or one score, for one sentence or a pair.

Shapes: B examples, S tokens, N rows.
"""

import numpy as np
import torch

from lightpaff.data.token_table import TokenTable
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.padding import pad_tokens


class Classification:
    """One target an example, at its first token.

    Args:
        rows: tokenised examples.
        labels_N: int64 classes with `NO_GOLD_LABEL`, or float32 scores with NaN, where there is no label.
        number_of_classes: V; 1 is regression.
        padding_id: of the padding token.
        first_lengths_N: for models with segments, how many tokens belong to the first sentence; else None.
    """

    head = "classes"

    def __init__(
        self,
        rows: TokenTable,
        labels_N: np.ndarray,
        *,
        number_of_classes: int,
        padding_id: int,
        first_lengths_N: np.ndarray | None,
    ) -> None:
        self.number_of_classes = number_of_classes
        self.lengths_N = rows.lengths_N
        self.labels_N = labels_N
        self._rows, self._padding_id, self._first_lengths_N = rows, padding_id, first_lengths_N

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """The examples as they are: nothing is drawn."""
        inputs = pad_tokens([self._rows.tokens(int(i)) for i in example_ids], self._padding_id)
        width = inputs["input_ids"].shape[1]
        if self._first_lengths_N is not None:
            first_B1 = torch.from_numpy(self._first_lengths_N[example_ids])[:, None]
            is_second_BS = (torch.arange(width)[None] >= first_B1) & inputs["attention_mask"].bool()
            inputs["token_type_ids"] = is_second_BS.long()
        return Batch(
            inputs=inputs,
            positions_P=torch.arange(len(example_ids)) * width,
            labels_P=torch.from_numpy(self.labels_N[example_ids]),
            example_ids_B=torch.from_numpy(example_ids.astype(np.int64)),
            draw=draw,
        )
