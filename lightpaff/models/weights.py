"""What a model directory's safetensors files hold, read from their headers: names and types before any weights."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightpaff.errors import UserError, one_line

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
LFS_REMEDY = "a git-lfs pointer, not the file itself; run git lfs pull there"
_LFS_POINTER = b"version https://git-lfs"
_PLAIN_TYPES = {"F64", "F32", "F16", "BF16"}
"""What weights are stored in unless they are quantised."""


def tensor_names(path: Path) -> list[str]:
    """The names of the tensors in a model directory's safetensors file or files.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    return sorted(tensor_types(path))


def tensor_types(path: Path) -> dict[str, str]:
    """safetensors' name of each tensor's type, by the tensor's name.

    Raises:
        UserError: as `tensor_names`.
    """
    types: dict[str, str] = {}
    for file in weight_files(path):
        try:
            with safe_open(file, framework="pt") as opened:
                types |= {name: str(opened.get_slice(name).get_dtype()) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: {_tell_broken(file, error)}") from error
    return types


def float32_bytes(path: Path) -> int:
    """What a model directory's weights take in float32, in whatever precision they happen to be stored."""
    total = 0
    for file in weight_files(path):
        with safe_open(file, framework="pt") as opened:
            total += sum(4 * math.prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118
    return total


def read_tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Those of a model directory's tensors that it has, by name, on the CPU, as they are stored."""
    wanted = set(names)
    found: dict[str, Tensor] = {}
    for file in weight_files(path):
        with safe_open(file, framework="pt") as opened:
            found |= {name: opened.get_tensor(name) for name in wanted.intersection(opened.keys())}
    return found


def weight_files(path: Path, source: str = "") -> list[Path]:
    """The safetensors file of a model directory, or its shards; as transformers, the whole file before an index.

    Args:
        path: the directory.
        source: what to call it in messages; left out, by its path.

    Raises:
        UserError: there are none, or the index is broken.
    """
    source = source or str(path)
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if not (path / WEIGHTS_INDEX).is_file():
        raise UserError(f"{source}: holds no {WEIGHTS}; convert the model with save_pretrained")
    try:
        shards = sorted(set(json.loads((path / WEIGHTS_INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{source}: {WEIGHTS_INDEX} is broken ({one_line(error)}); get the model anew") from error
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise UserError(f"{source}: {WEIGHTS_INDEX} names '{shard}', not a safetensors file beside it")
        if not (path / shard).is_file():
            raise UserError(f"{source}: {WEIGHTS_INDEX} names {shard}, which is missing; get the model anew")
    return [path / shard for shard in shards]


def require_plain_weights(path: Path) -> None:
    """Refuse quantised weights: read as if they were plain, they say nothing.

    Raises:
        UserError: names the kind, or a tensor and its type.
    """
    remedy = "take the model that is not quantised"
    settings = json.loads((path / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if isinstance(settings, dict):
        kind = settings.get("quant_method", "an unnamed method")
        raise UserError(f"{path}: is quantised ({kind}, by its config.json); {remedy}")
    for name, type_ in tensor_types(path).items():
        if name.endswith("weight") and type_ not in _PLAIN_TYPES:
            raise UserError(f"{path}: is quantised ({name} is stored as {type_}); {remedy}")


def is_lfs_pointer(file: Path) -> bool:
    """Whether git wrote down where the file is to be had, instead of the file."""
    with open(file, "rb") as opened:
        return opened.read(len(_LFS_POINTER)) == _LFS_POINTER


def _tell_broken(file: Path, error: Exception) -> str:
    if file.is_file() and is_lfs_pointer(file):
        return f"{file.name} is {LFS_REMEDY}"
    return f"its safetensors weights cannot be read ({error}); fetch or make them anew"
