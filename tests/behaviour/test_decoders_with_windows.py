"""Decoders whose layers look back on a few tokens only (Mistral, Gemma 3): taught, delivered and exported as plain
transformers run them, beyond the window too, or refused before any training.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lightpaff.deployment import loading
from lightpaff.deployment.card import ExportCard
from lightpaff.models.tokenizers import train_tokenizer
from lightpaff.recipe_sections import FromScratch
from tests.conftest import TINY_DECODER_RECIPE, Outcome, TinyRecipe, write_language_data

WINDOW = 4
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 4,
    "intermediate_size": 48,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "sliding_window": WINDOW,
    "initializer_range": 0.3,
}
TEACHERS: dict[str, dict[str, Any]] = {
    "mistral": SIZES,
    "gemma3_text": {
        **SIZES,
        "layer_types": ["sliding_attention", "full_attention", "full_attention"] * 2,
        **{"num_hidden_layers": 6},
    },
    # Of two layers evenly spaced the last looks back on a window, of the first two none does.
    "qwen2": {**SIZES, "layer_types": ["full_attention"] * 3 + ["sliding_attention"], "use_sliding_window": True},
}
PROMPT = "bright clever funny gentle grand lovely superb warm bright"


def save_teacher(folder: Path, architecture: str, corpus: Path) -> None:
    sizes = {"layers": 2, "hidden_size": 32, "heads": 2, "feed_forward": 48, "vocabulary_size": 300, "max_length": 64}
    tokenizer = train_tokenizer(iter([corpus.read_text()]), FromScratch(architecture=architecture, **sizes), "decoder")
    end = tokenizer.eos_token_id
    special = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(architecture, vocab_size=len(tokenizer), **special, **TEACHERS[architecture])
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_recipe(folder: Path, architecture: str) -> TinyRecipe:
    write_language_data(folder)
    save_teacher(folder / architecture, architecture, folder / "stories.txt")
    content = deepcopy(TINY_DECODER_RECIPE)
    content |= {"name": architecture, "teacher": {"source": architecture}, "control": False}
    content["student"] = {"layers": 2, "initialisation": "teacher"}
    content["fine_tuning"]["training"] |= {"steps": 2, "evaluations": 1}
    del content["pretraining"]
    del content["tasks"][0]["test"]
    return TinyRecipe(folder, content)


@pytest.mark.parametrize("architecture", ["gemma3_text", pytest.param("mistral", marks=pytest.mark.slow)])
def test_a_student_and_its_graph_look_back_as_plain_transformers(
    architecture: str, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    recipe = make_recipe(tmp_path, architecture)
    outcome = run_cli("run", recipe.write(), "--output", recipe.output)
    assert outcome.code == 0, outcome.stderr
    outcome = run_cli("export", recipe.output, "--to", "onnx")
    assert outcome.code == 0, outcome.stderr
    config = json.loads((recipe.output / "student" / "config.json").read_text())
    assert config["sliding_window"] == WINDOW
    if architecture == "gemma3_text":
        # The first and the last of the teacher's layers.
        assert config["layer_types"] == ["sliding_attention", "full_attention"]
    model = AutoModelForCausalLM.from_pretrained(recipe.output / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(recipe.output / "student")
    start = ExportCard.read(recipe.output / "exports" / "onnx").start
    prompt = tokenizer(tokenizer.decode(start) + PROMPT, add_special_tokens=False, return_tensors="pt")
    assert prompt["input_ids"][0, 0] == start
    assert prompt["input_ids"].shape[1] > 2 * WINDOW

    def continued() -> str:
        written = model.generate(**prompt, max_new_tokens=8, do_sample=False, eos_token_id=None)
        return str(tokenizer.decode(written[0, prompt["input_ids"].shape[1] :]))

    expected = continued()
    assert loading.load(recipe.output / "exports" / "onnx", threads=1)(PROMPT, new_tokens=8) == [expected]
    # The window matters, so agreement means something.
    model.config.sliding_window = 64
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 64
    logits_SV = model(**prompt, use_cache=False).logits[0]
    model.config.sliding_window = WINDOW
    assert not torch.allclose(model(**prompt, use_cache=False).logits[0], logits_SV, atol=1e-2)


@pytest.mark.needs("ctranslate2")
@pytest.mark.parametrize("architecture", ["mistral", "qwen2"])
def test_ctranslate2_is_refused_a_window_before_training(
    architecture: str, tmp_path: Path, run_cli: Callable[..., Outcome]
) -> None:
    recipe = make_recipe(tmp_path, architecture).set("exports", [{"to": "ctranslate2", "quantise": "int8"}])
    outcome = run_cli("plan", recipe.write())
    assert outcome.code == 2
    assert f"drops the window of {WINDOW} tokens that its layers look back on (sliding_window)" in outcome.message


@pytest.mark.needs("ctranslate2")
def test_ctranslate2_takes_layers_without_a_window(tmp_path: Path, run_cli: Callable[..., Outcome]) -> None:
    recipe = make_recipe(tmp_path, "qwen2").set("exports", [{"to": "ctranslate2", "quantise": "int8"}])
    outcome = run_cli("plan", recipe.set("student.teacher_layers", [0, 1]).write())
    assert outcome.code == 0, outcome.stderr
