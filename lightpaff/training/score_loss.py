"""The loss for regression: one score an example, from the student, the gold label and the teacher.

Shapes: P target positions, D hidden.
"""

import torch
from torch import Tensor
from torch.nn import functional

from lightpaff.models.projection import exact_dtype
from lightpaff.targets.soft_targets import SoftTargets, Sparse
from lightpaff.training.loss import LossSums, require_teacher


def score_loss(
    features_PD: Tensor,
    weight_1D: Tensor,
    bias_1: Tensor | None,
    labels_P: Tensor,
    soft_targets: SoftTargets | None,
    weight: float,
    gold_scale: float = 1.0,
) -> LossSums:
    """Squared errors in place of the likelihoods: (1 - λ) · (student - gold)² + λ · (student - teacher)².

    The result's `nll` holds the sum of squared errors to the gold scores, its `divergence` that to the
    teacher's scores, both in squared units of the score. With a Gaussian of variance 1/2 around each score they are
    the negative log likelihood and the KL divergence, up to a constant.

    Args:
        features_PD: what the student's output layer takes.
        weight_1D: the output layer's weight, one row.
        bias_1: its bias, or None.
        labels_P: gold scores, NaN where there is none.
        soft_targets: the teacher's scores in one column; no gradient goes there.
        weight: λ.
        gold_scale: what the gold term is multiplied by: targets for one gold label, where not every one has a label.

    Raises:
        ValueError: `weight` is not 0 though there are no soft targets.
    """
    require_teacher(soft_targets, weight)
    with torch.autocast(features_PD.device.type, enabled=False):
        scores_P = functional.linear(features_PD.to(exact_dtype(features_PD)), weight_1D, bias_1).squeeze(1)
    has_gold_P = ~labels_P.isnan()
    # NaN is replaced before the subtraction: after it, the backward pass would still meet it.
    gold_P = labels_P.where(has_gold_P, 0)
    gold_error = (scores_P - gold_P).square().where(has_gold_P, 0).sum()
    gold_count = has_gold_P.sum()
    if soft_targets is None:
        return LossSums(
            gold_scale * gold_error, gold_error.detach(), torch.zeros_like(gold_error), gold_count, gold_count
        )

    with torch.no_grad():
        told = soft_targets.chunk(0, len(labels_P))
        assert not isinstance(told, Sparse), "a score is no distribution"
        teacher_scores_P = told.logits_PV.to(exact_dtype(told.logits_PV)).squeeze(1)
    teacher_error = (scores_P - teacher_scores_P).square().sum()
    total = (1 - weight) * gold_scale * gold_error + weight * teacher_error
    count = torch.full_like(gold_count, len(labels_P))
    return LossSums(total, gold_error.detach(), teacher_error.detach(), count, gold_count)
