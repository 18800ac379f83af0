"""Encoders with a classification head as ONNX graphs.

Every architecture's attention is written as ONNX Runtime's fused one, `com.microsoft.MultiHeadAttention`, by giving
transformers an attention of our own: nothing has to be recognised in the graph afterwards.

Shapes: B rows, S tokens, V classes, H heads, D hidden of all heads, C hidden of one head.
"""

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForSequenceClassification, PreTrainedModel
from transformers.masking_utils import eager_mask

from lightpaff.deployment.card import Quantisation
from lightpaff.deployment.int8_graph import quantise_graph
from lightpaff.deployment.onnx_runtime import MODEL
from lightpaff.errors import UserError, one_line
from lightpaff.models.architecture import CLASSES
from lightpaff.models.families import architecture_of
from lightpaff.models.opening import quiet_transformers, read_config, tensor_names

_ATTENTION = "lightpaff_onnx"
_MOST_BYTES = 2**31 - 2**20
"""Protocol buffers, which ONNX files are, end at 2 GiB."""


def export_onnx(
    model_directory: Path,
    destination: Path,
    quantisation: Quantisation = "none",
) -> None:
    """Write a classifier or scorer into the directory `destination` as `model.onnx`.

    Its inputs are int64 of B x S: `input_ids`, `attention_mask` and, for a model with more than one segment,
    `token_type_ids`; its output is `logits` of B x V, float32. B is any number, S up to the model's longest input.

    Args:
        model_directory: as `save_pretrained` writes it.
        destination: a directory that is there.
        quantisation: `none` is float32, `int8` see `int8_graph.py`.

    Raises:
        UserError: there is no such model, it has another head, is too large, or the quantisation is `bf16`.
    """
    if quantisation == "bf16":
        raise UserError(
            "--quantise bf16: ONNX Runtime computes in float32 or int8 on CPUs; export to openvino for bf16"
        )
    if quantisation == "none":
        write_graph(model_directory, destination / MODEL)
        return
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".onnx-") as folder:
        write_graph(model_directory, Path(folder) / MODEL)
        quantise_graph(Path(folder) / MODEL, destination / MODEL)


def write_graph(model_directory: Path, destination: Path) -> None:
    """Write a classifier or scorer in float32 to the file `destination` (see `export_onnx`)."""
    model = _open_classifier(model_directory)
    has_segments = getattr(model.config, "type_vocab_size", 1) > 1
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if has_segments else [])]
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=model.config.max_position_embeddings)
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                _Logits(model, names).eval(),
                _example(model, names),
                destination,
                dynamo=True,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(tuple({0: batch, 1: tokens} for _ in names),),
                external_data=False,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = one_line(_first_cause(error))
        raise UserError(
            f"{model_directory}: PyTorch cannot write this {model.config.model_type} as ONNX ({cause}); "
            "export to transformers"
        ) from error
    _forget_origins(destination)


class _Logits(nn.Module):
    """The logits alone, of inputs in the order of their names."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        logits_BV: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits_BV


def _open_classifier(path: Path) -> PreTrainedModel:
    config = read_config(path)
    if CLASSES not in architecture_of(config).heads:
        raise UserError(
            f"{path}: a {config.model_type} does not classify; export it to ctranslate2 or transformers instead"
        )
    tensor_names(path)  # Refuses, in one line, what from_pretrained tells in many.
    AttentionInterface.register(_ATTENTION, _fused_attention)
    AttentionMaskInterface.register(_ATTENTION, eager_mask)
    with quiet_transformers():
        model, report = AutoModelForSequenceClassification.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation=_ATTENTION,
            local_files_only=True,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        raise UserError(f"{path}: lacks {min(report['missing_keys'])}; give a model that is fine-tuned to classify")
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    if size > _MOST_BYTES:
        raise UserError(f"{path}: has {size / 1e9:.1f} GB of weights, and an ONNX file holds 2; export to transformers")
    opened: PreTrainedModel = model.eval()
    return opened


def _example(model: PreTrainedModel, names: list[str]) -> tuple[Tensor, ...]:
    """Inputs to follow the model with: padding, and sizes that are no special case (1)."""
    shape = (2, min(7, model.config.max_position_embeddings - 1))
    mask_BS = torch.ones(shape, dtype=torch.int64)
    mask_BS[1, -2:] = 0
    # Never the padding token, which RoBERTa counts positions by, nor one that is not there.
    ids_BS = torch.full(shape, 2 if model.config.pad_token_id != 2 else 3)
    known = {"input_ids": ids_BS, "attention_mask": mask_BS, "token_type_ids": torch.zeros_like(ids_BS)}
    return tuple(known[name] for name in names)


def _fused_attention(
    module: nn.Module,
    query_BHSC: Tensor,
    key_BHSC: Tensor,
    value_BHSC: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention as one node; `attention_mask` is added to the scores (B x 1 x S x S)."""
    batch, heads, tokens, width = query_BHSC.shape
    inputs_BSD = [
        states.transpose(1, 2).reshape(batch, tokens, heads * width) for states in (query_BHSC, key_BHSC, value_BHSC)
    ]
    context_BSD = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        (*inputs_BSD, None, None, attention_mask),
        {"num_heads": heads, "scale": width**-0.5 if scaling is None else scaling},
        dtype=query_BHSC.dtype,
        shape=inputs_BSD[0].shape,
        version=1,
    )
    return context_BSD.view(batch, tokens, heads, width), None


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
