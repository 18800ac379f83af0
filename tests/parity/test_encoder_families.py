"""A headed model computes what the plain transformers model computes, for every encoder family and head.

Shapes: B examples, S tokens, P target positions, V classes, D hidden.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from lightpaff.models.architecture import CLASSES, MASKED_TOKENS, SPANS, TOKEN_CLASSES
from lightpaff.models.encoder import ARCHITECTURES
from lightpaff.models.families import attention_of
from lightpaff.models.headed import NEVER, HeadedModel
from lightpaff.models.initialisation import create_student
from lightpaff.models.opening import open_headed, split_model

HEADS = (MASKED_TOKENS, CLASSES, TOKEN_CLASSES, SPANS)
LONGEST = 13
VOCABULARY = 37
PADDING = 0
LABELS = ["bad", "fair", "good"]
SIZES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "roberta": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "xlm-roberta": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "camembert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "mpnet": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "deberta-v2": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "pooler_hidden_size": 16,
        "relative_attention": True,
        "position_buckets": 4,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
    },
    # An embedding size of its own, as in ELECTRA's generators: the head's features are narrower than the trunk.
    "electra": {
        "hidden_size": 16,
        "embedding_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    },
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    # A window smaller than the sequence, so that the local layers differ from the global ones.
    "modernbert": {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "local_attention": 4,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
        "classifier_bias": True,
    },
}
# Not eager in float64: transformers takes its softmax in float32, where float64's mask is -inf, so a padded token
# whose local window holds only padding turns ModernBERT's states into NaN.
PRECISIONS = [("eager", torch.float32, 1e-5), ("sdpa", torch.float32, 1e-5), ("sdpa", torch.float64, 1e-12)]
HEAD_DROPOUTS = {
    "bert": "dropout",
    "roberta": "classifier.dropout",
    "xlm-roberta": "classifier.dropout",
    "camembert": "classifier.dropout",
    "mpnet": "classifier.dropout",
    "deberta-v2": "dropout",
    "electra": "classifier.dropout",
    "distilbert": "dropout",
    "modernbert": "drop",
}


def make_config(architecture: str, **settings: Any) -> PreTrainedConfig:
    common = {"vocab_size": VOCABULARY, "pad_token_id": PADDING, "max_position_embeddings": 32}
    return AutoConfig.for_model(architecture, **common | SIZES[architecture] | settings)


def make_model(architecture: str, head: str, attention: str = "eager", **settings: Any) -> PreTrainedModel:
    if head in (CLASSES, TOKEN_CLASSES):
        settings |= {"num_labels": len(LABELS)}
    auto_class = ARCHITECTURES[architecture].heads[head].auto_class
    config = make_config(architecture, **settings)
    model = auto_class.from_config(config, attn_implementation=attention_of(config, attention))
    with torch.no_grad():
        # Fresh biases are 0 and norms 1: a forgotten one would not show.
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def make_inputs() -> dict[str, Tensor]:
    """Four examples of 11 tokens, three of them padded."""
    lengths_B = torch.tensor([11, 7, 3, 9])
    attention_mask = (torch.arange(11) < lengths_B[:, None]).long()
    input_ids = torch.randint(5, VOCABULARY, (4, 11)) * attention_mask + PADDING * (1 - attention_mask)
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def target_positions(inputs: dict[str, Tensor], head: str) -> Tensor:
    examples, tokens = inputs["input_ids"].shape
    if head == CLASSES:
        return torch.arange(examples) * tokens
    if head == SPANS:
        return (torch.arange(examples) * tokens).repeat_interleave(2)
    return inputs["attention_mask"].flatten().nonzero()[:, 0][1::3]


def plain_logits(model: PreTrainedModel, inputs: dict[str, Tensor], head: str) -> Tensor:
    """Every logit of the plain model, then those at the target positions: the naive reference."""
    if head == SPANS:
        found = model(**inputs)
        is_padding_BS = inputs["attention_mask"] == 0
        pair_B2S = torch.stack([found.start_logits, found.end_logits], dim=1).masked_fill(is_padding_BS[:, None], NEVER)
        beyond = pair_B2S.new_full((*pair_B2S.shape[:2], LONGEST - pair_B2S.shape[2]), NEVER)
        return torch.cat([pair_B2S, beyond], dim=2).flatten(0, 1)
    logits: Tensor = model(**inputs).logits
    return logits if head == CLASSES else logits.flatten(0, 1)[target_positions(inputs, head)]


def classes_of(head: str) -> int:
    return {MASKED_TOKENS: VOCABULARY, SPANS: LONGEST}.get(head, len(LABELS))


@pytest.mark.parametrize(("attention", "dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_the_plain_models(
    architecture: str, head: str, attention: str, dtype: torch.dtype, tolerance: float
) -> None:
    model, inputs = make_model(architecture, head, attention).to(dtype), make_inputs()
    headed = split_model(model, head, classes_of(head))
    positions_P = target_positions(inputs, head)
    expected_PV = plain_logits(model, inputs, head)
    logits_PV = headed.logits(inputs, positions_P)
    assert logits_PV.dtype == dtype
    torch.testing.assert_close(logits_PV, expected_PV, rtol=tolerance, atol=tolerance)
    # The reference itself tells positions apart, so agreement means something.
    assert expected_PV[:, : inputs["input_ids"].shape[1]].std(dim=0).min() > 1e-3


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_equal_the_plain_models(architecture: str, head: str) -> None:
    model, inputs = make_model(architecture, head, "sdpa").double(), make_inputs()
    headed = split_model(model, head, classes_of(head))

    def gradients(logits_PV: Tensor) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        weights_V = torch.linspace(-1, 1, logits_PV.shape[1], dtype=torch.float64)
        torch.autograd.backward((logits_PV.log_softmax(-1) * weights_V).sum())
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    expected = gradients(plain_logits(model, inputs, head))
    found = gradients(headed.logits(inputs, target_positions(inputs, head)))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    ("architecture", "head"), [(name, head) for name in ARCHITECTURES for head in (CLASSES, TOKEN_CLASSES)]
)
def test_dropout_of_the_head_falls_where_transformers_lets_it_fall(architecture: str, head: str) -> None:
    model, inputs = make_model(architecture, head), make_inputs()
    # Only the head's dropout is on: the trunk would draw random numbers too.
    tag_dropout = "drop" if architecture == "modernbert" else "dropout"
    drop = model.get_submodule(HEAD_DROPOUTS[architecture] if head == CLASSES else tag_dropout)
    assert isinstance(drop, torch.nn.Dropout)
    drop.train().p = 0.5
    headed = split_model(model, head, len(LABELS))
    # Every token, where tokens have classes: the plain model draws for all of them.
    positions_P = target_positions(inputs, head) if head == CLASSES else torch.arange(inputs["input_ids"].numel())
    torch.manual_seed(1)
    expected_PV = model(**inputs).logits.flatten(0, -2)
    torch.manual_seed(1)
    found_PV = headed.logits(inputs, positions_P)
    torch.testing.assert_close(found_PV, expected_PV, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected_PV, model(**inputs).logits.flatten(0, -2))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_padded_output_layer_is_cut_to_the_real_classes(architecture: str) -> None:
    model, inputs = make_model(architecture, MASKED_TOKENS, "sdpa").double(), make_inputs()
    headed = split_model(model, MASKED_TOKENS, VOCABULARY - 6)
    positions_P = target_positions(inputs, MASKED_TOKENS)
    assert headed.weight_VD.shape[0] == VOCABULARY - 6
    assert headed.bias_V is not None
    assert headed.bias_V.shape == (VOCABULARY - 6,)
    expected_PV = plain_logits(model, inputs, MASKED_TOKENS)[:, : VOCABULARY - 6]
    torch.testing.assert_close(headed.logits(inputs, positions_P), expected_PV, rtol=1e-12, atol=1e-12)


def test_a_decoder_without_a_bias_has_none() -> None:
    model, inputs = make_model("modernbert", MASKED_TOKENS, decoder_bias=False), make_inputs()
    headed = split_model(model, MASKED_TOKENS, VOCABULARY)
    assert headed.bias_V is None
    logits_PV = headed.logits(inputs, target_positions(inputs, MASKED_TOKENS))
    torch.testing.assert_close(logits_PV, plain_logits(model, inputs, MASKED_TOKENS))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_saved_student_is_a_plain_transformers_model(architecture: str, classes: int, tmp_path: Path) -> None:
    model = create_student(
        make_config(architecture),
        CLASSES,
        classes,
        initialisation="random",
        teacher_path=None,
        seed=3,
        attention="eager",
    )
    model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert plain.config.problem_type == ("regression" if classes == 1 else "single_label_classification")
    assert plain.config.num_labels == classes
    assert_same_state(plain, model)
    inputs = make_inputs()
    opened = open_headed(tmp_path, CLASSES, classes, device="cpu", attention="eager")
    found_BV = opened.logits(inputs, target_positions(inputs, CLASSES))
    torch.testing.assert_close(found_BV, plain(**inputs).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_student_with_all_layers_of_its_teacher_is_its_teacher(architecture: str, head: str, tmp_path: Path) -> None:
    teacher, inputs = make_model(architecture, head), make_inputs()
    teacher.save_pretrained(tmp_path)
    student = create_student(
        make_config(architecture),
        head,
        classes_of(head),
        initialisation="teacher",
        teacher_path=tmp_path,
        seed=0,
        attention="eager",
    )
    assert_same_state(student, teacher)
    headed: HeadedModel = split_model(student, head, classes_of(head))
    torch.testing.assert_close(
        headed.logits(inputs, target_positions(inputs, head)),
        plain_logits(teacher, inputs, head),
        rtol=1e-5,
        atol=1e-5,
    )


def assert_same_state(found: PreTrainedModel, expected: PreTrainedModel) -> None:
    found_state, expected_state = found.state_dict(), expected.state_dict()
    assert found_state.keys() == expected_state.keys()
    for name, tensor in expected_state.items():
        assert torch.equal(found_state[name], tensor), name


def test_classes_of_a_model_that_pools_by_the_mean() -> None:
    model, inputs = make_model("modernbert", CLASSES, classifier_pooling="mean"), make_inputs()
    expected = plain_logits(model, inputs, CLASSES)
    headed = split_model(model, CLASSES, classes_of(CLASSES))
    torch.testing.assert_close(headed.logits(inputs, target_positions(inputs, CLASSES)), expected, rtol=1e-5, atol=1e-5)
    model.config.classifier_pooling = "cls"
    assert (plain_logits(model, inputs, CLASSES) - expected).abs().max() > 1e-3
