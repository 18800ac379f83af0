"""A headed encoder-decoder computes what the plain transformers model computes, also on fragments of a text (MASS).

Shapes: B examples, S source tokens, T decoder tokens, P target positions, V classes.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from lightpaff.models.architecture import TARGET_TOKENS
from lightpaff.models.building import build_model
from lightpaff.models.encoder_decoder import ARCHITECTURES
from lightpaff.models.headed import HeadedModel
from lightpaff.models.opening import open_headed
from lightpaff.recipe_sections import FromScratch, Shape

VOCABULARY = 61
PADDING = 0
FULL_LENGTH = 14
FRAGMENTS = [(3, 8), (0, 5), (9, 14), (6, 7)]
"""Of four texts of 14 tokens, the first token of the fragment and the one after its last."""
BART_SIZES = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 32,
    "decoder_start_token_id": 1,
}
# Few and near buckets, so that far distances share one; heads that do not fill the hidden size.
T5_SIZES = {
    "d_model": 16,
    "d_kv": 6,
    "num_heads": 2,
    "d_ff": 24,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10,
    "decoder_start_token_id": 0,
}
SIZES: dict[str, dict[str, Any]] = {
    "bart": BART_SIZES,
    "mbart": {**BART_SIZES, "scale_embedding": True},
    "marian": {**BART_SIZES, "scale_embedding": True},
    "m2m_100": BART_SIZES,
    "t5": T5_SIZES,
    "mt5": T5_SIZES,
}
PRECISIONS = [("eager", torch.float32, 1e-5), ("sdpa", torch.float32, 1e-5), ("sdpa", torch.float64, 1e-10)]


def make_config(architecture: str, **settings: Any) -> PreTrainedConfig:
    common = {"vocab_size": VOCABULARY, "pad_token_id": PADDING, "bos_token_id": 1, "eos_token_id": 2}
    return AutoConfig.for_model(architecture, **common | SIZES[architecture] | settings)


def make_model(architecture: str, attention: str = "eager", **settings: Any) -> PreTrainedModel:
    config = make_config(architecture, **settings)
    model = AutoModelForSeq2SeqLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        # Fresh biases are 0 and norms 1: a forgotten one would not show. Marian's sinusoids are not stored.
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    return model.eval()


def split(model: PreTrainedModel, classes: int = VOCABULARY) -> HeadedModel:
    return HeadedModel(model, ARCHITECTURES[model.config.model_type].heads[TARGET_TOKENS].layout, classes)


def make_sources() -> dict[str, Tensor]:
    """Four source texts of up to 11 tokens."""
    mask_BS = (torch.arange(11) < torch.tensor([11, 7, 3, 9])[:, None]).long()
    ids_BS = torch.randint(3, VOCABULARY, (4, 11)) * mask_BS
    return {"input_ids": ids_BS, "attention_mask": mask_BS}


def make_pairs() -> tuple[dict[str, Tensor], Tensor]:
    """Sources with targets of up to 6 tokens, and the target positions."""
    mask_BT = (torch.arange(6) < torch.tensor([4, 6, 1, 5])[:, None]).long()
    ids_BT = torch.randint(3, VOCABULARY, (4, 6)) * mask_BT
    inputs = {**make_sources(), "decoder_input_ids": ids_BT, "decoder_attention_mask": mask_BT}
    return inputs, mask_BT.flatten().nonzero()[:, 0]


def make_fragments() -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """A batch of fragments, the same as full texts of which only the fragments show, and the positions in each."""
    sources, ids_BT = make_sources(), torch.randint(3, VOCABULARY, (4, FULL_LENGTH))
    longest = max(end - start for start, end in FRAGMENTS)
    shown_BT = torch.zeros(4, FULL_LENGTH, dtype=torch.long)
    fragment_ids, fragment_mask, positions = (torch.zeros(4, longest, dtype=torch.long) for _ in range(3))
    for row, (start, end) in enumerate(FRAGMENTS):
        shown_BT[row, start:end] = 1
        fragment_ids[row, : end - start] = ids_BT[row, start:end]
        fragment_mask[row, : end - start] = 1
        positions[row, : end - start] = torch.arange(start, end)
    fragments = {
        **sources,
        "decoder_input_ids": fragment_ids,
        "decoder_attention_mask": fragment_mask,
        "decoder_position_ids": positions,
    }
    full = {**sources, "decoder_input_ids": ids_BT, "decoder_attention_mask": shown_BT}
    return fragments, full, fragment_mask.flatten().nonzero()[:, 0], shown_BT.flatten().nonzero()[:, 0]


@pytest.mark.parametrize(("attention", "dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_the_plain_models(architecture: str, attention: str, dtype: torch.dtype, tolerance: float) -> None:
    model = make_model(architecture, attention).to(dtype)
    inputs, positions_P = make_pairs()
    expected_PV = model(**inputs).logits.flatten(0, 1)[positions_P]
    logits_PV = split(model).logits(inputs, positions_P)
    assert logits_PV.dtype == dtype
    torch.testing.assert_close(logits_PV, expected_PV, rtol=tolerance, atol=tolerance)
    # The reference itself tells positions apart, so agreement means something.
    assert expected_PV.std(dim=0).min() > 1e-3


@pytest.mark.parametrize(("attention", "dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_fragment_is_as_in_its_full_text(
    architecture: str, attention: str, dtype: torch.dtype, tolerance: float
) -> None:
    model = make_model(architecture, attention).to(dtype)
    fragments, full, positions_P, full_positions_P = make_fragments()
    expected_PV = model(**full).logits.flatten(0, 1)[full_positions_P]
    logits_PV = split(model).logits(fragments, positions_P)
    torch.testing.assert_close(logits_PV, expected_PV, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("architecture", ["bart", "mbart", "marian", "m2m_100"])
def test_positions_are_given_back_after_a_fragment(architecture: str) -> None:
    model = make_model(architecture)
    fragments, _, positions_P, _ = make_fragments()
    headed = split(model)
    placed_PV = headed.logits(fragments, positions_P)
    del fragments["decoder_position_ids"]
    from_zero_PV = headed.logits(fragments, positions_P)
    torch.testing.assert_close(from_zero_PV, model(**fragments).logits.flatten(0, 1)[positions_P], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(placed_PV, from_zero_PV, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("architecture", ["bart", "m2m_100", "t5", "mt5"])
def test_gradients_on_fragments_equal_the_plain_models(architecture: str) -> None:
    model = make_model(architecture, "sdpa").double()
    fragments, full, positions_P, full_positions_P = make_fragments()

    def gradients(logits_PV: Tensor) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        weights_V = torch.linspace(-1, 1, VOCABULARY, dtype=torch.float64)
        torch.autograd.backward((logits_PV.log_softmax(-1) * weights_V).sum())
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients(model(**full).logits.flatten(0, 1)[full_positions_P])
    found = gradients(split(model).logits(fragments, positions_P))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-10, msg=name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_model_is_a_plain_transformers_model(architecture: str, tmp_path: Path) -> None:
    model = make_model(architecture)
    inputs, positions_P = make_pairs()
    headed = split(model)
    assert headed.weight_VD.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    model.save_pretrained(tmp_path)
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, attn_implementation="eager")
    expected_PV = plain(**inputs).logits.flatten(0, 1)[positions_P]
    torch.testing.assert_close(headed.logits(inputs, positions_P), expected_PV, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["t5", "mt5"])
def test_an_untied_t5_is_not_scaled(architecture: str, tmp_path: Path) -> None:
    # T5 1.1, mT5: transformers ties every T5 that it makes, and leaves one untied whose file has two matrices.
    tied = make_model(architecture, tie_word_embeddings=False)
    tied.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16))
    tied.save_pretrained(tmp_path)
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert not torch.equal(model.lm_head.weight, model.shared.weight)
    inputs, positions_P = make_pairs()
    hidden_PD = split(model).features(inputs, positions_P)
    expected_PV = model(**inputs).logits.flatten(0, 1)[positions_P]
    torch.testing.assert_close(hidden_PD @ model.lm_head.weight.T, expected_PV, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("is_tied", [True, False])
@pytest.mark.parametrize("architecture", ["bart", "mbart", "marian", "m2m_100", "t5"])
def test_all_that_is_trained_is_read_and_stored(architecture: str, is_tied: bool, tmp_path: Path) -> None:
    """Ranks wait for the gradient of every parameter, and what is not stored must stay as it was."""
    make_model(architecture, tie_word_embeddings=is_tied).save_pretrained(tmp_path / "before")
    headed = open_headed(tmp_path / "before", "target_tokens", VOCABULARY, device="cpu", attention="eager")
    inputs, _, positions_P, _ = make_fragments()
    headed.logits(inputs, positions_P).log_softmax(1)[:, 0].sum().backward()
    trained = [(name, tensor) for name, tensor in headed.named_parameters() if tensor.requires_grad]
    assert [name for name, tensor in trained if tensor.grad is None] == []
    with torch.no_grad():
        for _, tensor in trained:
            tensor.add_(0.01 * tensor.grad)
        expected_PV = headed.logits(inputs, positions_P)
        headed.model.save_pretrained(tmp_path / "after")
        found = open_headed(tmp_path / "after", "target_tokens", VOCABULARY, device="cpu", attention="eager")
        torch.testing.assert_close(found.logits(inputs, positions_P), expected_PV)


@pytest.mark.parametrize("architecture", ["bart", "mbart", "marian"])
def test_a_padded_output_layer_is_cut_to_the_real_classes(architecture: str) -> None:
    model = make_model(architecture)
    inputs, positions_P = make_pairs()
    headed = split(model, VOCABULARY - 5)
    assert headed.bias_V is not None
    assert headed.bias_V.shape == (VOCABULARY - 5,)
    expected_PV = model(**inputs).logits.flatten(0, 1)[positions_P, : VOCABULARY - 5]
    torch.testing.assert_close(headed.logits(inputs, positions_P), expected_PV, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_name_in_the_table_is_the_architectures_own(architecture: str) -> None:
    known, config, model = ARCHITECTURES[architecture], make_config(architecture), make_model(architecture)
    names = [name for group in vars(known.sizes).values() for name in group]
    assert all(hasattr(config, name) for name in (*names, *known.dropouts))
    assert known.longest_input(config) == (None if architecture in ("t5", "mt5") else 32)
    assert [len(model.get_submodule(layers.path)) for layers in known.layers] == [2, 2]
    parameters = {name for name, _ in model.named_parameters()}
    head = known.heads[TARGET_TOKENS]
    # Decoder layers are the target's, encoder layers are not.
    assert {name for name in parameters if name.startswith(head.target_parameters) and "layer" in name} == {
        name for name in parameters if "decoder." in name and "layer" in name
    }


@pytest.mark.parametrize(("hidden_size", "heads", "d_kv"), [(16, 2, 6), (32, 4, 6), (16, 4, 3), (32, 2, 12)])
def test_a_t5_student_keeps_the_proportions_of_the_heads(hidden_size: int, heads: int, d_kv: int) -> None:
    teacher = make_config("t5", tie_word_embeddings=False)
    student = make_config("t5", tie_word_embeddings=False)
    shape = Shape(layers=1, decoder_layers=1, hidden_size=hidden_size, heads=heads, feed_forward=24)
    ARCHITECTURES["t5"].before_resizing(student, teacher, shape)
    assert student.d_kv == d_kv


@pytest.mark.parametrize("with_first", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_made_from_nothing_runs(architecture: str, with_first: bool) -> None:
    vocabulary = {"<pad>": 0, "</s>": 1, "<s>": 2, "<unk>": 3}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="</s>",
        bos_token="<s>" if with_first else None,
        unk_token="<unk>",
    )
    from_scratch = FromScratch(architecture=architecture, layers=2, hidden_size=24, heads=3, feed_forward=40)
    known = ARCHITECTURES[architecture]
    settings: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": 0}
    for field, names in vars(known.sizes).items():
        value = 1 if field == "decoder_layers" else getattr(from_scratch, field)
        settings |= dict.fromkeys(names, value)
    config = AutoConfig.for_model(architecture, **settings | known.scratch_settings(from_scratch, tokenizer))
    model = build_model(config, TARGET_TOKENS).eval()
    assert config.decoder_start_token_id == (2 if with_first else 0)
    assert config.eos_token_id == 1
    assert getattr(config, "forced_eos_token_id", None) is None
    inputs, positions_P = make_pairs()
    logits_PV = split(model).logits(inputs, positions_P)
    # Nearly indifferent between the tokens, as training has to begin.
    torch.testing.assert_close(
        -logits_PV.log_softmax(-1).mean().detach(), torch.tensor(VOCABULARY).log(), rtol=0.3, atol=0
    )
