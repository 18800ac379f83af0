"""What is in an export for CTranslate2, how large it is, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BertConfig, PreTrainedTokenizerFast

from lightpaff.deployment.ctranslate2_runtime import Ctranslate2TextRunner, Ctranslate2TokenRunner
from lightpaff.deployment.export_ctranslate2 import export_ctranslate2
from lightpaff.errors import UserError
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_sections import FromScratch
from lightpaff.runtimes import Quantisation

TEXTS = ["the quick brown fox jumps over the lazy dog", "a stitch in time saves nine"] * 3
_ROTARY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32},
    "qwen2": _ROTARY,
    "mistral": _ROTARY,
    "gemma3_text": {**_ROTARY, "head_dim": 16},
    "gpt_neox": _ROTARY,
    "bart": {
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "max_position_embeddings": 32,
    },
}


def save_model(folder: Path, architecture: str, **settings: Any) -> PreTrainedTokenizerFast:
    is_decoder = architecture != "bart"
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "feed_forward": 48, "vocabulary_size": 300, "max_length": 32}
    from_scratch = FromScratch(architecture=architecture, **sizes)
    tokenizer = train_tokenizer(
        iter(TEXTS), from_scratch, "decoder" if is_decoder else "encoder-decoder", () if is_decoder else ("en", "ne")
    )
    config = AutoConfig.for_model(
        architecture,
        **{
            "vocab_size": max(tokenizer.get_vocab().values()) + 4,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            **({} if is_decoder else {"decoder_start_token_id": tokenizer.bos_token_id}),
            **SIZES[architecture],
            **settings,
        },
    )
    (AutoModelForCausalLM if is_decoder else AutoModelForSeq2SeqLM).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize(("architecture", "name"), [("gpt2", "vocabulary.json"), ("bart", "shared_vocabulary.json")])
def test_every_id_is_its_token(architecture: str, name: str, tmp_path: Path) -> None:
    tokenizer = save_model(tmp_path / "model", architecture)
    export_ctranslate2(tmp_path / "model", tmp_path / "export", "none")
    tokens = json.loads((tmp_path / "export" / name).read_text("utf-8"))
    for token, id_ in tokenizer.get_vocab().items():
        assert tokens[id_] == token
    # Three rows are no token's; their names are like no other.
    assert len(set(tokens)) == len(tokens) == len(tokenizer.get_vocab()) + 3
    config = json.loads((tmp_path / "export" / "config.json").read_text("utf-8"))
    assert config["eos_token"] == tokenizer.eos_token
    assert config["bos_token"] == tokenizer.bos_token
    assert config["unk_token"] == tokenizer.unk_token
    assert config.get("decoder_start_token") == ("<s>" if architecture == "bart" else None)
    assert not config.get("add_source_eos", False)


@pytest.mark.parametrize(
    ("quantisation", "most", "tolerance"), [("none", 1.02, 1e-4), ("bf16", 0.52, 0.05), ("int8", 0.35, 0.1)]
)
def test_quantised_weights_are_smaller_and_nearly_the_same(
    quantisation: Quantisation, most: float, tolerance: float, tmp_path: Path
) -> None:
    tokenizer = save_model(tmp_path / "model", "gpt2")
    export_ctranslate2(tmp_path / "model", tmp_path / "export", quantisation)
    size = (tmp_path / "export" / "model.bin").stat().st_size
    assert size < most * (tmp_path / "model" / "model.safetensors").stat().st_size
    row = [5, 9, 31, 7, 40, 3]
    [nll] = Ctranslate2TokenRunner(tmp_path / "export", threads=1).nll([row])
    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
        # No probability is those rows' that are no tokens.
        log_SV = model(input_ids=torch.tensor([row])).logits[0, :, : len(tokenizer)].log_softmax(-1)
    expected = -log_SV[:-1].gather(1, torch.tensor(row[1:])[:, None])[:, 0].numpy()
    np.testing.assert_allclose(nll, expected, atol=tolerance)


def test_the_end_token_does_not_stop_a_continuation(tmp_path: Path) -> None:
    tokenizer = save_model(tmp_path / "model", "gpt2", tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    with torch.no_grad():
        # Every state is the final norm's bias, and the end token's row is the only one that answers to it.
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.eos_token_id] = 1.0
    model.save_pretrained(tmp_path / "model")
    export_ctranslate2(tmp_path / "model", tmp_path / "export", "none")
    runner = Ctranslate2TokenRunner(tmp_path / "export", threads=1)
    assert runner.continue_prompts([[5, 6], [7]], 4) == [[tokenizer.eos_token_id] * 4] * 2


def test_padding_is_never_written(tmp_path: Path) -> None:
    tokenizer = save_model(tmp_path / "model", "bart")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    model.final_logits_bias[0, tokenizer.pad_token_id] = 50.0
    model.final_logits_bias[0, 17] = 40.0
    model.save_pretrained(tmp_path / "model")
    export_ctranslate2(tmp_path / "model", tmp_path / "export", "int8")
    runner = Ctranslate2TextRunner(tmp_path / "export", threads=1)
    assert runner.write([[9, 10, 2]], beams=1, length_penalty=1.0, max_tokens=3) == [[17, 17, 17]]


@pytest.mark.parametrize(
    ("architecture", "settings", "words"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale of the attention"),
        ("gpt2", {"activation_function": "tanh"}, "tanh"),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
            "sliding_window",
        ),
        ("qwen2", {"hidden_act": "gelu"}, "activation gelu"),
        ("mistral", {"sliding_window": 31}, "window of 31 tokens"),
        ("mistral", {"hidden_act": "gelu", "sliding_window": None}, "activation gelu"),
        ("gemma3_text", {"sliding_window": 4}, "window of 4 tokens"),
        ("gemma3_text", {"hidden_activation": "silu", "sliding_window": 32}, "activation silu"),
        (
            "gemma3_text",
            {
                "sliding_window": 32,
                "layer_types": ["sliding_attention", "full_attention"],
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
            },
            "of the type linear",
        ),
        ("bart", {"activation_function": "mish"}, "no activation mish"),
        (
            "gpt_neox",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.2}},
            "turn 3 dimensions",
        ),
        (
            "gpt_neox",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
            "of the type linear",
        ),
    ],
)
def test_what_would_be_lost_is_refused(architecture: str, settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    save_model(tmp_path / "model", architecture, **settings)
    with pytest.raises(UserError, match=words):
        export_ctranslate2(tmp_path / "model", tmp_path / "export", "none")
    assert not (tmp_path / "export").exists()


def test_encoders_and_unknown_start_tokens_are_refused(tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UserError, match="is a bert, and to CTranslate2 go only gpt2"):
        export_ctranslate2(tmp_path / "bert", tmp_path / "export", "none")
    save_model(tmp_path / "model", "bart")
    with pytest.raises(UserError, match="no token <fr>"):
        export_ctranslate2(tmp_path / "model", tmp_path / "export", "none", decoder_start="<fr>")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"vocabulary\.json"):
        Ctranslate2TokenRunner(tmp_path / "empty")
