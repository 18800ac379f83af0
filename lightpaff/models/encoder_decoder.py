"""The encoder-decoder family: where BART, mBART, Marian, M2M100, T5 and mT5 split, what their configs call things.

Their head is `target_tokens`: every token of the target is predicted from the source and the target's tokens before it.
The hidden states are the decoder's.

For MASS (Song et al. 2019, arXiv 1905.02450) the decoder reads a fragment of a text, each token at its original
position: `decoder_position_ids`.

Shapes: B examples, T decoder tokens, P target positions, D hidden.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightpaff.models.architecture import TARGET_TOKENS, Architecture, Head, LayerList, SizeNames
from lightpaff.models.headed import HeadLayout
from lightpaff.recipe_sections import FromScratch, Shape


def _run_trunk(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    # Not model.base_model: T5 has none below its head.
    states_BSD = model.get_encoder()(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
    ).last_hidden_state
    hidden_BTD: Tensor = model.get_decoder()(
        input_ids=inputs["decoder_input_ids"],
        attention_mask=inputs["decoder_attention_mask"],
        encoder_hidden_states=states_BSD,
        encoder_attention_mask=inputs["attention_mask"],
        use_cache=False,
    ).last_hidden_state
    return hidden_BTD


def _run_trunk_at_positions(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """As `_run_trunk`, for decoders that number their tokens themselves, 0, 1, ..., and take no other positions."""
    if "decoder_position_ids" not in inputs:
        return _run_trunk(model, inputs)
    with _positions(model.get_decoder().embed_positions, inputs["decoder_position_ids"]):
        return _run_trunk(model, inputs)


@contextlib.contextmanager
def _positions(table: nn.Module, position_ids_BT: Tensor) -> Iterator[None]:
    """Make a table of position embeddings answer with those of the given positions inside the block."""

    def look_up(table: nn.Module, arguments: tuple[Any, ...], found: Tensor) -> Tensor:
        # The first rows of BART's and mBART's tables are not for positions.
        return functional.embedding(position_ids_BT + getattr(table, "offset", 0), table.get_parameter("weight"))

    def compute(table: Any, arguments: tuple[Any, ...], found: Tensor) -> Tensor:
        # M2M100 counts from behind its padding token, and makes more rows of its sinusoids when they are needed.
        rows_BT = position_ids_BT + table.padding_idx + 1
        if int(rows_BT.max()) >= len(table.weights):
            table.make_weights(int(rows_BT.max()) + 1, table.embedding_dim, table.padding_idx)
        return functional.embedding(rows_BT, table.weights)

    hook = table.register_forward_hook(compute if hasattr(table, "weights") else look_up)
    try:
        yield
    finally:
        hook.remove()


def _scale_down(model: PreTrainedModel, hidden_PD: Tensor) -> Tensor:
    """Where T5's projection is tied to the embeddings, which are wide, the states are scaled down before it."""
    config = model.config
    return hidden_PD * config.d_model**-0.5 if config.scale_decoder_outputs else hidden_PD


def _no_limit(config: PreTrainedConfig) -> None:
    """Distances between tokens have no end."""


def _resize_bart(config: PreTrainedConfig, teacher_config: PreTrainedConfig, shape: Shape) -> None:
    assert shape.hidden_size is not None
    config.init_std = _init_std(shape.hidden_size)


def _init_std(hidden_size: int) -> float:
    """Of random weights: as wide as Xavier's for a square matrix, which MASS's own code (fairseq) takes. The configs'
    0.02 is for wide models; at 256 and below, training takes longer to get going with it."""
    return float(hidden_size**-0.5)


def _resize_t5(config: PreTrainedConfig, teacher_config: PreTrainedConfig, shape: Shape) -> None:
    assert shape.hidden_size is not None
    assert shape.heads is not None
    # As wide in proportion to the hidden size as the teacher's: heads need not fill it (T5 3B, Flan-T5 small, mT5).
    widening = (shape.hidden_size * teacher_config.num_heads) / (shape.heads * teacher_config.d_model)
    config.d_kv = max(1, round(teacher_config.d_kv * widening))


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    first = tokenizer.pad_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    return {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": first,
        "tie_word_embeddings": True,
    }


def _bart_settings(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    # A forced end of the text is a habit of BART's summaries: here the model has to learn where a text ends.
    return {
        **_special_tokens(tokenizer),
        "forced_eos_token_id": None,
        "init_std": _init_std(from_scratch.hidden_size),
    }


def _marian_settings(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {
        **_bart_settings(from_scratch, tokenizer),
        "share_encoder_decoder_embeddings": True,
        # As in all of Marian's own models: no norm follows the embeddings, and the sinusoids of the positions would
        # drown tokens that are not scaled up.
        "scale_embedding": True,
    }


def _one_vocabulary(config: PreTrainedConfig) -> str:
    """Marian's two sides may have vocabularies of their own; one of transformers' two keys for that is enough."""
    if config.share_encoder_decoder_embeddings:
        return ""
    return "share_encoder_decoder_embeddings: false, so its decoder has a vocabulary of its own"


def _is_not_scaled(config: PreTrainedConfig) -> bool:
    """T5 1.1: its config says no more of its projection, and transformers ties every T5 that is not in a file."""
    return not config.scale_decoder_outputs


def _always(config: PreTrainedConfig) -> bool:
    return True


def _t5_settings(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {**_special_tokens(tokenizer), "d_kv": from_scratch.hidden_size // from_scratch.heads}


def _target_tokens(layout: HeadLayout, decoder: str, *parameters: str) -> dict[str, Head]:
    return {
        TARGET_TOKENS: Head(
            AutoModelForSeq2SeqLM,
            layout,
            ("lm_head.", *parameters),
            stored=(),
            foreign="classification_head.",
            target_parameters=(decoder,),
        )
    }


_BART = Architecture(
    heads=_target_tokens(
        HeadLayout(_run_trunk_at_positions, "lm_head", bias="final_logits_bias"),
        "model.decoder.",
        "final_logits_bias",
    ),
    layers=(LayerList("model.encoder.layers"), LayerList("model.decoder.layers", "decoder_layers")),
    dropouts=("dropout", "attention_dropout", "activation_dropout"),
    sizes=SizeNames(
        layers=("encoder_layers",),
        hidden_size=("d_model",),
        heads=("encoder_attention_heads", "decoder_attention_heads"),
        feed_forward=("encoder_ffn_dim", "decoder_ffn_dim"),
        decoder_layers=("decoder_layers",),
    ),
    before_resizing=_resize_bart,
    scratch_settings=_bart_settings,
)

# T5 knows tokens by their distances, which are the same within a fragment as in the whole text: so it needs no
# decoder_position_ids.
_T5 = Architecture(
    heads=_target_tokens(HeadLayout(_run_trunk, "lm_head", _scale_down), "decoder."),
    layers=(LayerList("encoder.block"), LayerList("decoder.block", "decoder_layers")),
    dropouts=("dropout_rate",),
    longest_input=_no_limit,
    sizes=SizeNames(
        layers=("num_layers",),
        hidden_size=("d_model",),
        heads=("num_heads",),
        feed_forward=("d_ff",),
        decoder_layers=("num_decoder_layers",),
    ),
    before_resizing=_resize_t5,
    scratch_settings=_t5_settings,
    has_own_projection=_is_not_scaled,
)

ARCHITECTURES: dict[str, Architecture] = {
    "bart": _BART,
    "mbart": _BART,
    "marian": replace(_BART, scratch_settings=_marian_settings, unlike=_one_vocabulary),
    # NLLB's models too.
    "m2m_100": replace(
        _BART,
        heads=_target_tokens(HeadLayout(_run_trunk_at_positions, "lm_head"), "model.decoder."),
        before_resizing=_resize_bart,
        scratch_settings=_bart_settings,
    ),
    "t5": _T5,
    "mt5": replace(
        _T5,
        heads=_target_tokens(HeadLayout(_run_trunk, "lm_head"), "decoder."),
        has_own_projection=_always,
    ),
}
"""What is known, by transformers' model_type."""
