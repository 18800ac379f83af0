"""Token sequences in an Arrow file: written in batches, memory-mapped when read, so that a corpus may be larger than
memory.

Shapes: N rows, S tokens.
"""

import bisect
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lightpaff.errors import UserError

TOKENS = "input_ids"


def write_token_table(path: Path, batches: Iterable[dict[str, list[Any]]], columns: dict[str, pa.DataType]) -> int:
    """Write batches of rows, each with `input_ids` and the named extra columns; return the number of rows.

    An extra column may hold lists: `pa.large_list(pa.int32())` can be read memory-mapped, as `input_ids` is.
    """
    schema = pa.schema([(TOKENS, pa.large_list(pa.int32())), *columns.items()])
    rows = 0
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            arrays = [pa.array(batch[field.name], type=field.type) for field in schema]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            rows += len(batch[TOKENS])
    return rows


class TokenTable:
    """A memory-mapped table of token sequences.

    Args:
        path: what `write_token_table` wrote.
        column: which of the columns of type `large_list(int32)` is read as the tokens.

    Raises:
        UserError: when the file is no such table.
    """

    def __init__(self, path: Path, column: str = TOKENS) -> None:
        try:
            self._file = pa.ipc.open_file(pa.memory_map(str(path)))
            self._batches = [self._file.get_batch(i) for i in range(self._file.num_record_batches)]
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: is not a readable token table; delete its folder and run again") from error
        self._starts = list(np.cumsum([0, *(batch.num_rows for batch in self._batches)]))
        self._offsets = [batch.column(column).offsets.to_numpy() for batch in self._batches]
        self._values = [batch.column(column).values.to_numpy() for batch in self._batches]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def tokens(self, row: int) -> np.ndarray:
        """The token ids of one row: int32, S long."""
        batch = bisect.bisect_right(self._starts, row) - 1
        offsets, place = self._offsets[batch], row - self._starts[batch]
        return np.asarray(self._values[batch][offsets[place] : offsets[place + 1]])

    @property
    def lengths_N(self) -> np.ndarray:
        """The number of tokens of each row."""
        return np.concatenate([np.diff(offsets) for offsets in self._offsets] or [np.zeros(0, np.int64)])

    @property
    def values(self) -> np.ndarray:
        """The tokens of all rows one after the other, int32: a copy in memory."""
        return np.concatenate([*self._values, np.zeros(0, np.int32)])

    def column(self, name: str) -> list[Any]:
        """One extra column, as Python values."""
        return list(self.stream(name))

    def stream(self, name: str) -> Iterator[Any]:
        """The same, with one batch of rows in memory at a time."""
        return (value for batch in self._batches for value in batch.column(name).to_pylist())


def in_batches(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Cut an iterable into lists of `size`, the last one shorter."""
    batch: list[Any] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def ragged(table: TokenTable) -> list[np.ndarray]:
    """A column of lists as an array a row, int64."""
    return [table.tokens(row).astype(np.int64) for row in range(len(table))]
