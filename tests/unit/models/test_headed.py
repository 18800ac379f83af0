"""Shapes: B examples, S tokens, P target positions, V classes, D hidden."""

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertForMaskedLM, PreTrainedModel

from lightpaff.models.headed import HeadedModel, HeadLayout

VOCABULARY = 11


def make_model() -> BertForMaskedLM:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, max_position_embeddings=8, **sizes)).eval()


def make_headed(classes: int, seen: list[Tensor] | None = None, bias: str | None = None) -> HeadedModel:
    def trunk(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
        return inputs["hidden_BSD"]

    def pre_head(model: PreTrainedModel, hidden_PD: Tensor) -> Tensor:
        if seen is not None:
            seen.append(hidden_PD)
        return 2 * hidden_PD

    return HeadedModel(make_model(), HeadLayout(trunk, "cls.predictions.decoder", pre_head, bias), classes)


def test_only_the_target_positions_reach_the_pre_head() -> None:
    seen: list[Tensor] = []
    hidden_BSD = torch.randn(3, 5, 8)
    features_PD = make_headed(VOCABULARY, seen).features({"hidden_BSD": hidden_BSD}, torch.tensor([0, 4, 5, 13]))
    expected_PD = torch.stack([hidden_BSD[0, 0], hidden_BSD[0, 4], hidden_BSD[1, 0], hidden_BSD[2, 3]])
    assert torch.equal(seen[0], expected_PD)
    assert torch.equal(features_PD, 2 * expected_PD)


def test_no_target_positions_give_no_logits_and_a_zero_gradient() -> None:
    headed = make_headed(VOCABULARY)
    logits_PV = headed.logits({"hidden_BSD": torch.randn(2, 3, 8)}, torch.tensor([], dtype=torch.int64))
    assert logits_PV.shape == (0, VOCABULARY)
    torch.autograd.backward(logits_PV.sum())
    gradient = headed.model.get_parameter("cls.predictions.decoder.weight").grad
    assert gradient is not None
    assert not gradient.any()


def test_the_projection_has_the_real_classes_only() -> None:
    headed = make_headed(classes=7)
    decoder = headed.model.get_submodule("cls.predictions.decoder")
    assert isinstance(decoder, torch.nn.Linear)
    assert torch.equal(headed.weight_VD, decoder.weight[:7])
    assert headed.bias_V is not None
    assert torch.equal(headed.bias_V, decoder.bias[:7])


@pytest.mark.parametrize("shape", [(VOCABULARY,), (1, VOCABULARY)])
def test_a_bias_elsewhere_is_taken_where_the_projection_has_none(shape: tuple[int, ...]) -> None:
    headed = make_headed(classes=7, bias="final_logits_bias")
    headed.model.register_buffer("final_logits_bias", torch.randn(shape))
    decoder = headed.model.get_submodule("cls.predictions.decoder")
    assert headed.bias_V is not None
    assert torch.equal(headed.bias_V, decoder.bias[:7])
    decoder.bias = None
    assert torch.equal(headed.bias_V, headed.model.get_buffer("final_logits_bias").flatten()[:7])
    hidden_BSD = torch.randn(1, 1, 8)
    logits_PV = headed.logits({"hidden_BSD": hidden_BSD}, torch.tensor([0]))
    torch.testing.assert_close(logits_PV, 2 * hidden_BSD[0] @ headed.weight_VD.T + headed.bias_V)


def test_gradients_reach_the_tied_parameter_of_the_model() -> None:
    headed = make_headed(classes=7)
    torch.autograd.backward(headed.weight_VD.sum())
    gradient = headed.model.get_parameter("bert.embeddings.word_embeddings.weight").grad
    assert gradient is not None
    assert gradient.sum() == 7 * 8


@pytest.mark.parametrize("classes", [0, VOCABULARY + 1])
def test_classes_have_to_fit_the_output_layer(classes: int) -> None:
    with pytest.raises(AssertionError, match=f"{classes} classes"):
        make_headed(classes)
