"""The loss of `loss.py` in plain autograd, all logits at once: what the fused one is tested and timed against.

Shapes: P target positions, V classes, D hidden.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lightpaff.models.projection import exact_dtype
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.recipe_training import Divergence
from lightpaff.targets.soft_targets import SoftTargets, Sparse
from lightpaff.training.loss import LossSums, require_forward_kl, require_teacher


def distillation_loss(
    features_PD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    labels_P: Tensor,
    soft_targets: SoftTargets | None,
    weight: float,
    temperature: float = 1.0,
    chunk_size: int = 0,
    gold_scale: float = 1.0,
    divergence: Divergence = "forward_kl",
) -> LossSums:
    """The same sums as `lightpaff.training.loss.distillation_loss`; `chunk_size` is accepted and not used.

    Raises:
        ValueError: `weight` is not 0 though there are no soft targets.
    """
    require_teacher(soft_targets, weight)
    logits_PV = functional.linear(features_PD, weight_VD, bias_V)
    logits_PV = logits_PV.to(exact_dtype(logits_PV))
    has_gold_P = labels_P != NO_GOLD_LABEL
    nll = functional.cross_entropy(logits_PV, labels_P, ignore_index=NO_GOLD_LABEL, reduction="sum")
    if soft_targets is None:
        return LossSums(gold_scale * nll, nll.detach(), torch.zeros_like(nll), has_gold_P.sum(), has_gold_P.sum())

    if isinstance(soft_targets, Sparse):
        require_forward_kl(soft_targets, temperature, divergence)
        found = _sparse_kl(soft_targets, functional.log_softmax(logits_PV / temperature, dim=1))
        return _put_together(nll, found, has_gold_P, weight, temperature, gold_scale)
    with torch.no_grad():
        teacher_logits_PV = soft_targets.chunk(0, len(labels_P)).logits_PV.to(logits_PV.dtype)
        log_q_PV = functional.log_softmax(teacher_logits_PV / temperature, dim=1)
    log_p_PV = functional.log_softmax(logits_PV / temperature, dim=1)
    found = _DIVERGENCES[divergence](log_q_PV.exp(), log_p_PV.exp())
    return _put_together(nll, found, has_gold_P, weight, temperature, gold_scale)


def _put_together(
    nll: Tensor, found: Tensor, has_gold_P: Tensor, weight: float, temperature: float, gold_scale: float
) -> LossSums:
    total = (1 - weight) * gold_scale * nll + weight * temperature**2 * found
    gold_count = has_gold_P.sum()
    return LossSums(total, nll.detach(), found.detach(), torch.full_like(gold_count, len(has_gold_P)), gold_count)


def _sparse_kl(targets: Sparse, log_p_PV: Tensor) -> Tensor:
    """The cross entropy of the stored classes and, as one more class, of all others; less the teacher's entropy."""
    cross_entropy_P = -(targets.weights_PK * log_p_PV.gather(1, targets.ids_PK)).sum(1)
    if targets.rest_P is not None:
        p_rest_P = log_p_PV.exp().scatter(1, targets.ids_PK, 0).sum(1)
        cross_entropy_P = cross_entropy_P - torch.special.xlogy(targets.rest_P, p_rest_P)
    found: Tensor = (cross_entropy_P - targets.entropy_P).sum()
    return found


def _kl(one_PV: Tensor, other_PV: Tensor) -> Tensor:
    difference: Tensor = torch.special.xlogy(one_PV, one_PV) - torch.special.xlogy(one_PV, other_PV)
    return difference.sum()


def _jensen_shannon(one_PV: Tensor, other_PV: Tensor) -> Tensor:
    mean_PV = (one_PV + other_PV) / 2
    return (_kl(one_PV, mean_PV) + _kl(other_PV, mean_PV)) / 2


_DIVERGENCES: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": _kl,
    "reverse_kl": lambda teacher_PV, student_PV: _kl(student_PV, teacher_PV),
    "jensen_shannon": _jensen_shannon,
}
"""Of the teacher's probabilities and the student's."""
