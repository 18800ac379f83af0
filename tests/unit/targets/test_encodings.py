"""What is kept of a distribution says the same on average, in few bytes.

Shapes: P target positions, K stored classes, V classes.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from lightpaff.targets.encodings import Arrays, Encoding, pack_classes, unpack_classes
from lightpaff.targets.soft_targets import Dense, Sparse
from lightpaff.training.loss import distillation_loss

P, V, D = 4, 300, 6


def kept(encoding: Encoding, logits_PV: Tensor, seed: int = 0) -> Arrays:
    uniforms_PK = torch.from_numpy(np.random.default_rng(seed).random((len(logits_PV), encoding.draws)))
    return {name: tensor.numpy() for name, tensor in encoding.encode(logits_PV, uniforms_PK).items()}


def sparse(encoding: Encoding, logits_PV: Tensor, seed: int = 0) -> Sparse:
    targets = encoding.decode(kept(encoding, logits_PV, seed))
    assert isinstance(targets, Sparse)
    return targets


@pytest.fixture
def logits_PV() -> Tensor:
    torch.manual_seed(0)
    return 2 * torch.randn(P, V)


@pytest.mark.parametrize(("classes", "bytes_a_class"), [(2, 2), (2**16, 2), (2**16 + 1, 3), (2**24, 3)])
def test_classes_come_back_from_as_few_bytes_as_they_need(classes: int, bytes_a_class: int) -> None:
    ids_PK = torch.tensor([[0, classes - 1, classes // 2], [1, classes // 3, 0]])
    packed = pack_classes(ids_PK, classes).numpy()
    assert packed.nbytes == 6 * bytes_a_class
    assert unpack_classes(packed).tolist() == ids_PK.tolist()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_entropy_is_that_of_the_whole_distribution(logits_PV: Tensor, temperature: float) -> None:
    targets = sparse(Encoding("sampled", V, 3, temperature), logits_PV)
    expected_P = torch.distributions.Categorical(logits=logits_PV.double() / temperature).entropy()
    torch.testing.assert_close(targets.entropy_P.double(), expected_P, rtol=1e-5, atol=1e-5)
    # A class that the teacher rules out has none.
    ruled_out_PV = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert sparse(Encoding("sampled", 3, 3), ruled_out_PV).entropy_P.item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_most_probable_classes_and_the_rest_are_the_distribution(logits_PV: Tensor, temperature: float) -> None:
    targets = sparse(Encoding("top-k", V, 12, temperature), logits_PV)
    q_PV = (logits_PV.double() / temperature).softmax(1)
    weights_PK, ids_PK = q_PV.topk(12)
    assert targets.ids_PK.tolist() == ids_PK.tolist()
    assert targets.rest_P is not None
    torch.testing.assert_close(targets.weights_PK.double(), weights_PK, rtol=2e-3, atol=1e-6)
    torch.testing.assert_close(targets.rest_P.double(), 1 - weights_PK.sum(1), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(targets.weights_PK.sum(1) + targets.rest_P, torch.ones(P))
    together_PK = torch.cat([weights_PK, 1 - weights_PK.sum(1, keepdim=True)], 1)
    expected_P = torch.distributions.Categorical(probs=together_PK).entropy()
    torch.testing.assert_close(targets.entropy_P.double(), expected_P, rtol=1e-3, atol=1e-3)


def test_few_classes_are_kept_as_they_are(logits_PV: Tensor) -> None:
    targets = Encoding("dense", V).decode(kept(Encoding("dense", V), logits_PV))
    assert isinstance(targets, Dense)
    assert torch.equal(targets.logits_PV, logits_PV)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (Encoding("sampled", V, 12), 12 * 2 + 4),
        (Encoding("sampled", 2**16 + 1, 12, proposal=2.0), 12 * (3 + 2) + 4),
        (Encoding("top-k", V, 12), 12 * (2 + 2) + 4),
        (Encoding("dense", 3), 3 * 4),
    ],
)
def test_a_position_s_bytes_are_known_before(encoding: Encoding, expected: int) -> None:
    logits_PV = torch.randn(P, encoding.classes)
    assert encoding.bytes_a_position == expected
    assert sum(array.nbytes for array in kept(encoding, logits_PV).values()) == P * expected


def loss_and_gradient(student_PV: Tensor, targets: Dense | Sparse, temperature: float) -> tuple[float, Tensor]:
    features_PV = student_PV.clone().requires_grad_()
    labels_P = torch.full((P,), -100)
    sums = distillation_loss(features_PV, None, None, labels_P, targets, 1.0, temperature)
    (gradient_PV,) = torch.autograd.grad(sums.total, features_PV)
    return sums.divergence.item(), gradient_PV


def z_scores(
    encoding: Encoding, logits_PV: Tensor, student_PV: Tensor, stores: int, *, has_rest: bool = True
) -> tuple[float, float]:
    """How many standard errors the mean over stores lies from the live teacher's loss, and from its gradient along a
    fixed direction."""
    direction_PV = torch.randn(P, V, generator=torch.Generator().manual_seed(5))
    whole, gradient_PV = loss_and_gradient(student_PV, Dense(logits_PV), encoding.temperature)
    losses, slopes = [], []
    for seed in range(stores):
        targets = sparse(encoding, logits_PV, seed)
        if not has_rest:
            weights_PK = targets.weights_PK / targets.weights_PK.sum(1, keepdim=True)
            entropy_P = -(weights_PK * weights_PK.log()).sum(1)
            targets = Sparse(targets.ids_PK, weights_PK, None, entropy_P, targets.temperature)
        loss, own_PV = loss_and_gradient(student_PV, targets, encoding.temperature)
        losses.append(loss)
        slopes.append((own_PV * direction_PV).sum().item())
    slope = (gradient_PV * direction_PV).sum().item()
    return _z(np.array(losses), whole), _z(np.array(slopes), slope)


def _z(found: np.ndarray, expected: float) -> float:
    # What is not drawn has no spread: the rounding of float32 then.
    error = max(float(found.std(ddof=1)) / len(found) ** 0.5, 1e-3)
    return abs(float(found.mean()) - expected) / error


@pytest.mark.parametrize("proposal", [1.0, 1.5])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_drawn_targets_are_the_live_teacher_on_average(logits_PV: Tensor, temperature: float, proposal: float) -> None:
    student_PV = logits_PV / 2 + torch.randn(P, V, generator=torch.Generator().manual_seed(1))
    encoding = Encoding("sampled", V, 12, temperature, proposal)
    loss, gradient = z_scores(encoding, logits_PV, student_PV, stores=400)
    assert loss < 4
    assert gradient < 4


def test_the_most_probable_classes_alone_are_not(logits_PV: Tensor) -> None:
    """The test above can tell."""
    student_PV = logits_PV / 2 + torch.randn(P, V, generator=torch.Generator().manual_seed(1))
    loss, gradient = z_scores(Encoding("top-k", V, 12), logits_PV, student_PV, stores=2, has_rest=False)
    assert loss > 100
    assert gradient > 100
