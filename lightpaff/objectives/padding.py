"""Token sequences of different lengths as one rectangle.

Shapes: B examples, S tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def pad_tokens(sequences: Sequence[np.ndarray], padding_id: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, B x S int64, padded on the right to the longest."""
    longest = max(len(sequence) for sequence in sequences)
    ids_BS = np.full((len(sequences), longest), padding_id, dtype=np.int64)
    mask_BS = np.zeros((len(sequences), longest), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids_BS[row, : len(sequence)] = sequence
        mask_BS[row, : len(sequence)] = 1
    return {"input_ids": torch.from_numpy(ids_BS), "attention_mask": torch.from_numpy(mask_BS)}


def mark_second(inputs: dict[str, Tensor], first_lengths_B: np.ndarray) -> None:
    """Add `token_type_ids` (B x S) to inputs of pairs: 1 from the second text on, which begins after so many tokens."""
    mask_BS = inputs["attention_mask"]
    first_B1 = torch.from_numpy(first_lengths_B)[:, None]
    is_second_BS = (torch.arange(mask_BS.shape[1])[None] >= first_B1) & mask_BS.bool()
    inputs["token_type_ids"] = is_second_BS.long()
