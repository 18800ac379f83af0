"""The fused and the plain loss, inputs for both, and what holds the one to the other.

Shapes: P target positions, V classes, D hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.targets.soft_targets import Dense, Projected, SoftTargets
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
