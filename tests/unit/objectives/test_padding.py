import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.objectives.padding import pad_tokens


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=6), st.integers(0, 99))
@settings(deadline=None)
def test_rows_are_padded_on_the_right(rows: list[list[int]], padding_id: int) -> None:
    padded = pad_tokens([np.array(row, dtype=np.int32) for row in rows], padding_id)
    ids_BS, mask_BS = padded["input_ids"], padded["attention_mask"]
    longest = max(len(row) for row in rows)
    assert ids_BS.shape == mask_BS.shape == (len(rows), longest)
    assert ids_BS.dtype == mask_BS.dtype == torch.int64
    for row, ids, mask in zip(rows, ids_BS.tolist(), mask_BS.tolist(), strict=True):
        spare = longest - len(row)
        assert ids == row + [padding_id] * spare
        assert mask == [1] * len(row) + [0] * spare
