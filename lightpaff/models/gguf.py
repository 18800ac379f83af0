"""GGUF files, llama.cpp's format of mostly quantised decoders: converted once into a directory like other models'.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import contextlib
import io
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightpaff.errors import UserError, one_line
from lightpaff.models.opening import quiet_transformers

GGUF_ENDING = ".gguf"

_ARCHITECTURES = ("gpt2", "llama", "qwen2", "qwen3")
"""Both GGUF's names and transformers' model types."""


def convert_gguf(file: Path, destination: Path, source: str) -> None:
    """Write the model of a GGUF file as float32 safetensors, with its config, generation config and tokenizer.

    Quantised weights become the numbers that they stand for, so that the model can be trained on.

    Args:
        file: the GGUF file.
        destination: an existing directory.
        source: what to call the file in messages.

    Raises:
        UserError: the file cannot be read, or its architecture is not one that is supported.
    """
    # Its progress bar goes past transformers' settings.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        _check_architecture(file, source)
        try:
            model, tokenizer = _read_gguf(file)
        # Three libraries read it, each with errors of its own.
        except Exception as error:
            raise UserError(f"{source}: cannot be read ({one_line(error)}); get the GGUF file anew") from error
        model.save_pretrained(destination)
        tokenizer.save_pretrained(destination)


def _check_architecture(file: Path, source: str) -> None:
    from gguf import GGUFReader

    try:
        field = GGUFReader(file).get_field("general.architecture")
        architecture = None if field is None else field.contents()
    except Exception as error:
        raise UserError(f"{source}: is not a GGUF file ({one_line(error)}); get the file anew") from error
    if architecture not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise UserError(f"{source}: holds the architecture {architecture}; take a GGUF file with one of {known}")


def _read_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    model = AutoModelForCausalLM.from_pretrained(
        **place, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    tokenizer.model_max_length = model.config.max_position_embeddings
    return model, tokenizer
