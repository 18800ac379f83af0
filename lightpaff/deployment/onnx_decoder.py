"""Decoders as ONNX graphs that keep what they have read: one graph reads a prompt and then a token at a time.

Attention is ONNX Runtime's fused one with a cache, `com.microsoft.GroupQueryAttention`, for every architecture:
transformers is given an attention of our own (see `onnx_classifier.py`), and a cache that only says where each layer's
past is.

Shapes: B rows, S tokens that are read now, P that were read before, K of the S whose logits are wanted, V vocabulary,
H heads of queries, G heads of keys and values, C hidden of one head.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lightpaff.deployment.onnx_runtime import IDS, KEPT, PAST
from lightpaff.deployment.onnx_writing import MOST_BYTES, Signature, write_onnx
from lightpaff.errors import UserError
from lightpaff.models.architecture import NEXT_TOKENS
from lightpaff.models.opening import lacks_head, open_headed, read_config
from lightpaff.models.rotary import rope_types
from lightpaff.models.shapes import count_parameters
from lightpaff.models.vocabulary import load_tokenizer, number_of_classes

_ATTENTION = "lightpaff_onnx_decoder"
_WIDTH_STEP = 8
"""ONNX Runtime's attention takes heads of multiples of this."""
_LENGTH_DEPENDENT = ("dynamic", "longrope")
_BYTES_OF_FLOAT32 = 4

Layer = tuple[Tensor, Tensor]
"""The keys and values of a layer, each B x G x P x C."""


def refusal_of_decoder(config: PreTrainedConfig) -> str:
    """Why a decoder cannot be written; empty where nothing speaks against it."""
    width = _width_of_head(config)
    if width % _WIDTH_STEP:
        return f"ONNX Runtime's attention takes heads of a multiple of {_WIDTH_STEP}, and these are {width} wide"
    if followed := rope_types(config) & set(_LENGTH_DEPENDENT):
        kind = min(followed)
        return f"its position embeddings ({kind}) depend on how much is read in all, which a graph cannot follow"
    size = _BYTES_OF_FLOAT32 * count_parameters(config, NEXT_TOKENS, config.vocab_size).total
    if size > MOST_BYTES:
        return f"has {size / 1e9:.1f} GB of weights in float32, and an ONNX file holds 2"
    return ""


def write_decoder(model_directory: Path, destination: Path) -> None:
    """Write a decoder in float32 to the file `destination`.

    Its inputs are `input_ids` (B x S, int64), `kept_positions` (K, int64, each below S), and for every layer
    `past_key_values.0.key` and `.value` (B x G x P x C, float32), where P is 0 at first. Its outputs are `logits`
    (B x K x V) and for every layer `present.0.key` and `.value` (B x G x (P + S) x C), which are the next call's past.
    Rows are of one length: there is no padding. With a past, either B or S is 1. V are the tokenizer's: a padded output
    layer's rows beyond them are left out, as in training and evaluation.

    Args:
        model_directory: as `save_pretrained` writes it, with the tokenizer.
        destination: a file that is made.

    Raises:
        UserError: there is no such model, it is no decoder, lacks its projection to the vocabulary, has what the graph
            cannot have, or PyTorch cannot write it.
    """
    config = read_config(model_directory)
    if why := refusal_of_decoder(config):
        raise UserError(f"{model_directory}: {why}; export it to another format")
    if lacks_head(model_directory, NEXT_TOKENS):
        raise UserError(f"{model_directory}: lacks its projection to the vocabulary; give a model that writes text")
    classes = number_of_classes(load_tokenizer(model_directory, "decoder"), config)
    AttentionInterface.register(_ATTENTION, _attention_with_past)
    model = open_headed(model_directory, NEXT_TOKENS, classes, device="cpu", attention=_ATTENTION).model
    _replace_transposed(model)
    write_onnx(_Step(model, classes), _signature(model.config), destination, model_directory)


class _Past:
    """Stands for transformers' cache: tells the attention where the layers' pasts are, and keeps what they become."""

    def __init__(self, layers: list[Layer], seen: int) -> None:
        self.layers = layers
        self.seen = seen
        """P + S."""
        self.presents: list[Layer | None] = [None] * len(layers)

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> Layer:
        """The new keys and values alone: the attention puts them behind the old ones."""
        return key, value


class _Step(nn.Module):
    """A decoder as a function of its past."""

    def __init__(self, model: PreTrainedModel, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes

    def forward(self, ids_BS: Tensor, kept_K: Tensor, *pasts: Tensor) -> tuple[Tensor, ...]:
        read, new = pasts[0].shape[2], ids_BS.shape[1]
        past = _Past(list(zip(pasts[::2], pasts[1::2], strict=True)), read + new)
        logits_BKV = self.model(
            input_ids=ids_BS,
            position_ids=torch.arange(read, read + new)[None],
            past_key_values=past,
            lightpaff_past=past,
            use_cache=False,
            logits_to_keep=kept_K,
        ).logits
        presents = [tensor for layer in past.presents if layer is not None for tensor in layer]
        return (logits_BKV[:, :, : self.classes], *presents)


def _attention_with_past(
    module: Any,
    query_BHSC: Tensor,
    key_BGSC: Tensor,
    value_BGSC: Tensor,
    attention_mask: Tensor | None,
    *,
    lightpaff_past: _Past,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention as one node, which is causal by itself: there is no mask."""
    assert attention_mask is None
    batch, heads, tokens, width = query_BHSC.shape
    groups = key_BGSC.shape[1]
    layer: int = module.layer_idx
    past_key, past_value = lightpaff_past.layers[layer]
    seen = lightpaff_past.seen
    flat = [states.transpose(1, 2).reshape(batch, tokens, -1) for states in (query_BHSC, key_BGSC, value_BGSC)]
    last_B = torch.full((batch,), 1, dtype=torch.int32) * (seen - 1)
    seen_1 = torch.full((1,), 1, dtype=torch.int32) * seen
    present = (batch, groups, seen, width)
    context_BSD, key, value = torch.onnx.ops.symbolic_multi_out(
        "com.microsoft::GroupQueryAttention",
        (*flat, past_key, past_value, last_B, seen_1),
        {
            "num_heads": heads,
            "kv_num_heads": groups,
            "scale": width**-0.5 if scaling is None else scaling,
            "local_window_size": -1 if sliding_window is None else sliding_window,
        },
        dtypes=(query_BHSC.dtype,) * 3,
        shapes=((batch, tokens, heads * width), present, present),
        version=1,
    )
    lightpaff_past.presents[layer] = (key, value)
    return context_BSD.view(batch, tokens, heads, width), None


def _signature(config: PreTrainedConfig) -> Signature:
    layers, groups = config.num_hidden_layers, _groups_of(config)
    parts = [f"{layer}.{part}" for layer in range(layers) for part in ("key", "value")]
    pasts = tuple(torch.zeros(2, groups, 3, _width_of_head(config)) for _ in parts)
    batch, tokens, past, kept = (torch.export.Dim(name) for name in ("batch", "tokens", "past", "kept"))
    return Signature(
        inputs=[IDS, KEPT, *(f"{PAST}.{part}" for part in parts)],
        outputs=["logits", *(f"present.{part}" for part in parts)],
        examples=(torch.full((2, 5), 2), torch.tensor([2, 4, 3]), *pasts),
        dynamic_shapes=({0: batch, 1: tokens}, {0: kept}, tuple({0: batch, 2: past} for _ in pasts)),
    )


def _replace_transposed(model: PreTrainedModel) -> None:
    """GPT-2's products, which flatten their input, as those of the other architectures: only such become 8 bits."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Conv1D):
                linear = nn.Linear(child.nx, child.nf, device="meta")
                linear.weight = nn.Parameter(child.weight.T.contiguous())
                linear.bias = child.bias
                setattr(parent, name, linear)


def _groups_of(config: PreTrainedConfig) -> int:
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


def _width_of_head(config: PreTrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
