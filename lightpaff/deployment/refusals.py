"""What speaks against an export before there is a model to export."""

import importlib

from transformers import PreTrainedConfig

from lightpaff.deployment.card import Format

_MODULES: dict[Format, str] = {"onnx": "export_onnx", "ctranslate2": "export_ctranslate2"}
"""Where a format has architectures, shapes or sizes that it does not take."""


def refusal_of(format_: Format, config: PreTrainedConfig) -> str:
    """Why a model of the config cannot be exported; empty where nothing speaks against it.

    The packages that the export needs are installed.
    """
    module = _MODULES.get(format_)
    if module is None:
        return ""
    why: str = importlib.import_module(f"lightpaff.deployment.{module}").refusal(config)
    return why
