"""Encoders with a head for classes, of rows or of tokens, as ONNX graphs.

Every architecture's attention is written as ONNX Runtime's fused one, `com.microsoft.MultiHeadAttention`, by giving
transformers an attention of our own: nothing has to be recognised in the graph afterwards.

Shapes: B rows, S tokens, V classes, H heads, D hidden of all heads, C hidden of one head.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from lightpaff.deployment.onnx_writing import Signature, refuse_large, write_onnx
from lightpaff.errors import UserError
from lightpaff.models.architecture import CLASSES
from lightpaff.models.encoder import logits_of
from lightpaff.models.families import attention_of, head_of, last_layer_of
from lightpaff.models.opening import finetuned_head, quiet_transformers, read_config
from lightpaff.models.weights import tensor_names

_ATTENTION = "lightpaff_onnx"


def write_classifier(model_directory: Path, destination: Path) -> None:
    """Write a classifier, scorer, tagger or extractor of answers in float32 to the file `destination`.

    Its inputs are int64 of B x S: `input_ids`, `attention_mask` and, for a model with more than one segment,
    `token_type_ids`; its output is `logits` of B x V, of the last two B x S x V, float32. B is any number, S up to the
    model's longest input.

    Args:
        model_directory: as `save_pretrained` writes it.
        destination: a file that is made.

    Raises:
        UserError: there is no such model, it has another head, is too large, or PyTorch cannot write it.
    """
    model = _open_classifier(model_directory)
    has_segments = getattr(model.config, "type_vocab_size", 1) > 1
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if has_segments else [])]
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens", max=model.config.max_position_embeddings)
    dynamic_shapes = (tuple({0: batch, 1: tokens} for _ in names),)
    signature = Signature(names, ["logits"], _example(model, names), dynamic_shapes)
    write_onnx(_Logits(model, names), signature, destination, model_directory)


class _Logits(nn.Module):
    """The logits alone, of inputs in the order of their names."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs: Tensor) -> Tensor:
        return logits_of(self.model(**dict(zip(self.names, inputs, strict=True))))


def _open_classifier(path: Path) -> PreTrainedModel:
    config = read_config(path)
    name = finetuned_head(config)
    head = head_of(config, name)
    tensor_names(path)  # Refuses, in one line, what from_pretrained tells in many.
    AttentionInterface.register(_ATTENTION, _fused_attention)
    AttentionMaskInterface.register(_ATTENTION, eager_mask)
    with quiet_transformers():
        model, report = head.auto_class.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation=attention_of(config, _ATTENTION),
            local_files_only=True,
            output_loading_info=True,
        )
    if report["missing_keys"]:
        raise UserError(f"{path}: lacks {min(report['missing_keys'])}; give a model that is fine-tuned to classify")
    refuse_large(model, path)
    opened: PreTrainedModel = model.eval()
    if name == CLASSES and (last_layer := last_layer_of(opened)):
        # A class is read at the first token.
        last_layer.compute_only(lambda states_BSD: states_BSD[:, :1])
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
