"""What must hold for the loss whatever the logits.

Shapes: B examples, S tokens, P target positions, V classes.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM

from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.targets.soft_targets import Dense, SoftTargets
from lightpaff.training.loss import LossSums, distillation_loss

weights = st.floats(0, 1)
temperatures = st.floats(0.5, 5)
chunk_sizes = st.integers(1, 20)
quick = settings(max_examples=50, deadline=None)


@st.composite
def logits_and_labels(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Student's and teacher's logits and gold labels, from flat to saturated distributions."""
    positions, classes = draw(st.integers(0, 12)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    student_scale, teacher_scale = draw(st.sampled_from([0.0, 1.0, 300.0])), draw(st.sampled_from([0.0, 1.0, 300.0]))
    student_PV = student_scale * torch.randn(positions, classes, generator=generator, dtype=torch.float64)
    teacher_PV = teacher_scale * torch.randn(positions, classes, generator=generator, dtype=torch.float64)
    labels_P = torch.randint(classes, (positions,), generator=generator)
    has_gold_P = torch.rand(positions, generator=generator) < draw(st.sampled_from([0.0, 0.5, 1.0]))
    return student_PV, teacher_PV, labels_P.where(has_gold_P, NO_GOLD_LABEL)


def loss_of_logits(
    logits_PV: Tensor,
    labels_P: Tensor,
    soft_targets: SoftTargets | None,
    weight: float,
    temperature: float = 1.0,
    chunk_size: int = 5,
) -> LossSums:
    # The identity as the output layer makes the features the logits.
    identity_VV = torch.eye(logits_PV.shape[1], dtype=logits_PV.dtype)
    return distillation_loss(logits_PV, identity_VV, None, labels_P, soft_targets, weight, temperature, chunk_size)


@quick
@given(logits_and_labels(), weights, temperatures)
def test_kl_to_itself_is_zero(case: tuple[Tensor, Tensor, Tensor], weight: float, temperature: float) -> None:
    _, teacher_PV, labels_P = case
    assert loss_of_logits(teacher_PV, labels_P, Dense(teacher_PV), weight, temperature).divergence == 0


@quick
@given(logits_and_labels(), weights, temperatures)
def test_kl_is_never_negative(case: tuple[Tensor, Tensor, Tensor], weight: float, temperature: float) -> None:
    student_PV, teacher_PV, labels_P = case
    sums = loss_of_logits(student_PV, labels_P, Dense(teacher_PV), weight, temperature)
    assert sums.divergence >= -1e-12
    assert sums.nll >= 0
    assert sums.count == len(labels_P)


@quick
@given(logits_and_labels(), temperatures)
def test_weight_zero_is_cross_entropy(case: tuple[Tensor, Tensor, Tensor], temperature: float) -> None:
    student_PV, teacher_PV, labels_P = case
    logits_PV, plain_PV = student_PV.clone().requires_grad_(), student_PV.clone().requires_grad_()
    sums = loss_of_logits(logits_PV, labels_P, Dense(teacher_PV), 0.0, temperature)
    expected = functional.cross_entropy(plain_PV, labels_P, ignore_index=NO_GOLD_LABEL, reduction="sum")
    torch.testing.assert_close(sums.total, expected)
    torch.testing.assert_close(sums.nll, expected.detach())
    torch.autograd.backward(sums.total)
    torch.autograd.backward(expected)
    torch.testing.assert_close(logits_PV.grad, plain_PV.grad)


@quick
@given(logits_and_labels(), temperatures)
def test_weight_one_has_no_gradient_at_the_teacher(case: tuple[Tensor, Tensor, Tensor], temperature: float) -> None:
    _, teacher_PV, labels_P = case
    logits_PV = teacher_PV.clone().requires_grad_()
    torch.autograd.backward(loss_of_logits(logits_PV, labels_P, Dense(teacher_PV), 1.0, temperature).total)
    assert logits_PV.grad is not None
    # But for the rounding of probabilities, which are at most 1.
    assert bool((logits_PV.grad.abs() <= temperature * torch.finfo(logits_PV.dtype).eps).all())


@quick
@given(logits_and_labels(), weights, temperatures, chunk_sizes, chunk_sizes)
def test_chunk_size_changes_nothing(
    case: tuple[Tensor, Tensor, Tensor], weight: float, temperature: float, one_size: int, other_size: int
) -> None:
    student_PV, teacher_PV, labels_P = case
    results = []
    for chunk_size in (one_size, other_size):
        logits_PV = student_PV.clone().requires_grad_()
        sums = loss_of_logits(logits_PV, labels_P, Dense(teacher_PV), weight, temperature, chunk_size)
        torch.autograd.backward(sums.total)
        results.append([sums.total.detach(), sums.nll, sums.divergence, sums.count, sums.gold_count, logits_PV.grad])
    torch.testing.assert_close(*results)


@quick
@given(logits_and_labels(), weights, temperatures, st.floats(-50, 50), st.floats(-50, 50))
def test_shifting_all_logits_changes_nothing(
    case: tuple[Tensor, Tensor, Tensor], weight: float, temperature: float, student_shift: float, teacher_shift: float
) -> None:
    student_PV, teacher_PV, labels_P = case
    plain = loss_of_logits(student_PV, labels_P, Dense(teacher_PV), weight, temperature)
    shifted = loss_of_logits(
        student_PV + student_shift, labels_P, Dense(teacher_PV + teacher_shift), weight, temperature
    )
    for name in ("total", "nll", "divergence"):
        torch.testing.assert_close(getattr(shifted, name), getattr(plain, name), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("is_tied", [True, False])
def test_weight_zero_is_the_training_loss_of_plain_transformers(is_tied: bool) -> None:
    """Value and the gradient of every parameter, with the loss taken at the labelled positions only."""
    config = BertConfig(
        vocab_size=101,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        tie_word_embeddings=is_tied,
    )
    model = BertForMaskedLM(config).double().eval()
    input_ids_BS = torch.randint(101, (3, 9))
    labels_BS = torch.randint(101, (3, 9)).where(torch.rand(3, 9) < 0.3, NO_GOLD_LABEL)
    positions_P = (labels_BS.flatten() != NO_GOLD_LABEL).nonzero().squeeze(1)
    assert len(positions_P) > 2

    expected = model(input_ids=input_ids_BS, labels=labels_BS).loss
    torch.autograd.backward(expected)
    wanted = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()

    hidden_PD = model.bert(input_ids=input_ids_BS).last_hidden_state.flatten(0, 1)[positions_P]
    head = model.cls.predictions
    labels_P = labels_BS.flatten()[positions_P]
    sums = distillation_loss(
        head.transform(hidden_PD), head.decoder.weight, head.decoder.bias, labels_P, None, 0.0, 1.0, 4
    )
    torch.testing.assert_close(sums.nll / sums.count, expected.detach())
    torch.autograd.backward(sums.total / sums.count)
    assert (head.decoder.weight is model.bert.embeddings.word_embeddings.weight) == is_tied
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], msg=name)
