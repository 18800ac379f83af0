"""The fused, chunked loss says what the plain autograd one says: values and every gradient.

Shapes: P target positions, V classes, D hidden.
"""

import math
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.recipe_training import Divergence
from lightpaff.targets.soft_targets import Dense, Sparse
from tests.parity.losses import (
    CHUNK,
    GOLD_LABELS,
    Loss,
    assert_parity,
    assert_same_sums,
    fused_loss,
    gradients_of,
    make_inputs,
    plain_loss,
)


@pytest.mark.parametrize("positions", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
@pytest.mark.parametrize("classes", [2, 3, 101])
@pytest.mark.parametrize("gold", GOLD_LABELS)
@pytest.mark.parametrize("targets", ["dense", "projected"])
def test_fused_equals_reference(positions: int, classes: int, gold: str, targets: str) -> None:
    inputs = make_inputs(positions, classes, gold)
    for weight, temperature, has_bias in product([0, 0.3, 1], [1, 2.5], [True, False]):
        bias_V = inputs.bias_V if has_bias else None
        arguments = (inputs.features_PD, inputs.weight_VD, bias_V, inputs.labels_P, inputs.targets(targets))
        leaves = [leaf for leaf in arguments[:3] if isinstance(leaf, Tensor)]
        assert_parity(leaves, lambda arguments=arguments: arguments, weight, temperature)  # type: ignore[misc]


@pytest.mark.parametrize("divergence", get_args(Divergence))
@pytest.mark.parametrize("positions", [0, 1, 2 * CHUNK + 3])
@pytest.mark.parametrize("classes", [2, 101])
def test_every_divergence_equals_its_reference(divergence: Divergence, positions: int, classes: int) -> None:
    inputs = make_inputs(positions, classes)
    leaves = [inputs.features_PD, inputs.weight_VD, inputs.bias_V]
    for weight, temperature, targets in product([0, 0.3, 1], [1, 2.5], ["dense", "projected"]):
        told = (*leaves, inputs.labels_P, inputs.targets(targets), weight, temperature)
        found = fused_loss(*told, chunk_size=CHUNK, divergence=divergence)
        expected = plain_loss(*told, divergence=divergence)
        assert_same_sums(found, expected)
        torch.testing.assert_close(gradients_of(found.total, *leaves), gradients_of(expected.total, *leaves))


def sparse_targets(positions: int, classes: int, temperature: float, has_rest: bool) -> Sparse:
    """Drawn ones with importance weights, where classes repeat; or the most probable ones and the rest."""
    q_PV = torch.randn(positions, classes, dtype=torch.float64).softmax(1)
    stored = min(5, classes - 1)
    if has_rest:
        weights_PK, ids_PK = q_PV.topk(stored)
        rest_P = 1 - weights_PK.sum(1)
        return Sparse(ids_PK, weights_PK, rest_P, torch.rand(positions).double(), temperature)
    ids_PK = torch.randint(classes, (positions, stored))
    return Sparse(ids_PK, torch.rand(positions, stored).double(), None, torch.rand(positions).double(), temperature)


@pytest.mark.parametrize("positions", [0, 1, CHUNK, 2 * CHUNK + 3])
@pytest.mark.parametrize("classes", [2, 3, 101])
@pytest.mark.parametrize("gold", GOLD_LABELS)
@pytest.mark.parametrize("has_rest", [False, True])
def test_sparse_targets_equal_reference(positions: int, classes: int, gold: str, has_rest: bool) -> None:
    inputs = make_inputs(positions, classes, gold)
    leaves = [inputs.features_PD, inputs.weight_VD, inputs.bias_V]
    for weight, temperature, gold_scale in product([0, 0.3, 1], [1, 2.5], [1.0, 1.7]):
        targets = sparse_targets(positions, classes, temperature, has_rest)
        told = (*leaves, inputs.labels_P, targets, weight, temperature, CHUNK, gold_scale)
        found, expected = fused_loss(*told), plain_loss(*told)
        assert_same_sums(found, expected)
        torch.testing.assert_close(gradients_of(found.total, *leaves), gradients_of(expected.total, *leaves))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_every_class_stored_is_the_live_teacher(temperature: float) -> None:
    inputs = make_inputs(11, 7)
    leaves = [inputs.features_PD, inputs.weight_VD, inputs.bias_V]
    q_PV = (inputs.dense.logits_PV / temperature).softmax(1)
    entropy_P = -(q_PV * q_PV.log()).sum(1)
    weights_PK, ids_PK = q_PV.topk(7)
    live = fused_loss(*leaves, inputs.labels_P, inputs.projected, 0.3, temperature)
    expected = gradients_of(live.total, *leaves)
    for rest_P in (None, torch.zeros(11).double()):
        stored = Sparse(ids_PK, weights_PK, rest_P, entropy_P, temperature)
        found = fused_loss(*leaves, inputs.labels_P, stored, 0.3, temperature)
        assert_same_sums(found, live)
        torch.testing.assert_close(gradients_of(found.total, *leaves), expected)


def test_sparse_targets_refuse_what_they_cannot_answer() -> None:
    inputs = make_inputs(3, 7)
    layer = (inputs.features_PD, inputs.weight_VD, inputs.bias_V, inputs.labels_P)
    targets = sparse_targets(3, 7, 1.0, has_rest=False)
    for either in (fused_loss, plain_loss):
        with pytest.raises(ValueError, match="reverse_kl, which needs every class"):
            either(*layer, targets, 0.5, divergence="reverse_kl")
        with pytest.raises(ValueError, match="temperature is 2, but the soft targets were taken at 1"):
            either(*layer, targets, 0.5, 2.0)


def test_the_divergences_are_what_their_names_say() -> None:
    """By hand, of P = (3/4, 1/4) of the student and Q = (1/2, 1/2) of the teacher."""
    student_PV, teacher_PV = torch.tensor([[3.0, 1.0]]).double().log(), torch.zeros(1, 2).double()

    def found(divergence: Divergence, teacher_PV: Tensor = teacher_PV) -> float:
        layer = (student_PV, torch.eye(2).double(), None, torch.tensor([NO_GOLD_LABEL]))
        return fused_loss(*layer, Dense(teacher_PV), 1.0, divergence=divergence).divergence.item()

    forward, reverse = math.log(4 / 3) / 2, 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    middle = (math.log(0.8) / 2 + math.log(4 / 3) / 2 + 0.75 * math.log(1.2) + 0.25 * math.log(2 / 3)) / 2
    assert found("forward_kl") == pytest.approx(forward, abs=1e-12)
    assert found("reverse_kl") == pytest.approx(reverse, abs=1e-12)
    assert found("jensen_shannon") == pytest.approx(middle, abs=1e-12)
    # A class that the teacher rules out: nothing for it, everything, and something between.
    ruled_out_PV = torch.tensor([[0.0, -math.inf]]).double()
    assert found("forward_kl", ruled_out_PV) == pytest.approx(math.log(4 / 3))
    assert found("reverse_kl", ruled_out_PV) == math.inf
    assert 0 < found("jensen_shannon", ruled_out_PV) < math.log(2)


@pytest.mark.parametrize("positions", [0, 1, CHUNK, CHUNK + 1])
@pytest.mark.parametrize("gold", GOLD_LABELS)
def test_plain_training_equals_reference(positions: int, gold: str) -> None:
    inputs = make_inputs(positions, 11, gold)
    leaves = [inputs.features_PD, inputs.weight_VD, inputs.bias_V]
    assert_parity(leaves, lambda: (*leaves, inputs.labels_P, None), 0.0)
    sums = fused_loss(*leaves, inputs.labels_P, None, 0.0)
    assert sums.divergence == 0
    assert sums.count == sums.gold_count == (inputs.labels_P != NO_GOLD_LABEL).sum()


@pytest.mark.parametrize(("weight", "temperature"), list(product([0, 0.3, 1], [1, 2.5])))
@pytest.mark.parametrize("either", [fused_loss, plain_loss])
def test_values_and_gradient_equal_the_formula_in_numpy(either: Loss, weight: float, temperature: float) -> None:
    inputs = make_inputs(9, 7)
    features_PD, weight_VD = inputs.features_PD, inputs.weight_VD
    sums = either(features_PD, weight_VD, inputs.bias_V, inputs.labels_P, inputs.dense, weight, temperature, 4)
    (grad_bias_V,) = gradients_of(sums.total, inputs.bias_V)

    z = features_PD.detach().numpy() @ weight_VD.detach().numpy().T + inputs.bias_V.detach().numpy()
    t = inputs.dense.logits_PV.numpy()
    labels = inputs.labels_P.numpy()
    nll, kl, gradient = 0.0, 0.0, np.zeros(7)
    for position in range(9):
        p = np.exp(z[position]) / np.exp(z[position]).sum()
        p_soft = np.exp(z[position] / temperature) / np.exp(z[position] / temperature).sum()
        q_soft = np.exp(t[position] / temperature) / np.exp(t[position] / temperature).sum()
        kl += sum(q_soft[k] * np.log(q_soft[k] / p_soft[k]) for k in range(7))
        gradient += weight * temperature * (p_soft - q_soft)
        if labels[position] != NO_GOLD_LABEL:
            nll -= np.log(p[labels[position]])
            gradient += (1 - weight) * (p - np.eye(7)[labels[position]])
    np.testing.assert_allclose(sums.nll.item(), nll, rtol=1e-12)
    np.testing.assert_allclose(sums.divergence.item(), kl, rtol=1e-12)
    np.testing.assert_allclose(sums.total.item(), (1 - weight) * nll + weight * temperature**2 * kl, rtol=1e-12)
    np.testing.assert_allclose(grad_bias_V.numpy(), gradient, rtol=1e-10, atol=1e-13)
    assert (sums.count.item(), sums.gold_count.item()) == (9, (labels != NO_GOLD_LABEL).sum())


@pytest.mark.parametrize("either", [fused_loss, plain_loss])
@pytest.mark.parametrize("weight", [0, 0.3, 1])
def test_gradients_equal_finite_differences(either: Loss, weight: float) -> None:
    inputs = make_inputs(5, 4)

    def total(features_PD: Tensor, weight_VD: Tensor, bias_V: Tensor) -> Tensor:
        return either(features_PD, weight_VD, bias_V, inputs.labels_P, inputs.projected, weight, 2.5, 2).total

    leaves = [inputs.features_PD, inputs.weight_VD, inputs.bias_V]
    found, step = gradients_of(total(*leaves), *leaves), 1e-6
    for leaf, gradient in zip(leaves, found, strict=True):
        flat = leaf.detach().view(-1)
        for place, expected in enumerate(gradient.flatten().tolist()):
            before = flat[place].item()
            values = []
            for moved in (before + step, before - step):
                flat[place] = moved
                values.append(total(*leaves).item())
            flat[place] = before
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("either", [fused_loss, plain_loss])
def test_weight_without_teacher_is_refused(either: Loss) -> None:
    inputs = make_inputs(3, 4)
    with pytest.raises(ValueError, match=r"weight is 0.3 without soft targets"):
        either(inputs.features_PD, inputs.weight_VD, inputs.bias_V, inputs.labels_P, None, 0.3)


@pytest.mark.parametrize("weight", [0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_classes_that_the_teacher_rules_out_have_no_probability(weight: float, temperature: float) -> None:
    inputs = make_inputs(2 * CHUNK, 101)
    logits_PV = inputs.dense.logits_PV.clone()
    logits_PV[:, 50:] = -torch.inf
    leaves = [inputs.features_PD, inputs.weight_VD, inputs.bias_V]
    assert_parity(leaves, lambda: (*leaves, inputs.labels_P, Dense(logits_PV)), weight, temperature)
    sums = fused_loss(*leaves, inputs.labels_P, Dense(logits_PV), weight, temperature)
    assert all(gradient.isfinite().all() for gradient in gradients_of(sums.total, *leaves))
    few = Dense(logits_PV.clamp(min=-1e4))
    torch.testing.assert_close(
        sums.divergence, plain_loss(*leaves, inputs.labels_P, few, weight, temperature).divergence
    )
