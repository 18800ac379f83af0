"""One shard of a store: the soft targets of some examples in one safetensors file, memory-mapped when read.

`keys` (uint64, N) are the examples' content keys, `offsets` (int64, N + 1) say where the positions of each begin, and
every other tensor is an encoding's, with the positions P as its first axis. docs/target-store.md reads it on its own.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from lightpaff.errors import UserError
from lightpaff.targets.encodings import Arrays

KEYS, OFFSETS = "keys", "offsets"
_SHA256 = "sha256"
"""Of the arrays, by name: known before there is a manifest."""
_TYPES = {"U8": "<u1", "U16": "<u2", "F16": "<f2", "F32": "<f4", "I64": "<i8", "U64": "<u8"}


def shard_bytes(keys_N: NDArray[np.uint64], counts_N: NDArray[np.int64], arrays: Arrays) -> bytes:
    """A shard's file: the arrays hold the positions of the first example, then those of the second, and so on."""
    offsets = np.concatenate([[0], np.cumsum(counts_N)]).astype(np.int64)
    all_arrays = {KEYS: keys_N, OFFSETS: offsets, **{name: np.ascontiguousarray(own) for name, own in arrays.items()}}
    content: bytes = save(all_arrays, {_SHA256: _sha256_of(all_arrays)})
    return content


def is_whole(path: Path) -> bool:
    """Whether a shard's arrays are those that it was written with."""
    try:
        with safe_open(path, "numpy") as shard:
            return bool((shard.metadata() or {}).get(_SHA256) == _sha256_of(map_shard(path)))
    except (OSError, UserError, SafetensorError):
        return False


def map_shard(path: Path) -> Arrays:
    """The arrays of a shard, memory-mapped.

    Raises:
        UserError: it is no such file.
    """
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        start = 8 + int.from_bytes(content[:8].tobytes(), "little")
        header = json.loads(content[8:start].tobytes())
        arrays = {name: _view(content[start:], entry) for name, entry in header.items() if name != "__metadata__"}
        positions = int(arrays[OFFSETS][-1])
        is_whole = all(len(own) == positions for name, own in arrays.items() if name not in (KEYS, OFFSETS))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: is no shard of soft targets ({error}); delete it and capture again") from error
    if not is_whole or len(arrays[KEYS]) + 1 != len(arrays[OFFSETS]):
        raise UserError(f"{path}: holds arrays of different lengths; delete it and capture again")
    return arrays


def _sha256_of(arrays: Arrays) -> str:
    found = hashlib.sha256()
    for name, own in sorted(arrays.items()):
        found.update(f"{name} {own.dtype.str} {own.shape} ".encode())
        found.update(np.ascontiguousarray(own).view(np.uint8).data)
    return found.hexdigest()


def _view(content: NDArray[np.uint8], entry: dict[str, Any]) -> NDArray[np.generic]:
    first, behind = entry["data_offsets"]
    return np.asarray(content[first:behind].view(_TYPES[entry["dtype"]]).reshape(entry["shape"]))
