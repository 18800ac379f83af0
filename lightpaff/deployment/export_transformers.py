"""Exports for transformers: a plain directory of safetensors, which `pipeline(...)` and the auto classes open."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lightpaff.files import write_json_whole
from lightpaff.models.opening import read_config
from lightpaff.models.weights import WEIGHTS_INDEX, tensor_names
from lightpaff.runtimes import Quantisation

_COPIED = (
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.spm",
    "chat_template.jinja",
)
_DTYPES: dict[Quantisation, torch.dtype] = {"none": torch.float32, "bf16": torch.bfloat16}


def export_transformers(model_directory: Path, destination: Path, quantisation: Quantisation) -> None:
    """Write a model and its tokenizer as transformers reads them.

    Args:
        model_directory: written by `save_pretrained`, with the tokenizer.
        destination: a directory, made where it is missing.
        quantisation: `none` is float32; `bf16` halves the weights, and transformers then calculates in bfloat16 too.

    Raises:
        UserError: the directory holds no readable model.
    """
    read_config(model_directory)
    tensor_names(model_directory)
    destination.mkdir(parents=True, exist_ok=True)
    for file in sorted({file for pattern in _COPIED for file in model_directory.glob(pattern)}):
        shutil.copyfile(file, destination / file.name)
    dtype = _DTYPES[quantisation]
    config = json.loads((model_directory / "config.json").read_text("utf-8"))
    # Older models say torch_dtype.
    config.pop("torch_dtype", None)
    write_json_whole(destination / "config.json", {**config, "dtype": str(dtype).removeprefix("torch.")})
    _convert_weights(model_directory, destination, dtype)


def _convert_weights(model_directory: Path, destination: Path, dtype: torch.dtype) -> None:
    """One file after the other, so that no more than one is in memory."""
    size = 0
    for file in sorted(model_directory.glob("*.safetensors")):
        tensors = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in load_file(file).items()
        }
        size += sum(tensor.nbytes for tensor in tensors.values())
        # transformers refuses files that do not say whose tensors these are.
        save_file(tensors, destination / file.name, metadata={"format": "pt"})
    if (model_directory / WEIGHTS_INDEX).is_file():
        index = json.loads((model_directory / WEIGHTS_INDEX).read_text("utf-8"))
        index["metadata"] = {**index.get("metadata", {}), "total_size": size}
        write_json_whole(destination / WEIGHTS_INDEX, index)
