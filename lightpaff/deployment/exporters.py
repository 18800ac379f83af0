"""Every format by its word: what exports to it, and what speaks against that before there is a model.

Imports a format's packages only when they are asked for.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from lightpaff.deployment.card import Format, Quantisation

_EXPORTERS: dict[Format, tuple[str, str]] = {
    "onnx": ("export_onnx", "export_onnx"),
    "openvino": ("export_openvino", "export_openvino"),
    "ctranslate2": ("export_ctranslate2", "export_ctranslate2"),
    "transformers": ("export_transformers", "export_transformers"),
}
_REFUSALS: dict[Format, tuple[str, str]] = {
    "onnx": ("export_onnx", "refusal"),
    "ctranslate2": ("export_ctranslate2", "refusal"),
}
"""Where a format has architectures, shapes or sizes that it does not take."""


def export_model(
    format_: Format, model_directory: Path, destination: Path, quantisation: Quantisation, decoder_start: str | None
) -> None:
    """Write a model for another runtime.

    Args:
        format_: whose files are written.
        model_directory: as `save_pretrained` writes it, with the tokenizer.
        destination: a directory that is there.
        quantisation: of the weights.
        decoder_start: see `export_ctranslate2`, the only format that keeps it.

    Raises:
        UserError: the format does not take the model.
    """
    options = {"decoder_start": decoder_start} if format_ == "ctranslate2" else {}
    _find(_EXPORTERS[format_])(model_directory, destination, quantisation, **options)


def refusal_of(format_: Format, config: PreTrainedConfig) -> str:
    """Why a model of the config cannot be exported; empty where nothing speaks against it.

    The packages that the export needs are installed.
    """
    why: str = _find(_REFUSALS[format_])(config) if format_ in _REFUSALS else ""
    return why


def _find(place: tuple[str, str]) -> Callable[..., Any]:
    module, name = place
    found: Callable[..., Any] = getattr(importlib.import_module(f"lightpaff.deployment.{module}"), name)
    return found
