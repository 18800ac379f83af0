"""Encoders with a classification head in OpenVINO's format, from the ONNX graph that ONNX Runtime gets."""

import tempfile
from pathlib import Path

import openvino

from lightpaff.deployment.onnx_classifier import write_classifier
from lightpaff.deployment.openvino_int8 import quantise_model
from lightpaff.deployment.openvino_runtime import MODEL
from lightpaff.runtimes import Quantisation


def export_openvino(model_directory: Path, destination: Path, quantisation: Quantisation = "none") -> None:
    """Write a classifier or scorer into the directory `destination` as `model.xml` and `model.bin`.

    Inputs and output are those of `write_classifier`.

    Args:
        model_directory: as `save_pretrained` writes it.
        destination: a directory that is there.
        quantisation: `none` is float32; of `bf16` the weights are kept in float16, which has more digits, and the
            arithmetic is bfloat16 where the processor has it; `int8` see `openvino_int8.py`.

    Raises:
        UserError: there is no such model, it has another head, or is too large.
    """
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".onnx-") as folder:
        graph_file = Path(folder) / "model.onnx"
        write_classifier(model_directory, graph_file)
        # Not convert_model, which reports its use to OpenVINO's makers.
        model = openvino.Core().read_model(graph_file)
        if quantisation == "int8":
            quantise_model(model)
        openvino.save_model(model, destination / MODEL, compress_to_fp16=quantisation == "bf16")
