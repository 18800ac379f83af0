"""Every runtime by its word, and what opens a model in it. Imports a runtime only when it is asked for."""

import importlib
from pathlib import Path
from typing import Any, Literal

from lightpaff.deployment.card import Format

Runtime = Literal["pytorch", "onnx", "openvino", "ctranslate2"]
Work = Literal["classes", "next_tokens", "target_tokens"]

RUNTIMES: dict[Format, Runtime] = {
    "transformers": "pytorch",
    "onnx": "onnx",
    "openvino": "openvino",
    "ctranslate2": "ctranslate2",
}
"""Which runtime reads a format."""

WORKS: dict[str, Work] = {
    "classes": "classes",
    "scores": "classes",
    "next_tokens": "next_tokens",
    "target_tokens": "target_tokens",
}
"""Which work a kind of export does."""

_RUNNERS: dict[tuple[Runtime, Work], tuple[str, str]] = {
    ("pytorch", "classes"): ("pytorch_runtime", "PyTorchClassRunner"),
    ("pytorch", "next_tokens"): ("pytorch_runtime", "PyTorchTokenRunner"),
    ("pytorch", "target_tokens"): ("pytorch_runtime", "PyTorchTextRunner"),
    ("onnx", "classes"): ("onnx_runtime", "OnnxClassRunner"),
    ("onnx", "next_tokens"): ("onnx_runtime", "OnnxTokenRunner"),
    ("openvino", "classes"): ("openvino_runtime", "OpenVinoClassRunner"),
    ("ctranslate2", "next_tokens"): ("ctranslate2_runtime", "Ctranslate2TokenRunner"),
    ("ctranslate2", "target_tokens"): ("ctranslate2_runtime", "Ctranslate2TextRunner"),
}


def open_runner(directory: Path, runtime: Runtime, work: Work, threads: int = 0, **options: Any) -> Any:
    """Open a model: a `ClassRunner`, `TokenRunner` or `TextRunner` (see `runner.py`), as the work says.

    Args:
        directory: of an export, or for PyTorch of a plain transformers model.
        threads: 0 is all cores.
        options: of the runtime; PyTorch has `precision`.

    Raises:
        UserError: the directory holds no such model.
    """
    module, name = _RUNNERS[runtime, work]
    return getattr(importlib.import_module(f"lightpaff.deployment.{module}"), name)(directory, threads, **options)
