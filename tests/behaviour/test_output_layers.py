"""Models with an output layer of their own though their config says tied, and models without one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from lightpaff.models.architecture import MASKED_TOKENS, NEXT_TOKENS, TARGET_TOKENS
from lightpaff.models.families import architecture_of
from lightpaff.models.initialisation import create_student
from lightpaff.models.opening import lacks_head, open_headed, read_config
from lightpaff.models.shapes import student_config
from lightpaff.recipe_sections import Student
from tests.behaviour.model_changes import WEIGHTS, edit_config, edit_tensors


@pytest.fixture
def decoder(finished_decoder_run: Any, tmp_path: Path) -> Path:
    """A copy of the finished run's pre-trained GPT-2 of two layers."""
    steps = json.loads((finished_decoder_run.output / "run.json").read_text())["steps"]
    source = finished_decoder_run.output.parent / "steps" / steps["pre-train the teacher"] / "model"
    return Path(shutil.copytree(source, tmp_path / "decoder"))


def test_an_output_layer_of_its_own_though_the_config_says_tied(decoder: Path, tmp_path: Path) -> None:
    """Usual after a trained head was merged: opened with that head, and so is what is saved."""
    edit_tensors(decoder, lambda tensors: tensors.update({"lm_head.weight": torch.randn(300, 32)}))
    assert json.loads((decoder / "config.json").read_text())["tie_word_embeddings"] is not False
    opened = open_headed(decoder, "next_tokens", 300, device="cpu", attention="eager")
    own = load_file(decoder / WEIGHTS)["lm_head.weight"]
    torch.testing.assert_close(opened.weight_VD, own)
    opened.model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    ids_BS = torch.randint(0, 200, (1, 7))
    with torch.no_grad():
        torch.testing.assert_close(again(ids_BS).logits, opened.model(ids_BS).logits)


def test_a_student_of_such_a_teacher_reloads_equal(
    decoder: Path, finished_decoder_run: Any, run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    edit_tensors(decoder, lambda tensors: tensors.update({"lm_head.weight": torch.randn(300, 32) / 6}))
    content = json.loads(json.dumps(finished_decoder_run.content))
    recipe = type(finished_decoder_run)(finished_decoder_run.folder, content)
    recipe.set("teacher", {"source": str(decoder)}).set("pretraining", None).set("control", False)
    output = tmp_path / "runs" / "own-head"
    assert run_cli("run", recipe.write("own-head.yaml"), "--output", output).code == 0
    student = AutoModelForCausalLM.from_pretrained(output / "student")
    assert student.lm_head.weight is not student.get_input_embeddings().weight
    stored = load_file(output / "student" / WEIGHTS)
    torch.testing.assert_close(student.lm_head.weight.data, stored["lm_head.weight"])


ENCODER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DECODER = {**ENCODER, "num_key_value_heads": 1, "head_dim": 8}
BART = {
    "d_model": 16,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 24),
}
T5 = {"d_model": 16, "d_kv": 8, "num_heads": 2, "d_ff": 24, "num_layers": 2, "decoder_start_token_id": 0}
OWN_LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("cls.predictions.decoder.weight", ENCODER),
    "roberta": ("lm_head.decoder.weight", ENCODER),
    "mpnet": ("lm_head.decoder.weight", ENCODER),
    "deberta-v2": ("cls.predictions.decoder.weight", ENCODER),
    "distilbert": ("vocab_projector.weight", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}),
    "electra": ("generator_lm_head.weight", {**ENCODER, "embedding_size": 8}),
    "modernbert": ("decoder.weight", ENCODER),
    "llama": ("lm_head.weight", DECODER),
    "qwen2": ("lm_head.weight", DECODER),
    "qwen3": ("lm_head.weight", DECODER),
    "mistral": ("lm_head.weight", DECODER),
    "gemma3_text": ("lm_head.weight", DECODER),
    "gpt_neox": ("embed_out.weight", ENCODER),
    "bart": ("lm_head.weight", BART),
    "marian": ("lm_head.weight", BART),
    "m2m_100": ("lm_head.weight", BART),
    "t5": ("lm_head.weight", T5),
    "mt5": ("lm_head.weight", T5),
}
"""What the output layer's weight is called in the file, and small sizes."""


def own_layer(architecture: str, path: Path) -> tuple[str, torch.Tensor]:
    """Write a model whose config says tied, with an output layer of its own: the name of its head, and that layer."""
    key, sizes = OWN_LAYERS[architecture]
    ids = {"pad_token_id": 0, **dict.fromkeys(("bos_token_id", "cls_token_id"), 1), "sep_token_id": 2}
    config = AutoConfig.for_model(architecture, vocab_size=40, tie_word_embeddings=True, **ids, eos_token_id=2, **sizes)
    heads = architecture_of(config).heads
    [head] = [name for name in (MASKED_TOKENS, NEXT_TOKENS, TARGET_TOKENS) if name in heads]
    model = heads[head].auto_class.from_config(config)
    model.save_pretrained(path)
    own = torch.randn_like(model.get_output_embeddings().weight.data)
    edit_tensors(path, lambda tensors: tensors.update({key: own}))
    return head, own


@pytest.mark.parametrize("architecture", OWN_LAYERS)
def test_models_and_students_with_an_output_layer_of_their_own_reload_equal(architecture: str, tmp_path: Path) -> None:
    head, own = own_layer(architecture, tmp_path / "teacher")
    config = read_config(tmp_path / "teacher")
    decoder = {"decoder_layers": 1} if architecture_of(config).sizes.decoder_layers else {}
    student = create_student(
        student_config(config, Student(layers=1, **decoder)),
        head,
        40,
        initialisation="teacher",
        teacher_path=tmp_path / "teacher",
        seed=0,
        attention="sdpa",
    )
    teacher = open_headed(tmp_path / "teacher", head, 40, device="cpu", attention="sdpa").model
    ids_BS = torch.randint(3, 40, (2, 7))
    inputs = {"input_ids": ids_BS, **({"decoder_input_ids": ids_BS} if decoder else {})}
    for model in (teacher, student):
        torch.testing.assert_close(model.get_output_embeddings().weight.data, own, rtol=0, atol=0)
        model.save_pretrained(tmp_path / "saved")
        again = type(model).from_pretrained(tmp_path / "saved").eval()
        with torch.no_grad():
            torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("architecture", ["t5", "mt5"])
def test_a_t5_with_a_projection_of_its_own_lacks_its_head_without_it(architecture: str, tmp_path: Path) -> None:
    """Flan-T5 or mT5 saved by AutoModel: transformers ties them then, without a word."""
    own_layer(architecture, tmp_path)
    edit_config(tmp_path, tie_word_embeddings=False)
    assert not lacks_head(tmp_path, "target_tokens")
    edit_tensors(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    assert lacks_head(tmp_path, "target_tokens")
    edit_config(tmp_path, tie_word_embeddings=True)
    assert not lacks_head(tmp_path, "target_tokens")


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForSequenceClassification])
def test_a_decoder_without_an_output_layer_is_no_teacher(
    auto_class: Any, decoder: Path, finished_decoder_run: Any, run_cli: Callable[..., Any]
) -> None:
    model = auto_class.from_pretrained(decoder)
    model.config.tie_word_embeddings = False
    model.save_pretrained(decoder)
    content = json.loads(json.dumps(finished_decoder_run.content))
    recipe = type(finished_decoder_run)(finished_decoder_run.folder, content)
    recipe.set("teacher", {"source": str(decoder)}).set("pretraining", None)
    outcome = run_cli("plan", recipe.write("headless.yaml"))
    assert outcome.code == 2
    assert "comes without a language modelling head (saved without it, or a classifier)" in outcome.message
