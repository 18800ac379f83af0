"""Exports of models that write text answer as transformers does: tiny random models of every architecture.

Shapes: B rows, S tokens, V classes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PreTrainedModel,
)

from lightpaff.deployment.ctranslate2_runtime import Ctranslate2TextRunner, Ctranslate2TokenRunner
from lightpaff.deployment.export_ctranslate2 import export_ctranslate2
from lightpaff.deployment.export_onnx import export_onnx
from lightpaff.deployment.onnx_runtime import OnnxTokenRunner
from lightpaff.deployment.runner import TokenRunner
from lightpaff.evaluation.generation import Search, generate
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_families import Family
from lightpaff.recipe_sections import FromScratch

TEXTS = ["the quick brown fox jumps over the lazy dog", "a stitch in time saves nine", "été à la plage"]
PADDED_ROWS = 5
PROMPTS = [[5, 9, 31, 7], [40], [77, 12, 50], [8, 20, 33]]

_ROTARY = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 24}
_GROUPED = {**_ROTARY, "num_key_value_heads": 2}
_GEMMA = {
    "head_dim": 8,
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention"],
    "query_pre_attn_scalar": 8,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
        "full_attention": {"rope_type": "default", "rope_theta": 500.0},
    },
}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "layer_norm_epsilon": 1e-3}),
    "gpt2, own projection": ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "tie_word_embeddings": False}),
    "llama": ("llama", {**_GROUPED, "head_dim": 4, "rms_norm_eps": 1e-3}),
    "llama, wide heads": ("llama", {**_GROUPED, "head_dim": 8, "tie_word_embeddings": True}),
    "llama, biases": ("llama", {**_GROUPED, "head_dim": 4, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {**_GROUPED, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    "qwen3": ("qwen3", {**_GROUPED, "head_dim": 8}),
    "qwen3, narrow heads": ("qwen3", {**_GROUPED, "head_dim": 2}),
    "mistral": ("mistral", {**_GROUPED, "head_dim": 8, "sliding_window": None, "rms_norm_eps": 1e-3}),
    "mistral, a long window": (
        "mistral",
        {**_GROUPED, "sliding_window": 32, "rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    ),
    "gemma3_text": ("gemma3_text", {**_GROUPED, **_GEMMA, "sliding_window": 32}),
    "gemma3_text, otherwise": (
        "gemma3_text",
        {
            **_GROUPED,
            **_GEMMA,
            "sliding_window": 40,
            "query_pre_attn_scalar": 5,
            "tie_word_embeddings": False,
            "rms_norm_eps": 1e-3,
        },
    ),
    "gpt_neox": ("gpt_neox", {**_ROTARY, "num_attention_heads": 2, "layer_norm_eps": 1e-3}),
    "gpt_neox, otherwise": (
        "gpt_neox",
        {
            **_ROTARY,
            "attention_bias": False,
            "use_parallel_residual": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
        },
    ),
}
_WIDE = {**_GROUPED, "head_dim": 8}
ONNX_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": DECODERS["gpt2"],
    "gpt2, own projection": DECODERS["gpt2, own projection"],
    "gpt2, scaled otherwise": ("gpt2", {**DECODERS["gpt2"][1], "scale_attn_by_inverse_layer_idx": True}),
    "llama": ("llama", {**_WIDE, "rms_norm_eps": 1e-3}),
    "llama, long": (
        "llama",
        {
            **_WIDE,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8,
            },
        },
    ),
    "llama, tied": ("llama", {**_WIDE, "tie_word_embeddings": True, "attention_bias": True}),
    "qwen2": ("qwen2", {**_WIDE, "hidden_size": 32}),
    "qwen2, looking back on 5": (
        "qwen2",
        {**_WIDE, "hidden_size": 32, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", _WIDE),
    "mistral": ("mistral", {**_WIDE, "sliding_window": None}),
    "mistral, looking back on 5": ("mistral", {**_WIDE, "sliding_window": 5}),
    "gemma3_text": ("gemma3_text", {**_WIDE, **_GEMMA, "query_pre_attn_scalar": 5}),
    "gemma3_text, turned slower": (
        "gemma3_text",
        {
            **_WIDE,
            **_GEMMA,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
                "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 8.0},
            },
        },
    ),
    "gpt_neox": ("gpt_neox", {**_ROTARY, "num_attention_heads": 2}),
    "gpt_neox, otherwise": ("gpt_neox", {**DECODERS["gpt_neox, otherwise"][1], "num_attention_heads": 2}),
}
_BART = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
}
_T5 = {"d_model": 16, "num_heads": 2, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 1, "d_kv": 8}
ENCODER_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bart": ("bart", _BART),
    "bart, scaled": ("bart", {**_BART, "scale_embedding": True, "activation_function": "relu"}),
    "mbart": ("mbart", {**_BART, "scale_embedding": True}),
    "marian": ("marian", {**_BART, "scale_embedding": True}),
    "m2m_100": ("m2m_100", {**_BART, "scale_embedding": True}),
    "m2m_100, not scaled": ("m2m_100", {**_BART, "scale_embedding": False, "activation_function": "gelu"}),
    "mt5": ("mt5", {**_T5, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 10}),
    "t5": ("t5", {**_T5, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 10}),
    "t5, own projection": (
        "t5",
        {
            **_T5,
            "d_kv": 6,
            "tie_word_embeddings": False,
            "scale_decoder_outputs": False,
            "feed_forward_proj": "gated-gelu",
        },
    ),
    "t5, tied but not scaled": ("t5", {**_T5, "tie_word_embeddings": True, "scale_decoder_outputs": False}),
}


def save_model(folder: Path, architecture: str, settings: dict[str, Any]) -> tuple[PreTrainedModel, Any]:
    """A tiny random model with a tokenizer of this package, and more rows than tokens."""
    is_decoder = architecture in {kind for kind, _ in DECODERS.values()}
    sizes = {"layers": 2, "hidden_size": 16, "heads": 2, "feed_forward": 24, "vocabulary_size": 300, "max_length": 32}
    family: Family = "decoder" if is_decoder else "encoder-decoder"
    from_scratch = FromScratch(architecture=architecture, **sizes)
    tokenizer = train_tokenizer(iter(TEXTS * 3), from_scratch, family, () if is_decoder else ("en", "ne"))
    config = AutoConfig.for_model(
        architecture,
        vocab_size=max(tokenizer.get_vocab().values()) + 1 + PADDED_ROWS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **({} if is_decoder else {"decoder_start_token_id": tokenizer.bos_token_id}),
        **({} if architecture in ("t5", "mt5") else {"max_position_embeddings": 32}),
        **settings,
    )
    model = (AutoModelForCausalLM if is_decoder else AutoModelForSeq2SeqLM).from_config(config).eval()
    with torch.no_grad():
        # Fresh biases are 0 and norms 1: a forgotten one would not show. Large, so that no two tokens are as likely.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    # What nobody asked for: it must make no difference.
    model.generation_config = GenerationConfig(num_beams=3, max_length=7, no_repeat_ngram_size=2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


def expected_nll(model: PreTrainedModel, row: list[int], classes: int) -> np.ndarray:
    ids_S = torch.tensor(row)
    with torch.inference_mode():
        log_SV = model(input_ids=ids_S[None]).logits[0, :, :classes].log_softmax(-1)
    return -log_SV[:-1].gather(1, ids_S[1:, None])[:, 0].numpy()


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_answers_as_in_transformers(name: str, tmp_path: Path) -> None:
    model, _ = save_model(tmp_path / "model", *DECODERS[name])
    export_ctranslate2(tmp_path / "model", tmp_path / "export", "none")
    check_decoder(model, Ctranslate2TokenRunner(tmp_path / "export", threads=1), model.config.vocab_size - PADDED_ROWS)


@pytest.mark.parametrize("name", ONNX_DECODERS)
def test_a_decoder_s_graph_answers_as_in_transformers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightpaff.deployment.onnx_runtime._SCORED_TOGETHER", 7)  # So that rows are read in parts.
    model, _ = save_model(tmp_path / "model", *ONNX_DECODERS[name])
    (tmp_path / "export").mkdir()
    export_onnx(tmp_path / "model", tmp_path / "export", "none")
    # The rows of a padded output layer are no classes.
    check_decoder(model, OnnxTokenRunner(tmp_path / "export", threads=1), model.config.vocab_size - PADDED_ROWS)


def check_decoder(model: PreTrainedModel, runner: TokenRunner, classes: int) -> None:
    """The same tokens greedily, and the same likelihoods, of the first `classes` tokens."""
    never_written = list(range(classes, model.config.vocab_size)) or None
    for prompt, found in zip(PROMPTS, runner.continue_prompts(PROMPTS, 9), strict=True):
        config = GenerationConfig(
            do_sample=False, max_new_tokens=9, eos_token_id=None, pad_token_id=0, suppress_tokens=never_written
        )
        model.generation_config = config
        ids_BS = torch.tensor([prompt])
        expected_BS = model.generate(ids_BS, attention_mask=torch.ones_like(ids_BS), generation_config=config)
        assert found == expected_BS[0, len(prompt) :].tolist()
    rows = [[*PROMPTS[0], *range(20)], [3], PROMPTS[2], []]
    for row, nll in zip(rows, runner.nll(rows), strict=True):
        assert nll.dtype == np.float32
        assert nll.shape == (max(len(row) - 1, 0),)
        if len(row) > 1:
            np.testing.assert_allclose(nll, expected_nll(model, row, classes), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_an_encoder_decoder_writes_as_in_transformers(name: str, beams: int, tmp_path: Path) -> None:
    model, tokenizer = save_model(tmp_path / "model", *ENCODER_DECODERS[name])
    export_ctranslate2(tmp_path / "model", tmp_path / "export", "none", decoder_start="<ne>")
    runner = Ctranslate2TextRunner(tmp_path / "export", threads=1)
    # The rows of a padded output layer are no classes, and none of the probability is theirs.
    model.resize_token_embeddings(model.config.vocab_size - PADDED_ROWS)
    sources = [tokenizer(text)["input_ids"] for text in TEXTS]
    found = runner.write(sources, beams=beams, length_penalty=1.0, max_tokens=12)
    for source, row in zip(sources, found, strict=True):
        ids_BS = torch.tensor([source])
        expected = generate(
            model,
            {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)},
            Search(
                decoder_start_id=tokenizer.convert_tokens_to_ids("<ne>"),
                end_id=tokenizer.eos_token_id,
                padding_id=tokenizer.pad_token_id,
                beams=beams,
                length_penalty=1.0,
                max_new_tokens=12,
            ),
        )[0].tolist()
        assert row == [id_ for id_ in expected if id_ != tokenizer.eos_token_id]
