"""In bf16 autocast and in float32, the fused loss is as near to the exact one as the plain loss is, or nearer.

Shapes: P target positions, V classes, D hidden.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.targets.soft_targets import Dense, Projected
from tests.parity.losses import (
    CHUNK,
    HIDDEN,
    TEACHER_HIDDEN,
    Loss,
    RecordOperations,
    fused_loss,
    gradients_of,
    make_inputs,
    plain_loss,
)


def relative_error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("targets", ["dense", "projected"])
@pytest.mark.parametrize("tied", [False, True])
def test_bf16_autocast_is_as_near_to_the_exact_gradient_as_the_reference(targets: str, tied: bool) -> None:
    inputs = make_inputs(3 * CHUNK, 101, dtype=torch.float32)
    mixing_DD = torch.randn(HIDDEN, HIDDEN)
    leaves = [inputs.features_PD, inputs.weight_VD]

    def step(either: Loss, precise: bool) -> list[Tensor]:
        """The total and the gradients; tied, the trunk multiplies by the output layer before and after the loss."""
        cast = torch.float64 if precise else torch.float32
        features_PD, weight_VD = (leaf.detach().to(cast).requires_grad_() for leaf in leaves)
        teacher = replace(inputs.dense, logits_PV=inputs.dense.logits_PV.to(cast))
        live = Projected(*(tensor.to(cast) for tensor in vars(inputs.projected).values()))
        bias_V = inputs.bias_V.detach().to(cast)
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            trunk_PD = (features_PD @ mixing_DD.to(cast)).tanh() if tied else features_PD
            soft_targets = {"dense": teacher, "projected": live}[targets]
            sums = either(trunk_PD, weight_VD, bias_V, inputs.labels_P, soft_targets, 0.3, 2.5, CHUNK)
            total = sums.total
            if tied:
                total = total + (trunk_PD @ weight_VD.T).float().square().mean()
        assert sums.total.dtype == cast
        return [total.detach(), *torch.autograd.grad(total, [features_PD, weight_VD])]

    exact = step(plain_loss, precise=True)
    fused = step(fused_loss, precise=False)
    reference = step(plain_loss, precise=False)
    for name, found, plain, wanted in zip(("total", "features", "weight"), fused, reference, exact, strict=True):
        assert found.dtype == torch.float32
        error, plain_error = relative_error(found, wanted), relative_error(plain, wanted)
        assert error < 0.02, f"{name}: {error}"
        # The logits are not rounded: of the total's error, only the rounding of the factors is left.
        assert name == "total" or error > 1e-5, f"{name}: {error}; bf16 has 8 bits: autocast was ignored"
        assert error < 2 * plain_error + 1e-3, f"{name}: fused {error}, reference {plain_error}"


def test_bf16_weight_gradient_is_summed_over_chunks_in_float32() -> None:
    """Many small chunks, all pulling the same way: a bf16 sum would stop growing once an addend is below its step."""
    positions, classes = 1000, 3
    features_PD = torch.rand(positions, HIDDEN)
    leaves = [torch.randn(classes, HIDDEN).requires_grad_(), torch.zeros(classes).requires_grad_()]
    labels_P = torch.zeros(positions, dtype=torch.int64)
    exact = gradients_of(plain_loss(features_PD, *leaves, labels_P, None, 0.0).total, *leaves)
    with torch.autocast("cpu", torch.bfloat16):
        sums = fused_loss(features_PD, *leaves, labels_P, None, 0.0, 1.0, 1)
    for found, wanted in zip(gradients_of(sums.total, *leaves), exact, strict=True):
        assert relative_error(found, wanted.double()) < 0.005


def test_autocast_casts_the_weights_once_not_once_a_chunk() -> None:
    classes = 101
    inputs = make_inputs(3 * CHUNK, classes, dtype=torch.float32)
    leaves = (inputs.features_PD, inputs.weight_VD, inputs.bias_V)
    with torch.autocast("cpu", torch.bfloat16), RecordOperations() as record:
        fused_loss(*leaves, inputs.labels_P, inputs.projected, 0.3, 2.5, CHUNK)
    assert record.copied_sizes.count(classes * HIDDEN) == 1
    assert record.copied_sizes.count(classes * TEACHER_HIDDEN) <= 1


@pytest.mark.parametrize("distance", [0.3, 0.03, 0.003])
@pytest.mark.parametrize("targets", ["dense", "projected"])
def test_bf16_gradient_at_the_logits_is_exact_near_the_teacher(targets: str, distance: float) -> None:
    """Autocast rounds the factors of the products; their result, whose softmax is compared, it must not round."""
    positions, classes, hidden = 64, 1009, 96
    features_PD = torch.randn(positions, hidden).bfloat16().float()
    weight_VD = (torch.randn(classes, hidden) / 4).bfloat16().float()
    bias_V = (distance * torch.randn(classes)).requires_grad_()
    labels_P = torch.full((positions,), NO_GOLD_LABEL)
    live = Projected(features_PD, weight_VD, torch.zeros(classes))
    soft_targets = live if targets == "projected" else live.chunk(0, positions)

    with torch.autocast("cpu", torch.bfloat16):
        found = fused_loss(features_PD, weight_VD, bias_V, labels_P, soft_targets, 1.0, 1.0, CHUNK)
    double_V = bias_V.detach().double().requires_grad_()
    exact_targets = Projected(features_PD.double(), weight_VD.double(), torch.zeros(classes).double())
    exact = plain_loss(features_PD.double(), weight_VD.double(), double_V, labels_P, exact_targets, 1.0)
    (found_V,), (wanted_V,) = gradients_of(found.total, bias_V), gradients_of(exact.total, double_V)
    assert relative_error(found_V, wanted_V) < 1e-3
    torch.testing.assert_close(found.divergence.double(), exact.divergence, rtol=0.01, atol=0)


def test_float32_gradient_stays_exact_near_the_teacher() -> None:
    """As the student converges, p - q is a small difference: it must not drown in rounding."""
    inputs = make_inputs(CHUNK + 1, 101, dtype=torch.float32)
    logits_PV = inputs.dense.logits_PV
    bias_V = (1e-3 * torch.randn(101)).requires_grad_()
    labels_P = torch.full((CHUNK + 1,), NO_GOLD_LABEL)
    soft_targets = Dense(logits_PV)
    # The identity as the output layer makes the features the logits.
    sums = fused_loss(logits_PV, torch.eye(101), bias_V, labels_P, soft_targets, 1.0, 1.0, CHUNK)
    exact_bias_V = bias_V.detach().double().requires_grad_()
    exact = plain_loss(
        logits_PV.double(), torch.eye(101).double(), exact_bias_V, labels_P, Dense(logits_PV.double()), 1.0
    )
    (found_V,), (wanted_V,) = gradients_of(sums.total, bias_V), gradients_of(exact.total, exact_bias_V)
    assert relative_error(found_V, wanted_V) < 1e-3
    torch.testing.assert_close(sums.divergence.double(), exact.divergence, rtol=0.05, atol=1e-6)
