"""The teacher's term of the loss: how far the student's distribution is from the teacher's. One function and one row of
`DIVERGENCES` each; the plain counterparts that they are tested against are in `reference_loss.py`.

Shapes: C positions of one chunk, V classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightpaff.recipe_sections import Divergence

Term = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]
"""From log P (the student's) and log Q (the teacher's), both C x V and free to be overwritten, to the sum over the
positions in nats, and its gradient at the student's logits (C x V; None where it is not asked for)."""


def forward_kl(log_p_CV: Tensor, log_q_CV: Tensor, needs_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """KL(teacher || student), LightPAFF's: the student gives no class less than the teacher does unpunished."""
    q_CV = log_q_CV.exp()
    # A class that the teacher rules out adds 0 · log 0 = 0, not NaN.
    log_q_CV.clamp_(min=torch.finfo(log_q_CV.dtype).min)
    total = log_q_CV.sub_(log_p_CV).mul_(q_CV).sum()
    return total, log_p_CV.exp_().sub_(q_CV) if needs_gradient else None


def reverse_kl(log_p_CV: Tensor, log_q_CV: Tensor, needs_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """KL(student || teacher), MiniLLM's (Gu et al. 2024, section 2): the student gives no class more than the teacher
    does unpunished. Infinite where the teacher rules a class out."""
    p_CV = log_p_CV.exp()
    return _toward(p_CV, log_p_CV.sub_(log_q_CV), needs_gradient)


def jensen_shannon(log_p_CV: Tensor, log_q_CV: Tensor, needs_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The mean of both KL divergences to the mean of both distributions (Lin 1991): between the two others, and at most
    log 2."""
    p_CV, q_CV = log_p_CV.exp(), log_q_CV.exp()
    log_m_CV = torch.logaddexp(log_p_CV, log_q_CV).sub_(math.log(2))
    of_teacher = torch.where(q_CV > 0, log_q_CV - log_m_CV, 0).mul_(q_CV).sum()
    of_student, gradient_CV = _toward(p_CV, log_p_CV.sub_(log_m_CV), needs_gradient)
    return (of_teacher + of_student) / 2, None if gradient_CV is None else gradient_CV.div_(2)


def _toward(p_CV: Tensor, log_ratio_CV: Tensor, needs_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """The sum of Σ p · log_ratio, and p · (log_ratio - Σ p · log_ratio): its gradient at the logits of p, whether what
    p is compared with is fixed or is the mean with p itself."""
    own_C1 = (p_CV * log_ratio_CV).sum(1, keepdim=True)
    return own_C1.sum(), log_ratio_CV.sub_(own_C1).mul_(p_CV) if needs_gradient else None


DIVERGENCES: dict[Divergence, Term] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jensen_shannon": jensen_shannon,
}
