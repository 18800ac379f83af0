"""The regression loss against a formula written out in numpy, and its missing labels."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lightpaff.targets.soft_targets import Dense
from lightpaff.training.score_loss import score_loss

POSITIONS, HIDDEN = 7, 5


@pytest.fixture
def layer() -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((POSITIONS, HIDDEN), (1, HIDDEN), (1,))
    features_PD, weight_1D, bias_1 = (torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes)
    return features_PD, weight_1D, bias_1


@pytest.mark.parametrize("weight", [0, 0.3, 1])
@pytest.mark.parametrize("missing", [[], [0, 3], list(range(POSITIONS))])
def test_equals_the_formula(layer: tuple[Tensor, Tensor, Tensor], weight: float, missing: list[int]) -> None:
    features_PD, weight_1D, bias_1 = layer
    labels_P = torch.randn(POSITIONS)
    labels_P[missing] = math.nan
    teacher_P1 = torch.randn(POSITIONS, 1, dtype=torch.float64)
    sums = score_loss(*layer, labels_P, Dense(teacher_P1), weight)
    torch.autograd.backward(sums.total)

    scores = features_PD.detach().numpy() @ weight_1D.detach().numpy()[0] + bias_1.detach().numpy()
    gold_difference = np.nan_to_num(scores - labels_P.numpy())
    teacher_difference = scores - teacher_P1.numpy()[:, 0]
    np.testing.assert_allclose(sums.nll.item(), (gold_difference**2).sum(), rtol=1e-12)
    np.testing.assert_allclose(sums.divergence.item(), (teacher_difference**2).sum(), rtol=1e-12)
    np.testing.assert_allclose(
        sums.total.item(), (1 - weight) * sums.nll.item() + weight * sums.divergence.item(), rtol=1e-12
    )
    gradient = 2 * (1 - weight) * gold_difference + 2 * weight * teacher_difference
    assert bias_1.grad is not None
    assert weight_1D.grad is not None
    np.testing.assert_allclose(bias_1.grad.item(), gradient.sum(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(weight_1D.grad.numpy()[0], gradient @ features_PD.detach().numpy(), rtol=1e-10)
    assert (sums.count.item(), sums.gold_count.item()) == (POSITIONS, POSITIONS - len(missing))
    assert not sums.nll.requires_grad
    assert not sums.divergence.requires_grad


def test_without_teacher_is_the_sum_of_squared_errors(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    labels_P = torch.randn(POSITIONS)
    labels_P[2] = math.nan
    sums = score_loss(*layer, labels_P, None, 0.0)
    kept = [position for position in range(POSITIONS) if position != 2]
    scores_P = torch.nn.functional.linear(*layer).squeeze(1)
    expected = torch.nn.functional.mse_loss(scores_P[kept], labels_P[kept].double(), reduction="sum")
    torch.testing.assert_close(sums.total, expected)
    assert sums.divergence == 0
    assert sums.count == sums.gold_count == len(kept)
    with pytest.raises(ValueError, match=r"weight is 0.5 without soft targets"):
        score_loss(*layer, labels_P, None, 0.5)


def test_no_positions(layer: tuple[Tensor, Tensor, Tensor]) -> None:
    features_PD, weight_1D, bias_1 = layer
    targets = Dense(torch.zeros(0, 1))
    sums = score_loss(features_PD[:0], weight_1D, bias_1, torch.zeros(0), targets, 0.5)
    torch.autograd.backward(sums.total)
    assert sums.total == sums.count == 0
    assert weight_1D.grad is not None
    assert torch.count_nonzero(weight_1D.grad) == 0


def test_bf16_autocast_does_not_round_the_score() -> None:
    features_PD, weight_1D = torch.randn(POSITIONS, HIDDEN), torch.randn(1, HIDDEN, requires_grad=True)
    labels_P, targets = torch.randn(POSITIONS), Dense(torch.randn(POSITIONS, 1))
    exact = score_loss(features_PD, weight_1D, None, labels_P, targets, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        sums = score_loss(features_PD, weight_1D, None, labels_P, targets, 0.5)
    assert sums.total.dtype == torch.float32
    torch.testing.assert_close(sums.total, exact.total)
