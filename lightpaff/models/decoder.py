"""The decoder family: where GPT-2 and its kin split, what their configs call things.

Their head is `next_tokens`: every token is predicted from those before it.

Several documents may lie one after the other in a row. `position_ids` that begin again at 0 with every document, and
no `attention_mask`, tell transformers that they are separate: it then keeps attention within each of them.

Shapes: B examples, S tokens, P target positions, D hidden.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lightpaff.models.architecture import NEXT_TOKENS, Architecture, Head, LayerList, SizeNames
from lightpaff.models.headed import HeadLayout
from lightpaff.recipe_sections import FromScratch, Shape


def _run_trunk(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    # Embeddings in place of token ids: given those, GPT-2 looks for padding at each step, and warns of a mask that is
    # not needed here.
    others = {name: tensor for name, tensor in inputs.items() if name != "input_ids"}
    embeddings_BSD = model.get_input_embeddings()(inputs["input_ids"])
    hidden_BSD: Tensor = model.base_model(inputs_embeds=embeddings_BSD, **others, use_cache=False).last_hidden_state
    return hidden_BSD


def _next_tokens(*more_names: str) -> dict[str, Head]:
    """The head's projection is `lm_head`; `more_names` are what files call it besides."""
    return {
        NEXT_TOKENS: Head(
            AutoModelForCausalLM,
            HeadLayout(_run_trunk, "lm_head"),
            ("lm_head.", *more_names),
            stored=(),
            foreign="score.",
        )
    }


def _divide_key_value_heads(config: PreTrainedConfig, teacher_config: PreTrainedConfig, shape: Shape) -> None:
    """As many heads to a key/value head as the teacher has, and heads as wide in proportion to the hidden size."""
    assert shape.hidden_size is not None
    assert shape.heads is not None
    groups = shape.heads * teacher_config.num_key_value_heads // teacher_config.num_attention_heads
    divisors = [number for number in range(1, max(groups, 1) + 1) if shape.heads % number == 0]
    config.num_key_value_heads = divisors[-1]
    # Not every config says it (Qwen2's does not), and where one does, heads need not fill the hidden size (Qwen3's).
    if (teacher_head_dim := getattr(teacher_config, "head_dim", None)) is not None:
        widening = (shape.hidden_size * teacher_config.num_attention_heads) / (shape.heads * teacher_config.hidden_size)
        # Rotary position embeddings turn pairs of dimensions.
        config.head_dim = 2 * max(1, round(teacher_head_dim * widening / 2))


def _divide_gemma(config: PreTrainedConfig, teacher_config: PreTrainedConfig, shape: Shape) -> None:
    """As `_divide_key_value_heads`; what the scores are divided by grows with the heads' width as in the teacher."""
    _divide_key_value_heads(config, teacher_config, shape)
    scale = teacher_config.query_pre_attn_scalar * config.head_dim / teacher_config.head_dim
    config.query_pre_attn_scalar = max(1, round(scale))


def _unlike_gemma_3(config: PreTrainedConfig) -> str:
    if config.final_logit_softcapping is not None:
        return "final_logit_softcapping, which bends the logits"
    return "use_bidirectional_attention, which lets tokens see those after them" * bool(
        config.use_bidirectional_attention
    )


def _first_and_last(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}


def _tied(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    return {**_first_and_last(from_scratch, tokenizer), "tie_word_embeddings": True}


def _one_head_a_group(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Every head has keys and values of its own, and the heads fill the hidden size, as in the first Llama."""
    return {
        **_first_and_last(from_scratch, tokenizer),
        "num_key_value_heads": from_scratch.heads,
        "head_dim": from_scratch.hidden_size // from_scratch.heads,
    }


def _whole_past(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """As today's Mistral, which looks back on everything; the first did on 4,096 tokens, the config's default."""
    return {**_one_head_a_group(from_scratch, tokenizer), "sliding_window": None}


def _gemma_settings(from_scratch: FromScratch, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    settings = _one_head_a_group(from_scratch, tokenizer)
    return {**settings, "query_pre_attn_scalar": settings["head_dim"]}


_LLAMA = Architecture(
    heads=_next_tokens(),
    layers=(LayerList("model.layers"),),
    dropouts=("attention_dropout",),
    before_resizing=_divide_key_value_heads,
    scratch_settings=_one_head_a_group,
    needs_even_head_size=True,
)

ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(
        heads=_next_tokens(),
        layers=(LayerList("transformer.h"),),
        dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
        sizes=SizeNames(layers=("n_layer",), hidden_size=("n_embd",), heads=("n_head",), feed_forward=("n_inner",)),
        scratch_settings=_tied,
    ),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "mistral": replace(_LLAMA, scratch_settings=_whole_past),
    "gemma3_text": replace(
        _LLAMA, before_resizing=_divide_gemma, scratch_settings=_gemma_settings, unlike=_unlike_gemma_3
    ),
    "gpt_neox": Architecture(
        heads=_next_tokens("embed_out."),
        layers=(LayerList("gpt_neox.layers"),),
        dropouts=("attention_dropout", "hidden_dropout"),
        scratch_settings=_first_and_last,
        needs_even_head_size=True,
    ),
}
"""What is known, by transformers' model_type."""
