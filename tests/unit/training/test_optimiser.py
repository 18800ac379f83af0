import pytest
import torch
from transformers import BertConfig, BertForMaskedLM

from lightpaff.recipe_training import Training
from lightpaff.training.optimiser import create_optimiser, freeze

SETTINGS = Training(steps=1, learning_rate=0.5, weight_decay=0.1)


def tiny_model() -> BertForMaskedLM:
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    return BertForMaskedLM(config)


def test_matrices_decay_and_vectors_do_not() -> None:
    model = tiny_model()
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, others = create_optimiser(model, SETTINGS).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    decayed_names, other_names = ({name_of[id(p)] for p in group["params"]} for group in (decayed, others))
    assert decayed_names | other_names == set(name_of.values())
    assert not decayed_names & other_names
    assert other_names == {name for name in name_of.values() if name.endswith("bias") or "LayerNorm" in name}
    assert "bert.embeddings.word_embeddings.weight" in decayed_names


def test_tied_weights_are_there_once() -> None:
    model = tiny_model()
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    groups = create_optimiser(model, SETTINGS).param_groups
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(ids) == len(set(ids))


def test_frozen_parameters_stay_out() -> None:
    model = tiny_model()
    model.bert.embeddings.requires_grad_(False)
    model.bert.embeddings.word_embeddings.weight.requires_grad_(True)
    groups = create_optimiser(model, SETTINGS).param_groups
    kept = {id(parameter) for group in groups for parameter in group["params"]}
    assert kept == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


@pytest.mark.parametrize("is_frozen", [False, True])
def test_the_table_of_tokens_is_frozen_where_the_settings_say_so(is_frozen: bool) -> None:
    model = tiny_model()
    freeze(model, SETTINGS.model_copy(update={"freeze_embeddings": is_frozen}))
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == ({"bert.embeddings.word_embeddings.weight"} if is_frozen else set())


def test_without_gradient_only_decay_moves_a_weight() -> None:
    model = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(model.weight)
    torch.nn.init.ones_(model.bias)
    optimiser = create_optimiser(model, SETTINGS)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    torch.testing.assert_close(model.weight.data, torch.full((2, 2), 1 - 0.5 * 0.1))
    torch.testing.assert_close(model.bias.data, torch.ones(2))
