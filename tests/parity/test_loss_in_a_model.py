"""The fused loss between what models have before and after it: whose gradients it gives, and what it holds.

Shapes: P target positions, V classes, D hidden.
"""

import weakref
from itertools import product
from typing import Any

import pytest
import torch

from lightpaff.targets.soft_targets import Dense, Projected
from lightpaff.training import loss, loss_terms
from tests.parity.losses import (
    CHUNK,
    HIDDEN,
    RecordOperations,
    assert_parity,
    assert_same_sums,
    fused_loss,
    gradients_of,
    make_inputs,
    plain_loss,
)


@pytest.mark.parametrize("targets", ["dense", "projected"])
def test_padding_classes_cut_off_by_a_slice(targets: str) -> None:
    inputs = make_inputs(11, 10)
    padded_VD = torch.randn(16, HIDDEN, dtype=torch.float64, requires_grad=True)
    padded_V = torch.randn(16, dtype=torch.float64, requires_grad=True)

    def arguments() -> tuple[Any, ...]:
        return inputs.features_PD, padded_VD[:10], padded_V[:10], inputs.labels_P, inputs.targets(targets)

    assert_parity([inputs.features_PD, padded_VD, padded_V], arguments, 0.3)
    gradient_VD, gradient_V = gradients_of(fused_loss(*arguments(), 0.3).total, padded_VD, padded_V)
    assert torch.count_nonzero(gradient_VD[10:]) == torch.count_nonzero(gradient_V[10:]) == 0
    assert torch.count_nonzero(gradient_VD[:10]) == 10 * HIDDEN


def test_output_layer_tied_to_the_embeddings() -> None:
    inputs = make_inputs(11, 10)
    embeddings_VD, bias_V = inputs.weight_VD, inputs.bias_V
    ids_P = torch.randint(10, (11,))

    def arguments() -> tuple[Any, ...]:
        return embeddings_VD[ids_P].tanh(), embeddings_VD, bias_V, inputs.labels_P, inputs.projected

    assert_parity([embeddings_VD, bias_V], arguments, 0.3)


def test_non_contiguous_inputs() -> None:
    inputs = make_inputs(11, 10)
    features_DP = torch.randn(HIDDEN, 11, dtype=torch.float64, requires_grad=True)
    wide_VD = torch.randn(10, 2 * HIDDEN, dtype=torch.float64, requires_grad=True)
    repeated_1 = torch.randn(1, dtype=torch.float64, requires_grad=True)
    targets = Dense(torch.randn(10, 11, dtype=torch.float64).T)
    labels_P = torch.stack([inputs.labels_P, inputs.labels_P], dim=1)[:, 0]

    def arguments() -> tuple[Any, ...]:
        return features_DP.T, wide_VD[:, ::2], repeated_1.expand(10), labels_P, targets

    assert not any(tensor.is_contiguous() for tensor in arguments()[:4])
    assert_parity([features_DP, wide_VD, repeated_1], arguments, 0.3)


def test_gradient_scales_with_what_follows_the_loss_and_is_given_once() -> None:
    inputs = make_inputs(11, 10)
    leaves = [inputs.features_PD, inputs.weight_VD, inputs.bias_V]
    rest = (inputs.labels_P, inputs.dense, 0.3, 2.5, CHUNK)
    plain = gradients_of(plain_loss(*leaves, *rest).total, *leaves)
    scaled = fused_loss(*leaves, *rest).total.square() / 7
    factor = 2 * fused_loss(*leaves, *rest).total.item() / 7
    found = torch.autograd.grad(scaled, leaves, retain_graph=True)
    torch.testing.assert_close(list(found), [factor * gradient for gradient in plain])
    with pytest.raises(AssertionError, match="handed its gradients over"):
        torch.autograd.grad(scaled, leaves)


@pytest.mark.parametrize("needed", list(product([True, False], repeat=3)))
def test_only_the_needed_gradients(needed: tuple[bool, bool, bool]) -> None:
    inputs = make_inputs(11, 10)
    full = [inputs.features_PD, inputs.weight_VD, inputs.bias_V]
    expected = gradients_of(plain_loss(*full, inputs.labels_P, inputs.dense, 0.3).total, *full)
    leaves = [leaf.detach().requires_grad_(need) for leaf, need in zip(full, needed, strict=True)]
    with RecordOperations() as record:
        sums = fused_loss(*leaves, inputs.labels_P, inputs.dense, 0.3, 1.0, CHUNK)
    assert record.products() == 2 * (1 + needed[0] + needed[1]), "two chunks; the bias needs no product"
    assert sums.total.requires_grad == any(needed)
    if any(needed):
        torch.autograd.backward(sums.total)
    for leaf, gradient, need in zip(leaves, expected, needed, strict=True):
        assert (leaf.grad is not None) == need
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, gradient)


def test_teacher_gets_no_gradient() -> None:
    inputs = make_inputs(11, 10)
    teacher = Projected(*(tensor.clone().requires_grad_() for tensor in vars(inputs.projected).values()))
    leaves = (inputs.features_PD, inputs.weight_VD, inputs.bias_V)
    for either in (fused_loss, plain_loss):
        torch.autograd.backward(either(*leaves, inputs.labels_P, teacher, 0.3).total)
    assert all(tensor.grad is None for tensor in vars(teacher).values())


def test_holds_one_chunk_of_logits_and_never_waits_for_the_device() -> None:
    positions, classes = 40, 101
    inputs = make_inputs(positions, classes)
    leaves = (inputs.features_PD, inputs.weight_VD, inputs.bias_V)
    with RecordOperations() as record:
        sums = fused_loss(*leaves, inputs.labels_P, inputs.projected, 0.3, 2.5, CHUNK)
        torch.autograd.backward(sums.total)
    assert record.largest == CHUNK * classes
    waits = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.default", "aten.index")
    assert [name for name in record.names if any(wait in name for wait in waits)] == []

    with RecordOperations() as record:
        sums = plain_loss(*leaves, inputs.labels_P, inputs.projected, 0.3, 2.5)
        torch.autograd.backward(sums.total)
    assert record.largest == positions * classes, "the recording sees what the reference holds"


def test_nothing_of_a_chunk_is_held_while_the_next_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients: list[weakref.ref[torch.Tensor]] = []

    def watched(*told: Any) -> loss_terms.LossTerms:
        assert [one for one in gradients if one() is not None] == []
        terms = loss_terms.loss_terms(*told)
        assert terms.gradient_CV is not None
        gradients.append(weakref.ref(terms.gradient_CV))
        return terms

    monkeypatch.setattr(loss, "loss_terms", watched)
    inputs = make_inputs(2 * CHUNK, 10)
    leaves = (inputs.features_PD, inputs.weight_VD, inputs.bias_V)
    fused_loss(*leaves, inputs.labels_P, inputs.projected, 0.3, 2.5, CHUNK)
    assert len(gradients) == 2


def test_evaluation_multiplies_only_for_the_logits() -> None:
    inputs = make_inputs(2 * CHUNK, 10)
    leaves = (inputs.features_PD, inputs.weight_VD, inputs.bias_V)
    with torch.no_grad(), RecordOperations() as record:
        sums = fused_loss(*leaves, inputs.labels_P, inputs.dense, 0.3, 1.0, CHUNK)
    assert not sums.total.requires_grad
    assert record.products() == 2, "one product a chunk"
    assert_same_sums(sums, plain_loss(*leaves, inputs.labels_P, inputs.dense, 0.3))


@pytest.mark.parametrize("chunk_size", [1, 3, 64])
def test_logits_without_an_output_layer_are_taken_as_they_are(chunk_size: int) -> None:
    inputs = make_inputs(7, 11)
    logits_PV = torch.nn.functional.linear(inputs.features_PD, inputs.weight_VD, inputs.bias_V)
    leaves = [inputs.features_PD, inputs.weight_VD, inputs.bias_V]
    told = (inputs.labels_P, inputs.dense, 0.4, 2.0, chunk_size)
    found = fused_loss(logits_PV, None, None, *told)
    expected = fused_loss(*leaves, *told)
    assert_same_sums(found, expected)
    for gradient, same in zip(gradients_of(found.total, *leaves), gradients_of(expected.total, *leaves), strict=True):
        torch.testing.assert_close(gradient, same)
