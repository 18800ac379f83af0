"""PyTorch modules as ONNX files, whatever the model: the exporter, its errors and its limits."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightpaff.errors import UserError, one_line

MOST_BYTES = 2**31 - 2**20
"""Protocol buffers, which ONNX files are, end at 2 GiB."""


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives.

    Attributes:
        inputs: names of the module's arguments, in order; the last ones may be a variable number.
        outputs: names of what it returns.
        examples: an argument each, of sizes that are no special case (0 and 1 are).
        dynamic_shapes: of the arguments, as `torch.export` takes them.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    examples: tuple[Tensor, ...]
    dynamic_shapes: Any


def write_onnx(module: nn.Module, signature: Signature, destination: Path, model_directory: Path) -> None:
    """Write a module in evaluation mode to the file `destination`.

    Raises:
        UserError: PyTorch cannot; names the model's directory.
    """
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                module.eval(),
                signature.examples,
                destination,
                dynamo=True,
                input_names=list(signature.inputs),
                output_names=list(signature.outputs),
                dynamic_shapes=signature.dynamic_shapes,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = one_line(_first_cause(error))
        raise UserError(
            f"{model_directory}: PyTorch cannot write this model as ONNX ({cause}); export it to another format"
        ) from error
    _forget_origins(destination)


def refuse_large(model: PreTrainedModel, model_directory: Path) -> None:
    """Refuse a model that an ONNX file cannot hold.

    Raises:
        UserError: it has too many weights.
    """
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    if size > MOST_BYTES:
        raise UserError(
            f"{model_directory}: has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2; "
            "export it to another format"
        )


def _forget_origins(graph_file: Path) -> None:
    """Leave out where in which Python file of this machine every node comes from."""
    model = onnx.load(graph_file)
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, graph_file)


def _first_cause(error: BaseException) -> Exception:
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, Exception)
    return error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings and notes, which are about its own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
