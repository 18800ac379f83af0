"""Exports for CTranslate2: decoders and encoder-decoders, with their vocabulary and tokenizer.

CTranslate2's own converter opens a model by its name on the Hub, with the vocabulary of the tokenizer that belongs to
it. Students differ: their tokenizers are made here, their vocabularies may be padded, and transformers 5 renamed what
the converter reads. So the model is opened here, and only the parts of the converter that copy weights are used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ctranslate2.converters import transformers as conversion
from ctranslate2.specs.model_spec import ModelSpec
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightpaff.deployment.tokenizer_writing import write_tokenizer
from lightpaff.errors import UserError, one_line
from lightpaff.models.architecture import NEXT_TOKENS, TARGET_TOKENS
from lightpaff.models.opening import open_headed, quiet_transformers, read_config
from lightpaff.models.pieces import is_of_pieces, piece_ids
from lightpaff.models.rotary import rope_settings, rope_types
from lightpaff.models.vocabulary import load_tokenizer, number_of_classes
from lightpaff.recipe_families import Family
from lightpaff.runtimes import Quantisation

_STORED_AS: dict[Quantisation, str] = {"none": "float32", "int8": "int8", "bf16": "bfloat16"}
_FAMILIES: dict[str, Family] = {NEXT_TOKENS: "decoder", TARGET_TOKENS: "encoder-decoder"}
_ACTIVATIONS = ("activation_function", "dense_act_fn")
"""What configs call those that the converter writes as they say; the others' loaders know one only."""
_NEVER = -1e9
"""A bias that keeps a token from ever being written."""


def export_ctranslate2(
    model_directory: Path, destination: Path, quantisation: Quantisation, decoder_start: str | None = None
) -> None:
    """Write a decoder or an encoder-decoder as CTranslate2 reads it, with its tokenizer.

    An encoder-decoder never writes its padding token, as in `lightpaff.evaluation.generation`.

    Args:
        model_directory: written by `save_pretrained`, with the tokenizer.
        destination: a directory, made where it is missing.
        quantisation: of the weights; biases and norms stay float32, in `bf16` they are bfloat16 too.
        decoder_start: the token that the decoder of an encoder-decoder begins with; None is the model's own.

    Raises:
        UserError: the model is of no architecture that can be converted, has a feature that CTranslate2 lacks or that
            its converter drops, or its directory cannot be read.
    """
    config = read_config(model_directory)
    recipe = _recipe_of(config, model_directory)
    tokenizer = load_tokenizer(model_directory, _FAMILIES[recipe.head])
    classes = number_of_classes(tokenizer, config)
    model = open_headed(model_directory, recipe.head, classes, device="cpu", attention="eager").model
    recipe.adapt(model)
    try:
        with torch.no_grad(), quiet_transformers():
            spec = recipe.loader.get_model_spec(model)
            recipe.finish(spec, model)
            _set_vocabulary(spec, recipe, model, tokenizer, decoder_start)
            spec.validate()
            spec.optimize(quantization=_STORED_AS[quantisation])
    except (NotImplementedError, ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"{model_directory}: CTranslate2 cannot take this {config.model_type} ({one_line(error)}); "
            "export it to another format"
        ) from error
    destination.mkdir(parents=True, exist_ok=True)
    spec.save(str(destination))
    write_tokenizer(tokenizer, destination)


@dataclass(frozen=True)
class _Recipe:
    """How one model type is converted.

    Attributes:
        loader: the converter's part that copies the weights.
        head: the model's.
        epsilon: what the config calls that of its norms; None is PyTorch's own, 1e-5.
        missing: says which of the config's features would be lost; empty when none is.
        adapt: puts names on the opened model that the converter looks for and transformers 5 has no more.
        finish: sets what the converter leaves out.
    """

    loader: Any
    head: str
    epsilon: str | None
    missing: Callable[[PreTrainedConfig], str] = lambda config: ""
    adapt: Callable[[PreTrainedModel], None] = lambda model: None
    finish: Callable[[ModelSpec, PreTrainedModel], None] = lambda spec, model: None


def refusal(config: PreTrainedConfig) -> str:
    """Why a model cannot be converted; empty where it can."""
    recipe = _RECIPES.get(config.model_type)
    if recipe is None:
        return f"is a {config.model_type}, and to CTranslate2 go only {', '.join(_RECIPES)}"
    for name in _ACTIVATIONS:
        if (activation := getattr(config, name, None)) and activation not in conversion._SUPPORTED_ACTIVATIONS:
            return f"CTranslate2 has no activation {activation} ({name})"
    missing = recipe.missing(config)
    return f"CTranslate2's converter drops {missing}" if missing else ""


def _recipe_of(config: PreTrainedConfig, model_directory: Path) -> _Recipe:
    if why := refusal(config):
        raise UserError(f"{model_directory}: {why}; export it to another format")
    return _RECIPES[config.model_type]


def _set_vocabulary(
    spec: Any,
    recipe: _Recipe,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    decoder_start: str | None,
) -> None:
    tokens = _tokens_by_id(tokenizer, model.config.vocab_size)
    recipe.loader.set_vocabulary(spec, tokens)
    known = set(tokens)
    end = tokenizer.eos_token
    # A token that the vocabulary lacks would be added to it, beyond the rows of the embeddings.
    spec.config.eos_token = end
    spec.config.bos_token = tokenizer.bos_token if tokenizer.bos_token in known else end
    spec.config.unk_token = tokenizer.unk_token if tokenizer.unk_token in known else end
    epsilon = 1e-5 if recipe.epsilon is None else getattr(model.config, recipe.epsilon)
    spec.config.layer_norm_epsilon = float(epsilon)
    if recipe.head == TARGET_TOKENS:
        spec.config.decoder_start_token = _first_token(tokens, model.config, decoder_start)
    never = list(range(number_of_classes(tokenizer, model.config), len(tokens)))
    if recipe.head == TARGET_TOKENS and tokenizer.pad_token != end:
        never.append(tokens.index(tokenizer.pad_token))
    if never:
        _never_write(spec.decoder.projection, never)


def _tokens_by_id(tokenizer: PreTrainedTokenizerBase, rows: int) -> list[str]:
    """A token for every row of the embeddings: those that the tokenizer does not know get names of their own."""
    known = piece_ids(tokenizer) if is_of_pieces(tokenizer) else tokenizer.get_vocab()
    by_id: dict[int, str] = {id_: token for token, id_ in known.items()}
    tokens = [by_id.get(id_, f"<unused {id_}>") for id_ in range(rows)]
    assert len(set(tokens)) == rows, "a token is called as a row without one"
    return tokens


def _first_token(tokens: list[str], config: PreTrainedConfig, decoder_start: str | None) -> str:
    if decoder_start is None:
        if config.decoder_start_token_id is None:
            raise UserError(f"{config.name_or_path}: its config.json has no decoder_start_token_id; add it")
        return tokens[int(config.decoder_start_token_id)]
    if decoder_start not in tokens:
        raise UserError(f"decoder_start: the tokenizer of {config.name_or_path} has no token {decoder_start}")
    return decoder_start


def _never_write(projection: Any, ids: list[int]) -> None:
    bias_V = projection.bias.clone() if projection.has_bias() else torch.zeros(projection.weight.shape[0])
    bias_V[ids] = _NEVER
    projection.bias = bias_V


def _lost_of_gpt2(config: PreTrainedConfig) -> str:
    if config.scale_attn_by_inverse_layer_idx or not config.scale_attn_weights:
        return "an unusual scale of the attention weights (scale_attn_weights, scale_attn_by_inverse_layer_idx)"
    return ""


def _lost_of_llama(config: PreTrainedConfig) -> str:
    if config.hidden_act != "silu":
        return f"the activation {config.hidden_act}"
    if config.rope_parameters.get("partial_rotary_factor", 1) != 1:
        return "position embeddings that turn a part of each head only (partial_rotary_factor)"
    return _lost_of_scaled(config)


def _lost_windows(config: PreTrainedConfig) -> str:
    # Where the converter does write it, CTranslate2 fails on texts that are longer.
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or window >= config.max_position_embeddings or (kinds and "sliding_attention" not in kinds):
        return ""
    return f"the window of {window} tokens that its layers look back on (sliding_window)"


def _lost_of_mistral(config: PreTrainedConfig) -> str:
    if config.hidden_act != "silu":
        return f"the activation {config.hidden_act}"
    return _lost_of_scaled(config)


def _lost_of_gemma_3(config: PreTrainedConfig) -> str:
    if config.hidden_activation not in ("gelu_pytorch_tanh", "gelu"):
        return f"the activation {config.hidden_activation}"
    return _lost_of_scaled(config)


def _lost_of_scaled(config: PreTrainedConfig) -> str:
    scaled = sorted(rope_types(config) - {"default"})
    return f"position embeddings of the type {scaled[0]}" if scaled else _lost_windows(config)


def _lost_of_gpt_neox(config: PreTrainedConfig) -> str:
    kind = config.rope_parameters["rope_type"]
    if kind != "default":
        return f"position embeddings of the type {kind}"
    turned = int(_turned_part(config) * (config.hidden_size // config.num_attention_heads))
    # CTranslate2 dies of a division by zero.
    return "" if turned >= 2 and turned % 2 == 0 else f"position embeddings that turn {turned} dimensions of each head"


def _turned_part(config: PreTrainedConfig) -> float:
    return float(config.rope_parameters.get("partial_rotary_factor", 1))


def _rename_gpt_neox(model: PreTrainedModel) -> None:
    model.embed_out = model.lm_head
    model.config.rotary_pct = _turned_part(model.config)
    for layer in model.gpt_neox.layers:
        projection = layer.attention.query_key_value
        if projection.bias is None:
            projection.bias = torch.nn.Parameter(torch.zeros(projection.out_features))


def _rename_bart(norms_first: bool, norm_after_embeddings: bool) -> Callable[[PreTrainedModel], None]:
    """The switches of BART's kin, which transformers has as classes of their own."""

    def rename(model: PreTrainedModel) -> None:
        model.config.normalize_before = norms_first
        model.config.normalize_embedding = norm_after_embeddings

    return rename


def _set_head_dim(spec: Any, model: PreTrainedModel) -> None:
    head_dim = getattr(model.config, "head_dim", None)
    if head_dim is not None:
        for layer in spec.decoder.layer:
            # A specification takes no new attribute by assignment.
            vars(layer.self_attention)["head_dim"] = np.int32(head_dim)


def _set_mistral(spec: Any, model: PreTrainedModel) -> None:
    _set_head_dim(spec, model)
    _see_everything(spec, model)


def _set_rotary_base(spec: Any, model: PreTrainedModel) -> None:
    for layer in spec.decoder.layer:
        layer.self_attention.rotary_base = np.float32(model.config.rope_parameters["rope_theta"])


def _set_gemma_3(spec: Any, model: PreTrainedModel) -> None:
    """The bases of the rotary position embeddings, which the converter looks for under their old names, and what the
    scores are divided by: CTranslate2 knows the heads' width only, and the queries' norm takes the rest."""
    config = model.config
    settings, widening = rope_settings(config), (config.head_dim / config.query_pre_attn_scalar) ** 0.5
    for layer, kind in zip(spec.decoder.layer, config.layer_types, strict=True):
        layer.self_attention.rotary_base = np.float32(settings[kind]["rope_theta"])
        # One is added to it.
        layer.self_attention.q_norm.gamma = (1 + layer.self_attention.q_norm.gamma) * widening - 1
    _see_everything(spec, model)


def _see_everything(spec: Any, model: PreTrainedModel) -> None:
    """A window as long as the longest text is none (see `_lost_windows`)."""
    for part in (spec.decoder, *(layer.self_attention for layer in spec.decoder.layer)):
        vars(part)["sliding_window"] = np.int32(0)


def _set_t5_scale(spec: Any, model: PreTrainedModel) -> None:
    # Not by tie_word_embeddings: a projection may be tied and not scaled, and the other way round.
    spec.decoder.scale_outputs = (
        model.config.d_model**-0.5 if getattr(model.config, "scale_decoder_outputs", False) else 1.0
    )
    for layer in (*spec.encoder.layer, *spec.decoder.layer):
        for attention in (layer.self_attention, getattr(layer, "attention", None)):
            if attention is not None:
                vars(attention)["head_dim"] = np.int32(model.config.d_kv)


def _name_m2m_100(model: PreTrainedModel) -> None:
    _rename_bart(True, False)(model)
    for side in (model.model.encoder, model.model.decoder):
        positions = side.embed_positions
        # Counted from behind the padding token.
        vars(positions)["weight"] = positions.weights[positions.padding_idx + 1 :]
        positions.offset = 0


_T5 = _Recipe(conversion.T5Loader(), TARGET_TOKENS, "layer_norm_epsilon", finish=_set_t5_scale)

_RECIPES: dict[str, _Recipe] = {
    "gpt2": _Recipe(conversion.GPT2Loader(), NEXT_TOKENS, "layer_norm_epsilon", _lost_of_gpt2),
    "llama": _Recipe(conversion.LlamaLoader(), NEXT_TOKENS, "rms_norm_eps", _lost_of_llama, finish=_set_head_dim),
    "qwen2": _Recipe(conversion.Qwen2Loader(), NEXT_TOKENS, "rms_norm_eps", _lost_of_llama),
    "qwen3": _Recipe(conversion.Qwen3Loader(), NEXT_TOKENS, "rms_norm_eps", _lost_of_llama),
    "mistral": _Recipe(conversion.MistralLoader(), NEXT_TOKENS, "rms_norm_eps", _lost_of_mistral, finish=_set_mistral),
    "gemma3_text": _Recipe(
        conversion.Gemma3Loader(), NEXT_TOKENS, "rms_norm_eps", _lost_of_gemma_3, finish=_set_gemma_3
    ),
    "gpt_neox": _Recipe(
        conversion.GPTNeoXLoader(),
        NEXT_TOKENS,
        "layer_norm_eps",
        _lost_of_gpt_neox,
        adapt=_rename_gpt_neox,
        finish=_set_rotary_base,
    ),
    "bart": _Recipe(conversion.BartLoader(), TARGET_TOKENS, None, adapt=_rename_bart(False, True)),
    "mbart": _Recipe(conversion.BartLoader(), TARGET_TOKENS, None, adapt=_rename_bart(True, True)),
    # Not the converter's own for Marian: it cuts the last row as the padding, which is the first in models made here,
    # and lets the decoder begin with zeros for the embedding of the start token.
    "marian": _Recipe(conversion.BartLoader(), TARGET_TOKENS, None, adapt=_rename_bart(False, False)),
    "m2m_100": _Recipe(conversion.BartLoader(), TARGET_TOKENS, None, adapt=_name_m2m_100),
    "t5": _T5,
    "mt5": _T5,
}
