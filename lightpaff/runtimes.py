"""Every runtime: one row says all that differs between them. Imports none of them."""

import importlib.util
from dataclasses import dataclass
from typing import Literal

Runtime = Literal["onnx", "openvino", "ctranslate2", "pytorch"]
Format = Literal["onnx", "openvino", "ctranslate2", "transformers"]
Quantisation = Literal["none", "bf16", "int8"]
Work = Literal["classes", "token_classes", "next_tokens", "target_tokens"]

WORKS: dict[str, Work] = {
    "classes": "classes",
    "scores": "classes",
    "token_classes": "token_classes",
    "spans": "token_classes",
    "next_tokens": "next_tokens",
    "target_tokens": "target_tokens",
}
"""Which work a kind of export does."""


@dataclass(frozen=True)
class RuntimeRow:
    """What runs models, and what writes them for it.

    Attributes:
        title: what it is called.
        format: of the exports that it reads.
        files: what these files are, in words.
        runners: what opens a model, by the work that it does: `module.Class` of the room `deployment`.
        exporter: what writes a model: `module.function` of the same room.
        refusal: what says why a model of some config cannot be written; empty where every model can.
        quantisations: that can be written, the fastest first.
        runs_with: the packages that running takes.
        made_with: the packages that writing takes, whose versions decide what is written.
        weights: the patterns of the files that hold them.
    """

    title: str
    format: Format
    files: str
    runners: dict[Work, str]
    exporter: str
    quantisations: tuple[Quantisation, ...]
    runs_with: tuple[str, ...]
    made_with: tuple[str, ...]
    weights: tuple[str, ...]
    refusal: str = ""

    def is_installed(self, to_export: bool = False) -> bool:
        """The packages that running takes are there, and those that writing takes; nothing is imported."""
        return not missing_packages((*self.runs_with, *(self.made_with if to_export else ())))


RUNTIMES: dict[Runtime, RuntimeRow] = {
    "onnx": RuntimeRow(
        title="ONNX Runtime",
        format="onnx",
        files="ONNX, for ONNX Runtime",
        runners={
            "classes": "onnx_runtime.OnnxClassRunner",
            "token_classes": "onnx_runtime.OnnxClassRunner",
            "next_tokens": "onnx_runtime.OnnxTokenRunner",
        },
        exporter="export_onnx.export_onnx",
        refusal="export_onnx.refusal",
        quantisations=("int8", "none"),
        runs_with=("onnxruntime", "tokenizers"),
        made_with=("onnx", "onnxruntime", "onnxscript", "torch", "transformers"),
        weights=("*.onnx", "*.onnx.data", "*.onnx_data"),
    ),
    "openvino": RuntimeRow(
        title="OpenVINO",
        format="openvino",
        files="OpenVINO's intermediate representation",
        runners={
            "classes": "openvino_runtime.OpenVinoClassRunner",
            "token_classes": "openvino_runtime.OpenVinoClassRunner",
        },
        exporter="export_openvino.export_openvino",
        quantisations=("int8", "bf16", "none"),
        runs_with=("openvino", "tokenizers"),
        made_with=("onnx", "onnxscript", "openvino", "torch", "transformers"),
        weights=("*.xml", "*.bin"),
    ),
    "ctranslate2": RuntimeRow(
        title="CTranslate2",
        format="ctranslate2",
        files="CTranslate2",
        runners={
            "next_tokens": "ctranslate2_runtime.Ctranslate2TokenRunner",
            "target_tokens": "ctranslate2_runtime.Ctranslate2TextRunner",
        },
        exporter="export_ctranslate2.export_ctranslate2",
        refusal="export_ctranslate2.refusal",
        quantisations=("int8", "bf16", "none"),
        runs_with=("ctranslate2", "tokenizers"),
        made_with=("ctranslate2", "torch", "transformers"),
        weights=("*.bin",),
    ),
    "pytorch": RuntimeRow(
        title="PyTorch",
        format="transformers",
        files="safetensors, for transformers",
        runners={
            "classes": "pytorch_runtime.PyTorchClassRunner",
            "token_classes": "pytorch_runtime.PyTorchClassRunner",
            "next_tokens": "pytorch_runtime.PyTorchTokenRunner",
            "target_tokens": "pytorch_runtime.PyTorchTextRunner",
        },
        exporter="export_transformers.export_transformers",
        quantisations=("none", "bf16"),
        runs_with=("torch", "transformers"),
        made_with=("torch", "transformers"),
        weights=("*.safetensors",),
    ),
}
"""For every work the fastest comes first."""


def runtime_of(format_: Format) -> Runtime:
    """Which runtime reads a format."""
    return next(runtime for runtime, row in RUNTIMES.items() if row.format == format_)


def runtimes_for(work: Work) -> list[Runtime]:
    """Those that do a work, the fastest first."""
    return [runtime for runtime, row in RUNTIMES.items() if work in row.runners]


def packages_of_runtimes() -> list[str]:
    """All that running takes in any of them."""
    return sorted({package for row in RUNTIMES.values() for package in row.runs_with})


def missing_packages(packages: tuple[str, ...]) -> list[str]:
    """Those that are not installed; nothing is imported."""
    return [package for package in packages if importlib.util.find_spec(package) is None]
