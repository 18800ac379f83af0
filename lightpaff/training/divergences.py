"""The teacher's term of the loss: how far the student's distribution is from the teacher's. One function and one row of
`DIVERGENCES` each; the plain counterparts that they are tested against are in `reference_loss.py`.

Shapes: C positions of one chunk, V classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightpaff.recipe_training import Divergence

Term = Callable[[Tensor, Tensor, float | None, Tensor | float], tuple[Tensor, Tensor | None]]
"""From log P (the student's) and log Q (the teacher's), both C x V and free to be overwritten, to the sum over the
positions in nats; and, where a scale is given, that times its gradient at the student's logits, C x V, to which the
last argument times P is added (a number, or C x 1): what the gold term has there, but for the gold class."""


def forward_kl(
    log_p_CV: Tensor, log_q_CV: Tensor, scale: float | None, share: Tensor | float
) -> tuple[Tensor, Tensor | None]:
    """KL(teacher || student), LightPAFF's: the student gives no class less than the teacher does unpunished."""
    q_CV = log_q_CV.exp()
    # A class that the teacher rules out adds 0 · log 0 = 0, not NaN.
    log_q_CV.clamp_(min=torch.finfo(log_q_CV.dtype).min)
    total = log_q_CV.sub_(log_p_CV).mul_(q_CV).sum()
    if scale is None:
        return total, None
    return total, log_p_CV.exp_().mul_(share + scale).sub_(q_CV, alpha=scale)


def reverse_kl(
    log_p_CV: Tensor, log_q_CV: Tensor, scale: float | None, share: Tensor | float
) -> tuple[Tensor, Tensor | None]:
    """KL(student || teacher), MiniLLM's (Gu et al. 2024, section 2): the student gives no class more than the teacher
    does unpunished. Infinite where the teacher rules a class out."""
    p_CV = log_p_CV.exp()
    return _toward(p_CV, log_p_CV.sub_(log_q_CV), scale, share)


def jensen_shannon(
    log_p_CV: Tensor, log_q_CV: Tensor, scale: float | None, share: Tensor | float
) -> tuple[Tensor, Tensor | None]:
    """The mean of both KL divergences to the mean of both distributions (Lin 1991): between the two others, and at most
    log 2."""
    p_CV, q_CV = log_p_CV.exp(), log_q_CV.exp()
    log_m_CV = torch.logaddexp(log_p_CV, log_q_CV).sub_(math.log(2))
    of_teacher = torch.where(q_CV > 0, log_q_CV - log_m_CV, 0).mul_(q_CV).sum()
    of_student, gradient_CV = _toward(p_CV, log_p_CV.sub_(log_m_CV), scale and scale / 2, share)
    return (of_teacher + of_student) / 2, gradient_CV


def _toward(
    p_CV: Tensor, log_ratio_CV: Tensor, scale: float | None, share: Tensor | float
) -> tuple[Tensor, Tensor | None]:
    """The sum of Σ p · log_ratio, and p · (log_ratio - Σ p · log_ratio): its gradient at the logits of p, whether what
    p is compared with is fixed or is the mean with p itself."""
    own_C1 = (p_CV * log_ratio_CV).sum(1, keepdim=True)
    if scale is None:
        return own_C1.sum(), None
    return own_C1.sum(), log_ratio_CV.sub_(own_C1).mul_(scale).add_(share).mul_(p_CV)


DIVERGENCES: dict[Divergence, Term] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}
