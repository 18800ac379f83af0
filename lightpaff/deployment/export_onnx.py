"""Classifiers, scorers and decoders as ONNX graphs for ONNX Runtime."""

import tempfile
from pathlib import Path

from transformers import PreTrainedConfig

from lightpaff.deployment.int8_graph import quantise_graph
from lightpaff.deployment.onnx_classifier import write_classifier
from lightpaff.deployment.onnx_decoder import refusal_of_decoder, write_decoder
from lightpaff.deployment.onnx_runtime import MODEL
from lightpaff.models.architecture import CLASSES, NEXT_TOKENS
from lightpaff.models.families import architecture_of
from lightpaff.models.opening import read_config
from lightpaff.models.shapes import longest_input
from lightpaff.runtimes import RUNTIMES, Quantisation


def export_onnx(model_directory: Path, destination: Path, quantisation: Quantisation = "none") -> None:
    """Write a classifier, a scorer or a decoder into the directory `destination` as `model.onnx`.

    Inputs and outputs are told by `write_classifier` and `write_decoder`.

    Args:
        model_directory: as `save_pretrained` writes it.
        destination: a directory that is there.
        quantisation: `none` is float32, `int8` see `int8_graph.py`.

    Raises:
        UserError: there is no such model, or it is too large.
    """
    assert quantisation in RUNTIMES["onnx"].quantisations
    config = read_config(model_directory)
    write = write_classifier if CLASSES in architecture_of(config).heads else write_decoder
    if quantisation == "none":
        write(model_directory, destination / MODEL)
        return
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".onnx-") as folder:
        write(model_directory, Path(folder) / MODEL)
        quantise_graph(Path(folder) / MODEL, destination / MODEL, config.vocab_size, longest_input(config))


def refusal(config: PreTrainedConfig) -> str:
    """Why a model cannot be written; empty where nothing speaks against it."""
    return refusal_of_decoder(config) if NEXT_TOKENS in architecture_of(config).heads else ""
