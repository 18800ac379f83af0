"""Shapes: B examples, S tokens, P target positions, D hidden."""

import pytest
import torch
from torch import Tensor, nn

from lightpaff.models.architecture import CLASSES, MASKED_TOKENS, NEXT_TOKENS, SPANS, TARGET_TOKENS, TOKEN_CLASSES
from lightpaff.models.building import build_model
from lightpaff.models.encoder import ARCHITECTURES
from lightpaff.models.families import last_layer_of
from lightpaff.models.headed import HeadedModel
from lightpaff.models.opening import configure_head, split_model
from tests.unit.models.test_shapes import VOCABULARY, make_teacher

LAST_MODULES = {"mpnet": "mpnet.encoder.layer.1.output", "distilbert": "distilbert.transformer.layer.1.ffn"}
"""That of BERT's kind is found by name."""


def make_headed(architecture: str, head: str) -> HeadedModel:
    config = make_teacher(architecture, layers=2)
    classes = VOCABULARY if head == MASKED_TOKENS else 3
    configure_head(config, head, classes)
    return split_model(build_model(config, head).eval(), head, classes)


def rows_through(module: nn.Module) -> list[int]:
    """How many states every later call of a module takes."""
    seen: list[int] = []
    module.register_forward_hook(lambda _, inputs, output: seen.append(output.numel() // output.shape[-1]))
    return seen


def last_module(model: HeadedModel, architecture: str) -> nn.Module:
    default = f"{ARCHITECTURES[architecture].layers[0].path}.1.output"
    return model.model.get_submodule(LAST_MODULES.get(architecture, default))


INPUTS = {"input_ids": torch.arange(5, 26).reshape(3, 7), "attention_mask": torch.ones(3, 7, dtype=torch.int64)}
POSITIONS_P = torch.tensor([0, 3, 7, 14, 20])


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name != "modernbert"])
@pytest.mark.parametrize("head", [MASKED_TOKENS, CLASSES, TOKEN_CLASSES])
def test_the_last_layer_is_computed_at_the_target_positions_only(architecture: str, head: str) -> None:
    model = make_headed(architecture, head)
    seen = rows_through(last_module(model, architecture))
    with torch.no_grad():
        narrow_PV = model.logits(INPUTS, POSITIONS_P)
        assert seen == [5]
        # Nothing is left behind for who uses the model itself.
        model.layout.trunk(model.model, INPUTS)
        assert seen == [5, 21]
        model.last_layer = None
        whole_PV = model.logits(INPUTS, POSITIONS_P)
    torch.testing.assert_close(narrow_PV, whole_PV, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_the_whole_layer() -> None:
    gradients: list[dict[str, Tensor]] = []
    for is_whole in (False, True):
        torch.manual_seed(0)
        model = make_headed("bert", CLASSES)
        if is_whole:
            model.last_layer = None
        torch.autograd.backward(model.logits(INPUTS, POSITIONS_P).square().sum())
        named = dict(model.model.named_parameters())
        gradients.append({name: tensor.grad for name, tensor in named.items() if tensor.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_a_row_whose_every_token_is_asked_for_has_all_of_its_last_layer() -> None:
    """Where an answer starts and ends is chosen among all tokens."""
    model = make_headed("bert", SPANS)
    seen = rows_through(last_module(model, "bert"))
    with torch.no_grad():
        model.output_layer(INPUTS, POSITIONS_P)
    assert seen == [21]


@pytest.mark.parametrize(("layers", "is_found"), [(1, False), (2, True)])
def test_a_convolution_over_what_the_first_layer_gives_needs_all_of_it(layers: int, is_found: bool) -> None:
    config = make_teacher("deberta-v2", layers=layers)
    config.conv_kernel_size, config.conv_act = 3, "gelu"
    configure_head(config, CLASSES, 3)
    model = split_model(build_model(config, CLASSES).eval(), CLASSES, 3)
    assert (model.last_layer is not None) is is_found
    with torch.no_grad():
        assert model.logits(INPUTS, POSITIONS_P).shape == (5, 3)


def test_a_feed_forward_in_chunks_keeps_its_rows() -> None:
    config = make_teacher("bert", layers=2)
    config.chunk_size_feed_forward = 7
    model = split_model(build_model(config, MASKED_TOKENS).eval(), MASKED_TOKENS, VOCABULARY)
    with torch.no_grad():
        assert model.logits(INPUTS, POSITIONS_P).shape == (5, VOCABULARY)


def test_a_trunk_that_fails_leaves_nothing_behind() -> None:
    model = make_headed("bert", CLASSES)
    hook = last_module(model, "bert").register_forward_hook(fail)
    with pytest.raises(MemoryError):
        model.logits(INPUTS, POSITIONS_P)
    hook.remove()
    assert model.layout.trunk(model.model, INPUTS).shape == (3, 7, 32)


def fail(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("model_type", "head"), [("modernbert", CLASSES), ("gpt2", NEXT_TOKENS), ("bart", TARGET_TOKENS)]
)
def test_a_layer_that_does_not_fall_in_two_is_whole(model_type: str, head: str) -> None:
    assert last_layer_of(build_model(make_teacher(model_type), head)) is None
