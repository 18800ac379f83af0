"""The fused, chunked loss says what the plain autograd one says: values and every gradient.

Shapes: P target positions, V classes, D hidden.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.recipe_sections import Divergence
from lightpaff.targets.soft_targets import Dense, Projected, SoftTargets, Sparse
from lightpaff.training import loss, reference_loss
from lightpaff.training.loss import LossSums

HIDDEN, TEACHER_HIDDEN, CHUNK = 5, 6, 8
GOLD_LABELS = {"all": 1.0, "some": 0.5, "none": 0.0}
Loss = Callable[..., LossSums]
fused_loss: Loss = loss.distillation_loss
plain_loss: Loss = reference_loss.distillation_loss


@dataclass(frozen=True)
class Inputs:
    features_PD: Tensor
    weight_VD: Tensor
    bias_V: Tensor
    labels_P: Tensor
    dense: Dense
    projected: Projected

    def targets(self, name: str) -> SoftTargets:
        return self.dense if name == "dense" else self.projected


def make_inputs(positions: int, classes: int, gold: str = "some", dtype: torch.dtype = torch.float64) -> Inputs:
    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype).requires_grad_()

    teacher = Projected(
        torch.randn(positions, TEACHER_HIDDEN, dtype=dtype),
        torch.randn(classes, TEACHER_HIDDEN, dtype=dtype),
        torch.randn(classes, dtype=dtype),
    )
    labels_P = torch.randint(classes, (positions,))
    labels_P = labels_P.where(torch.rand(positions) < GOLD_LABELS[gold], NO_GOLD_LABEL)
    dense = teacher.chunk(0, positions)
    return Inputs(leaf(positions, HIDDEN), leaf(classes, HIDDEN), leaf(classes), labels_P, dense, teacher)


def gradients_of(total: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, leaves))


def assert_same_sums(found: LossSums, expected: LossSums) -> None:
    for field in fields(LossSums):
        torch.testing.assert_close(getattr(found, field.name), getattr(expected, field.name), msg=field.name)
    assert found.count.dtype == found.gold_count.dtype == torch.int64
    assert not found.nll.requires_grad
    assert not found.divergence.requires_grad


def assert_parity(
    leaves: list[Tensor],
    arguments: Callable[[], tuple[Any, ...]],
    weight: float,
    temperature: float = 1.0,
    chunk_size: int = CHUNK,
) -> None:
    """Both losses agree on the sums and on the gradients of `leaves`; `arguments` makes their inputs from these."""
    found = fused_loss(*arguments(), weight, temperature, chunk_size)
    expected = plain_loss(*arguments(), weight, temperature)
    assert_same_sums(found, expected)
    torch.testing.assert_close(gradients_of(found.total, *leaves), gradients_of(expected.total, *leaves))


class RecordOperations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation and the size of the largest tensor that any makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []
        self.largest = 0
        self.copied_sizes: list[int] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.names.append(str(operation))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.numel())
            if "_to_copy" in str(operation):
                self.copied_sizes.append(result.numel())
        return result

    def products(self) -> int:
        """How many matrix products were taken."""
        return sum("mm" in name for name in self.names)


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


def test_evaluation_multiplies_only_for_the_logits() -> None:
    inputs = make_inputs(2 * CHUNK, 10)
    leaves = (inputs.features_PD, inputs.weight_VD, inputs.bias_V)
    with torch.no_grad(), RecordOperations() as record:
        sums = fused_loss(*leaves, inputs.labels_P, inputs.dense, 0.3, 1.0, CHUNK)
    assert not sums.total.requires_grad
    assert record.products() == 2, "one product a chunk"
    assert_same_sums(sums, plain_loss(*leaves, inputs.labels_P, inputs.dense, 0.3))


@pytest.mark.parametrize("either", [fused_loss, plain_loss])
def test_weight_without_teacher_is_refused(either: Loss) -> None:
    inputs = make_inputs(3, 4)
    with pytest.raises(ValueError, match=r"weight is 0.3 without soft targets"):
        either(inputs.features_PD, inputs.weight_VD, inputs.bias_V, inputs.labels_P, None, 0.3)


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
