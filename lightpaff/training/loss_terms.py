"""What one chunk of positions adds to the distillation loss: its sums, and the gradient at the student's logits.

Shapes: C positions of one chunk, K stored classes, V classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.targets.soft_targets import Dense, Sparse
from lightpaff.training.divergences import Term


@dataclass(frozen=True)
class LossSettings:
    """How the terms are put together; `divergence` is of dense soft targets."""

    gold_weight: float
    teacher_weight: float
    temperature: float
    chunk_size: int
    divergence: Term


@dataclass(frozen=True)
class LossTerms:
    """What one chunk adds to the sums; the gradient is that of the total at the chunk's logits."""

    nll: Tensor
    divergence: Tensor
    gradient_CV: Tensor | None


def loss_terms(
    logits_CV: Tensor,
    labels_C: Tensor,
    targets: Dense | Sparse | None,
    settings: LossSettings,
    exact_dtype: torch.dtype,
    needs_gradient: bool,
) -> LossTerms:
    """The sums and (1-λ)(softmax(z) - onehot(y)) + λT · (the divergence's gradient at z/T) at the logits z
    of one chunk; KL(teacher || student) has softmax(z/T) - softmax(t/T)."""
    if isinstance(targets, Sparse):
        return _sparse_terms(logits_CV, labels_C, targets, settings, exact_dtype, needs_gradient)
    log_p_CV, nll, gold_C1, share_C1 = _gold_term(logits_CV, labels_C, settings.gold_weight, exact_dtype)
    if targets is None:
        gradient_CV = log_p_CV.exp_().mul_(share_C1).scatter_add_(1, gold_C1, -share_C1) if needs_gradient else None
        return LossTerms(nll, torch.zeros_like(nll), gradient_CV)

    teacher_logits_CV = targets.logits_PV
    assert teacher_logits_CV.shape == logits_CV.shape, (teacher_logits_CV.shape, logits_CV.shape)
    scale = settings.teacher_weight * settings.temperature if needs_gradient else None
    if settings.temperature == 1:
        log_q_CV = functional.log_softmax(teacher_logits_CV, 1, dtype=exact_dtype)
        # At T = 1 both terms are multiples of one softmax.
        divergence, gradient_CV = settings.divergence(log_p_CV, log_q_CV, scale, share_C1)
    else:
        hard_CV = log_p_CV.exp_().mul_(share_C1) if needs_gradient else None
        log_p_CV = functional.log_softmax(logits_CV.to(exact_dtype) / settings.temperature, 1)
        log_q_CV = functional.log_softmax(teacher_logits_CV.to(exact_dtype) / settings.temperature, 1)
        divergence, gradient_CV = settings.divergence(log_p_CV, log_q_CV, scale, 0.0)
        gradient_CV = hard_CV if gradient_CV is None or hard_CV is None else gradient_CV.add_(hard_CV)
    if gradient_CV is not None:
        gradient_CV.scatter_add_(1, gold_C1, -share_C1)
    return LossTerms(nll, divergence, gradient_CV)


def _gold_term(
    logits_CV: Tensor, labels_C: Tensor, gold_weight: float, exact_dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log P; -log P of the gold classes, summed; each position's gold class (0 where it has none), and the weight of
    its gradient, C x 1."""
    log_p_CV = functional.log_softmax(logits_CV, 1, dtype=exact_dtype)
    has_gold_C = labels_C != NO_GOLD_LABEL
    gold_C1 = labels_C.where(has_gold_C, 0).unsqueeze(1)
    nll = -log_p_CV.gather(1, gold_C1).squeeze(1).where(has_gold_C, 0).sum()
    share_C1 = has_gold_C.to(exact_dtype).unsqueeze(1) * gold_weight
    return log_p_CV, nll, gold_C1, share_C1


def _sparse_terms(
    logits_CV: Tensor,
    labels_C: Tensor,
    targets: Sparse,
    settings: LossSettings,
    exact_dtype: torch.dtype,
    needs_gradient: bool,
) -> LossTerms:
    """The same where the teacher's term is -Σ w_k log p(k) - r log p(rest), less the teacher's entropy.

    With w = Σ w_k, its gradient at z/T is w · softmax - Σ w_k onehot(k); and with a rest r, whose classes have the
    probability p(rest) together, what is no stored class has r · (1 - 1 / p(rest)) · softmax more, what is one
    r · softmax.
    """
    log_p_CV, nll, gold_C1, share_C1 = _gold_term(logits_CV, labels_C, settings.gold_weight, exact_dtype)
    gradient_CV: Tensor | None = None
    scale = settings.teacher_weight * settings.temperature
    if settings.temperature != 1:
        if needs_gradient and settings.gold_weight > 0:
            gradient_CV = log_p_CV.exp_().mul_(share_C1)
        log_p_CV = functional.log_softmax(logits_CV.to(exact_dtype) / settings.temperature, 1)

    weights_CK = targets.weights_PK.to(exact_dtype)
    log_p_CK = log_p_CV.gather(1, targets.ids_PK)
    cross_entropy_C = -(weights_CK * log_p_CK).sum(1)
    factor_C1 = scale * weights_CK.sum(1, keepdim=True)
    p_CV = log_p_CV.exp_()
    if targets.rest_P is not None:
        rest_C1 = targets.rest_P.to(exact_dtype).unsqueeze(1)
        # Summed without the stored classes: 1 less their sum would keep no digit of a small rest.
        p_CV.scatter_(1, targets.ids_PK, 0)
        p_rest_C1 = p_CV.sum(1, keepdim=True).clamp_(min=torch.finfo(exact_dtype).tiny)
        cross_entropy_C -= (rest_C1 * p_rest_C1.log()).squeeze(1)
        factor_C1 = factor_C1 + scale * rest_C1
    divergence = (cross_entropy_C - targets.entropy_P).sum()
    if not needs_gradient:
        return LossTerms(nll, divergence, None)

    # At T = 1 both terms are multiples of one softmax.
    shared_C1 = factor_C1 if settings.temperature != 1 else factor_C1 + share_C1
    change_CK = -scale * weights_CK
    if targets.rest_P is None:
        p_CV.mul_(shared_C1)
    else:
        p_CV.mul_(shared_C1 - scale * rest_C1 / p_rest_C1)
        change_CK = change_CK + log_p_CK.exp() * shared_C1
    p_CV.scatter_add_(1, targets.ids_PK, change_CK)
    gradient_CV = p_CV if gradient_CV is None else gradient_CV.add_(p_CV)
    if settings.gold_weight > 0:
        gradient_CV.scatter_add_(1, gold_C1, -share_C1)
    return LossTerms(nll, divergence, gradient_CV)
