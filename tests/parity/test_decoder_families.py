"""A headed decoder computes what the plain transformers model computes, and packed documents do not see each other.

The plain model gets use_cache=False: with a cache, which is its default, transformers does not separate documents.

Shapes: B examples, S tokens, P target positions, V classes.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Tokenizer, PreTrainedConfig, PreTrainedModel

from lightpaff.models.architecture import NEXT_TOKENS
from lightpaff.models.decoder import ARCHITECTURES
from lightpaff.models.headed import HeadedModel
from lightpaff.recipe_sections import FromScratch, Shape

VOCABULARY = 61
END = 1
GROUPED = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "intermediate_size": 24}
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0},
    "llama": {"hidden_size": 16, **GROUPED},
    # Two layers, of which the second looks back three tokens only.
    "qwen2": {
        "hidden_size": 16,
        **GROUPED,
        "use_sliding_window": True,
        "sliding_window": 3,
        "max_window_layers": 1,
    },
    # Heads that are wider than a share of the hidden size.
    "qwen3": {"hidden_size": 16, "head_dim": 8, **GROUPED},
    # Every layer looks back three tokens only; heads that do not fill the hidden size.
    "mistral": {"hidden_size": 16, "head_dim": 6, "sliding_window": 3, **GROUPED},
    # The first layer looks back three tokens only, and turns its positions another way than the second.
    "gemma3_text": {
        "hidden_size": 16,
        "head_dim": 8,
        "sliding_window": 3,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 5,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 30.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
        },
        "pad_token_id": 0,
        **GROUPED,
    },
    "gpt_neox": {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 24},
}
# The training loop runs eager attention in float32 on CPUs and sdpa on GPUs. Eager takes its softmax in float32.
PRECISIONS = [("eager", torch.float32, 1e-5), ("sdpa", torch.float32, 1e-5), ("sdpa", torch.float64, 1e-10)]
PIECES = [[5, 1, 4, 2], [12], [1, 8, 3]]
"""The lengths of the documents in three rows of 12 tokens; the last piece of the first row is padding."""


def make_config(architecture: str, **settings: Any) -> PreTrainedConfig:
    common = {"vocab_size": VOCABULARY, "bos_token_id": END, "eos_token_id": END, "max_position_embeddings": 32}
    return AutoConfig.for_model(architecture, **common | SIZES[architecture] | settings)


def make_model(architecture: str, attention: str = "eager", **settings: Any) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_config(make_config(architecture, **settings), attn_implementation=attention)
    with torch.no_grad():
        # Fresh biases are 0 and norms 1: a forgotten one would not show.
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def split(model: PreTrainedModel, classes: int = VOCABULARY) -> HeadedModel:
    return HeadedModel(model, ARCHITECTURES[model.config.model_type].heads[NEXT_TOKENS].layout, classes)


def make_packed_inputs() -> dict[str, Tensor]:
    """Three rows of packed documents."""
    positions = [torch.cat([torch.arange(length) for length in lengths]) for lengths in PIECES]
    input_ids = torch.randint(2, VOCABULARY, (3, 12))
    input_ids[0, -2:] = 0
    return {"input_ids": input_ids, "position_ids": torch.stack(positions)}


def documents_alone(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """The plain model's logits for every document by itself, in the order of the packed tokens."""
    pieces = [piece for row, lengths in zip(input_ids, PIECES, strict=True) for piece in row.split(lengths)]
    return torch.cat([model(piece[None]).logits[0] for piece in pieces])


@pytest.mark.parametrize(("attention", "dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_the_plain_models(architecture: str, attention: str, dtype: torch.dtype, tolerance: float) -> None:
    model, inputs = make_model(architecture, attention).to(dtype), make_packed_inputs()
    positions_P = torch.arange(0, 36, 3)
    expected_PV = model(**inputs, use_cache=False).logits.flatten(0, 1)[positions_P]
    logits_PV = split(model).logits(inputs, positions_P)
    assert logits_PV.dtype == dtype
    torch.testing.assert_close(logits_PV, expected_PV, rtol=tolerance, atol=tolerance)
    # The reference itself tells positions apart, so agreement means something.
    assert expected_PV.std(dim=0).min() > 1e-3


@pytest.mark.parametrize(("attention", "dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_packed_documents_are_as_each_alone(
    architecture: str, attention: str, dtype: torch.dtype, tolerance: float
) -> None:
    model, inputs = make_model(architecture, attention).to(dtype), make_packed_inputs()
    expected_PV = documents_alone(model, inputs["input_ids"])
    logits_PV = split(model).logits(inputs, torch.arange(36))
    torch.testing.assert_close(logits_PV, expected_PV, rtol=tolerance, atol=tolerance)
    # Without the positions the documents do see each other, and the test would notice.
    as_one_PV = model(input_ids=inputs["input_ids"]).logits.flatten(0, 1)
    assert not torch.allclose(as_one_PV[5:10], expected_PV[5:10], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3", "mistral"])
def test_gradients_equal_the_plain_models(architecture: str) -> None:
    model, inputs = make_model(architecture, "sdpa").double(), make_packed_inputs()
    positions_P = torch.arange(36)[::2]

    def gradients(logits_PV: Tensor) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        weights_V = torch.linspace(-1, 1, VOCABULARY, dtype=torch.float64)
        torch.autograd.backward((logits_PV.log_softmax(-1) * weights_V).sum())
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients(documents_alone(model, inputs["input_ids"])[positions_P])
    found = gradients(split(model).logits(inputs, positions_P))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_is_a_plain_transformers_model(architecture: str, tied: bool, tmp_path: Path) -> None:
    model, inputs = make_model(architecture, tie_word_embeddings=tied), make_packed_inputs()
    headed = split(model)
    assert (headed.weight_VD.data_ptr() == model.get_input_embeddings().weight.data_ptr()) == tied
    model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    positions_P = torch.arange(36)
    torch.testing.assert_close(
        headed.logits(inputs, positions_P), plain(**inputs, use_cache=False).logits.flatten(0, 1), rtol=1e-5, atol=1e-5
    )


def test_a_padded_output_layer_is_cut_to_the_real_classes() -> None:
    model, inputs = make_model("gpt2"), make_packed_inputs()
    headed = split(model, VOCABULARY - 5)
    assert headed.bias_V is None
    assert headed.logits(inputs, torch.arange(4)).shape == (4, VOCABULARY - 5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_name_in_the_table_is_the_architectures_own(architecture: str) -> None:
    known, config, model = ARCHITECTURES[architecture], make_config(architecture), make_model(architecture)
    names = [name for group in vars(known.sizes).values() for name in group]
    assert all(hasattr(config, name) for name in (*names, *known.dropouts))
    assert known.longest_input(config) == 32
    [layers] = known.layers
    assert len(model.get_submodule(layers.path)) == 2


@pytest.mark.parametrize(
    ("shape", "key_value_heads", "head_dim"),
    [
        (Shape(layers=1, hidden_size=16, heads=4, feed_forward=24), 2, 8),  # The teacher's own.
        (Shape(layers=1, hidden_size=24, heads=6, feed_forward=24), 3, 8),
        (Shape(layers=1, hidden_size=16, heads=2, feed_forward=24), 1, 16),
        (Shape(layers=1, hidden_size=15, heads=5, feed_forward=24), 1, 6),  # 2 does not divide 5.
        (Shape(layers=1, hidden_size=4, heads=1, feed_forward=24), 1, 8),
    ],
)
def test_a_student_keeps_the_proportions_of_the_heads(shape: Shape, key_value_heads: int, head_dim: int) -> None:
    teacher, student = make_config("qwen3"), make_config("qwen3")
    ARCHITECTURES["qwen3"].before_resizing(student, teacher, shape)
    assert (student.num_key_value_heads, student.head_dim) == (key_value_heads, head_dim)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_made_from_nothing_runs(architecture: str) -> None:
    tokenizer = GPT2Tokenizer(vocab={"a": 0, "b": 1, "<|endoftext|>": 2}, merges=[])
    from_scratch = FromScratch(architecture=architecture, layers=2, hidden_size=24, heads=3, feed_forward=40)
    known = ARCHITECTURES[architecture]
    sizes = {name: getattr(from_scratch, field) for field, names in vars(known.sizes).items() for name in names}
    config = AutoConfig.for_model(architecture, **sizes | known.scratch_settings(from_scratch, tokenizer))
    model = AutoModelForCausalLM.from_config(config).eval()
    assert (config.bos_token_id, config.eos_token_id) == (2, 2)
    assert model(input_ids=torch.tensor([[0, 1]])).logits.shape == (1, 2, config.vocab_size)
    assert model.config.tie_word_embeddings == (architecture in ("gpt2", "gemma3_text"))
