import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from lightpaff.errors import UserError
from lightpaff.models import encoder
from lightpaff.models.architecture import CLASSES, MASKED_TOKENS, NEXT_TOKENS, TOKEN_CLASSES
from lightpaff.models.families import ARCHITECTURES
from lightpaff.models.opening import (
    NAMED_CLASSES,
    lacks_head,
    open_headed,
    quiet_transformers,
    read_config,
    seeded,
    set_dropout,
    split_model,
)
from lightpaff.models.shapes import scratch_config
from lightpaff.models.weights import WEIGHTS, tensor_names
from lightpaff.recipe_sections import FromScratch

VOCABULARY = 23
HEADS = (MASKED_TOKENS, CLASSES)
SIZES = {"layers": 1, "hidden_size": 8, "heads": 2, "feed_forward": 8, "max_length": 24}
OTHERS = [model_type for model_type in ARCHITECTURES if model_type not in encoder.ARCHITECTURES]
"""Decoders and encoder-decoders: they have one head, which predicts tokens."""

TOKENIZER = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY - 5)}, "w0")),
    pad_token="<pad>",
    bos_token="<s>",
    eos_token="</s>",
    cls_token="<cls>",
    sep_token="<sep>",
)


def make_config(architecture: str, **settings: Any) -> Any:
    config = scratch_config(FromScratch.model_validate({"architecture": architecture, **SIZES}), TOKENIZER)
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def pretraining_head(architecture: str) -> str:
    return next(iter(ARCHITECTURES[architecture].heads))


def save_model(path: Path, architecture: str, head: str | None, **settings: Any) -> PreTrainedModel:
    """Save a model with a head, or the trunk alone."""
    auto_class = AutoModel if head is None else ARCHITECTURES[architecture].heads[head].auto_class
    model: PreTrainedModel = auto_class.from_config(make_config(architecture, **settings))
    model.save_pretrained(path)
    return model


def open_on_cpu(path: Path, head: str, classes: int, **settings: Any) -> Any:
    return open_headed(path, head, classes, device="cpu", attention="eager", **settings).model


@pytest.mark.parametrize("stored", [MASKED_TOKENS, CLASSES, None])
@pytest.mark.parametrize("asked", HEADS)
@pytest.mark.parametrize("architecture", encoder.ARCHITECTURES)
def test_a_head_is_found_only_where_it_is_stored(
    architecture: str, asked: str, stored: str | None, tmp_path: Path
) -> None:
    save_model(tmp_path, architecture, stored)
    assert lacks_head(tmp_path, asked) == (stored != asked)


@pytest.mark.parametrize("architecture", encoder.ARCHITECTURES)
def test_an_untied_head_without_its_projection_is_lacking(architecture: str, tmp_path: Path) -> None:
    save_model(tmp_path, architecture, MASKED_TOKENS)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    assert lacks_head(tmp_path, MASKED_TOKENS)


@pytest.mark.parametrize(("architecture", "name"), [("bert", "cls.predictions."), ("roberta", "lm_head.")])
def test_an_untied_head_has_its_bias_by_either_name(architecture: str, name: str, tmp_path: Path) -> None:
    save_model(tmp_path, architecture, MASKED_TOKENS, tie_word_embeddings=False)
    tensors = load_file(tmp_path / WEIGHTS)
    bias_V = torch.arange(len(tensors[f"{name}bias"])).float()
    tensors.pop(f"{name}decoder.bias", None)
    save_file({**tensors, f"{name}bias": bias_V}, tmp_path / WEIGHTS, metadata={"format": "pt"})
    opened = open_headed(tmp_path, MASKED_TOKENS, len(bias_V), device="cpu", attention="eager")
    assert opened.bias_V is not None
    assert torch.equal(opened.bias_V.detach(), bias_V)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("architecture", encoder.ARCHITECTURES)
def test_all_that_is_trained_to_predict_tokens_is_read(architecture: str, is_tied: bool, tmp_path: Path) -> None:
    """Ranks wait for the gradient of every parameter."""
    model = save_model(tmp_path, architecture, MASKED_TOKENS, tie_word_embeddings=is_tied)
    opened = open_headed(tmp_path, MASKED_TOKENS, model.config.vocab_size, device="cpu", attention="eager")
    ids_BS = torch.randint(5, VOCABULARY - 5, (2, 6))
    inputs = {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}
    opened.logits(inputs, torch.arange(12)).log_softmax(1)[:, 0].sum().backward()
    unread = [name for name, tensor in opened.named_parameters() if tensor.requires_grad and tensor.grad is None]
    assert unread == []


def test_a_tagger_that_was_saved_with_a_pooler_is_one(tmp_path: Path) -> None:
    save_model(tmp_path, "bert", TOKEN_CLASSES)
    tensors = load_file(tmp_path / WEIGHTS)
    pooler = {f"bert.pooler.dense.{name}": torch.zeros(shape) for name, shape in (("weight", (8, 8)), ("bias", (8,)))}
    save_file({**tensors, **pooler}, tmp_path / WEIGHTS, metadata={"format": "pt"})
    assert not lacks_head(tmp_path, TOKEN_CLASSES)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": None}))
    assert lacks_head(tmp_path, TOKEN_CLASSES)


@pytest.mark.parametrize("dropout", [None, 0.1])
def test_no_whole_layer_is_left_out_by_chance(dropout: float | None) -> None:
    config = make_config("bart")
    config.encoder_layerdrop = config.decoder_layerdrop = 0.2
    before = config.dropout
    set_dropout(config, dropout)
    assert (config.encoder_layerdrop, config.decoder_layerdrop) == (0.0, 0.0)
    assert config.dropout == (before if dropout is None else dropout)


def test_sharded_weights_are_read_through_their_index(tmp_path: Path) -> None:
    model = AutoModelForMaskedLM.from_config(make_config("bert"))
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="1KB")
    assert not (tmp_path / "sharded" / "model.safetensors").exists()
    assert tensor_names(tmp_path / "sharded") == tensor_names(tmp_path / "whole")
    assert not lacks_head(tmp_path / "sharded", MASKED_TOKENS)
    assert open_on_cpu(tmp_path / "sharded", MASKED_TOKENS, VOCABULARY).config.vocab_size == VOCABULARY


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", encoder.ARCHITECTURES)
def test_a_missing_head_follows_the_seed(architecture: str, head: str, tmp_path: Path) -> None:
    trunk = save_model(tmp_path, architecture, None)
    classes = VOCABULARY if head == MASKED_TOKENS else 3
    before = torch.get_rng_state()
    first, again, other = (open_on_cpu(tmp_path, head, classes, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    states = [model.state_dict() for model in (first, again, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    table = trunk.get_input_embeddings().weight
    assert torch.equal(other.get_input_embeddings().weight, table)
    assert first.dtype == torch.float32
    assert not first.training


@pytest.mark.parametrize("architecture", OTHERS)
def test_a_tied_head_is_not_stored_and_an_untied_one_is_missed(architecture: str, tmp_path: Path) -> None:
    head = pretraining_head(architecture)
    trunk = save_model(tmp_path / "trunk", architecture, None)
    save_model(tmp_path / "whole", architecture, head)
    assert lacks_head(tmp_path / "trunk", head) == (not trunk.config.tie_word_embeddings)
    assert not lacks_head(tmp_path / "whole", head)
    opened = open_on_cpu(tmp_path / "trunk", head, VOCABULARY)
    table = trunk.get_input_embeddings().weight
    assert torch.equal(opened.get_input_embeddings().weight, table)
    if trunk.config.tie_word_embeddings:
        assert torch.equal(opened.get_output_embeddings().weight, table)


STORED = [(architecture, head) for architecture, known in ARCHITECTURES.items() for head in known.heads]


@pytest.mark.parametrize(("architecture", "head"), STORED)
def test_a_stored_head_is_kept(architecture: str, head: str, tmp_path: Path) -> None:
    saved = save_model(tmp_path, architecture, head, **({"num_labels": 3} if head in NAMED_CLASSES else {}))
    opened = open_on_cpu(tmp_path, head, 3 if head in NAMED_CLASSES else VOCABULARY, seed=5)
    assert opened.state_dict().keys() == saved.state_dict().keys()
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in opened.state_dict().items())
    assert not opened.training


def test_gpt_neox_projection_is_found_under_both_its_names(tmp_path: Path) -> None:
    saved = save_model(tmp_path, "gpt_neox", NEXT_TOKENS)
    tensors = load_file(tmp_path / WEIGHTS)
    [stored] = {"embed_out.weight", "lm_head.weight"} & tensors.keys()
    [other] = {"embed_out.weight", "lm_head.weight"} - {stored}
    save_file({other if name == stored else name: tensor for name, tensor in tensors.items()}, tmp_path / WEIGHTS)
    assert not lacks_head(tmp_path, NEXT_TOKENS)
    opened = open_on_cpu(tmp_path, NEXT_TOKENS, VOCABULARY)
    assert torch.equal(opened.get_output_embeddings().weight, saved.get_output_embeddings().weight)


def test_half_precision_weights_are_opened_in_float32(tmp_path: Path) -> None:
    AutoModelForMaskedLM.from_config(make_config("bert")).to(torch.bfloat16).save_pretrained(tmp_path)
    assert {parameter.dtype for parameter in open_on_cpu(tmp_path, MASKED_TOKENS, VOCABULARY).parameters()} == {
        torch.float32
    }


def test_labels_and_the_kind_of_problem_are_kept(tmp_path: Path) -> None:
    save_model(tmp_path, "bert", MASKED_TOKENS)
    config = open_on_cpu(tmp_path, CLASSES, 2, labels=["no", "yes"]).config
    assert config.id2label == {0: "no", 1: "yes"}
    assert config.label2id == {"no": 0, "yes": 1}
    assert config.problem_type == "single_label_classification"
    assert open_on_cpu(tmp_path, CLASSES, 1).config.problem_type == "regression"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_reaches_every_module(architecture: str, tmp_path: Path) -> None:
    head = pretraining_head(architecture)
    save_model(tmp_path, architecture, head)
    # Under a head for classes, as these have a dropout of their own.
    asked, classes = (CLASSES, 2) if head == MASKED_TOKENS else (head, VOCABULARY)
    model = open_on_cpu(tmp_path, asked, classes, dropout=0.25)
    # Some keep a probability as a number and apply it in a function.
    kept = [
        value
        for module in model.modules()
        for name, value in vars(module).items()
        if (name == "p" and isinstance(module, torch.nn.Dropout)) or (name.endswith("dropout") and name != "dropout")
    ]
    kept += [module.dropout for module in model.modules() if isinstance(getattr(module, "dropout", None), float)]
    assert kept
    assert set(kept) == {0.25}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_left_out_is_the_models_own(architecture: str) -> None:
    config = make_config(architecture)
    names = ARCHITECTURES[architecture].dropouts
    before = {name: getattr(config, name) for name in names}
    set_dropout(config, None)
    assert {name: getattr(config, name) for name in names} == before


def test_opening_is_quiet_and_leaves_the_verbosity(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    save_model(tmp_path, "bert", None)
    capfd.readouterr()
    before = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    open_on_cpu(tmp_path, MASKED_TOKENS, VOCABULARY)
    assert (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_quiet_ends_with_an_error_too() -> None:
    before = transformers_logging.get_verbosity()
    with pytest.raises(KeyError), quiet_transformers():
        raise KeyError
    assert transformers_logging.get_verbosity() == before


def test_seeded_draws_repeat_and_leave_the_generator() -> None:
    before = torch.get_rng_state()
    with seeded(4):
        first = torch.rand(3)
    with seeded(4):
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(torch.get_rng_state(), before)


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "bert", CLASSES, num_labels=3)
    with pytest.raises(UserError, match=r"fine-tuned for 3 classes .* where 2 are needed"):
        open_on_cpu(tmp_path, CLASSES, 2)


def test_the_same_labels_in_another_order_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "bert", CLASSES, id2label={0: "Yes", 1: "No"}, label2id={"Yes": 0, "No": 1})
    with pytest.raises(UserError, match="in the order Yes, No"):
        open_on_cpu(tmp_path, CLASSES, 2, labels=["no", "yes"])
    assert open_on_cpu(tmp_path, CLASSES, 2, labels=["yes", "no"]).config.id2label == {0: "yes", 1: "no"}


def test_an_unknown_architecture_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    with pytest.raises(
        UserError, match=r"'albert'.*known one: bert, roberta, xlm-roberta, camembert, mpnet, deberta-v2, electra"
    ):
        read_config(tmp_path)


def test_splitting_an_unknown_architecture_is_refused() -> None:
    model = AutoModelForMaskedLM.from_config(
        AutoConfig.for_model("albert", vocab_size=9, embedding_size=4, hidden_size=4, num_attention_heads=1)
    )
    with pytest.raises(UserError, match="albert"):
        split_model(model, MASKED_TOKENS, 9)


def _cut_weights(path: Path) -> None:
    with open(path / "model.safetensors", "r+b") as file:
        file.truncate(file.seek(0, 2) // 2)


def _promise_a_layer(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))


def _break_the_index(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text("{}")


def _widen(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "hidden_size": 16}))


def _make_the_config_nonsense(path: Path) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: (path / "config.json").unlink(), "holds no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "is not a JSON object"),
        (lambda path: (path / "config.json").write_text("[]"), "is not a JSON object"),
        (_make_the_config_nonsense, "is not a valid bert config"),
        (lambda path: (path / "model.safetensors").unlink(), "holds no model.safetensors"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "cannot be read"),
        (_break_the_index, "is broken"),
        (_cut_weights, "cannot be read"),
        (_promise_a_layer, r"lacks 16 tensors of a bert, such as bert\.encoder\.layer\.1"),
        (_widen, r"LayerNorm\.bias is 8 in its weights and 16 by its config\.json"),
    ],
)
def test_a_broken_directory_is_told_in_one_line(break_it: Any, message: str, tmp_path: Path) -> None:
    save_model(tmp_path, "bert", MASKED_TOKENS)
    break_it(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        open_on_cpu(tmp_path, MASKED_TOKENS, VOCABULARY)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
