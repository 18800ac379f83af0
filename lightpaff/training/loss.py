"""The distillation loss over the target positions of a batch, without ever holding all their logits.

LightPAFF's loss (arXiv 2004.12817) in sums: (1 - λ) · nll + λ · T² · KL(teacher || student), the factor T² as in
Hinton et al. 2015; in place of that KL may stand another of `divergences.py`. The gradient at the logits is known in
closed form, so one walk over chunks of positions gives the loss and every gradient. `reference_loss.py` says the same
in plain autograd.

Shapes: P target positions, C positions of one chunk, V classes, D hidden.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightpaff.models.projection import exact_dtype, factors, product_dtype, project
from lightpaff.objectives.batch import NO_GOLD_LABEL
from lightpaff.recipe_training import Divergence
from lightpaff.targets.soft_targets import Projected, SoftTargets, Sparse
from lightpaff.training.divergences import DIVERGENCES
from lightpaff.training.loss_terms import LossSettings, loss_terms

_NUMBERS_A_CHUNK = {"cpu": 8 * 2**20, "cuda": 2**27}
"""Logits of a chunk. On 2 idle CPU cores, 2,048 positions of 50,257 classes took as long within 8 % from 2.5 to 20
million, so the memory decides; a GPU wants large products."""
_NUMBERS_IN_CACHE = 2**20
_CLASSES_AT_ONCE = 4096
"""Of the weight's gradient in 16 bits, before it is added up in 32."""


@dataclass(frozen=True)
class LossSums:
    """Sums over target positions, never means: the training loop divides by the global number of targets.

    Attributes:
        total: differentiable scalar, (1 - λ) · nll + λ · T² · divergence; float32 (float64 for float64 features).
        nll: detached scalar, the sum of -log P(gold class) in nats, over the positions with a gold label.
        divergence: detached scalar, the sum of KL(teacher || student), or of what takes its place, at temperature T in
            nats; 0 without soft targets.
        count: int64 scalar, the positions with a gold label or soft targets.
        gold_count: int64 scalar, the positions with a gold label.
    """

    total: Tensor
    nll: Tensor
    divergence: Tensor
    count: Tensor
    gold_count: Tensor


def distillation_loss(
    features_PD: Tensor,
    weight_VD: Tensor | None,
    bias_V: Tensor | None,
    labels_P: Tensor,
    soft_targets: SoftTargets | None,
    weight: float,
    temperature: float = 1.0,
    chunk_size: int | None = None,
    gold_scale: float = 1.0,
    divergence: Divergence = "forward_kl",
) -> LossSums:
    """The loss of the student with the logits features_PD @ weight_VD.T + bias_V, and its gradients.

    Matrix products take the factors that autocast asks for; logits, softmax and KL are in float32, or float64 for
    float64 features. No more than one chunk x V of logits is in memory, and nothing waits for the device.

    Args:
        features_PD: what the student's output layer takes, at the target positions.
        weight_VD: the output layer's weight; a slice or a tied embedding is fine. None: the features are the logits.
        bias_V: its bias, or None.
        labels_P: int64 gold classes, `NO_GOLD_LABEL` where there is none.
        soft_targets: what the teacher says at the same positions; no gradient goes there. None is plain training.
        weight: λ, from 0 (the teacher's term is only measured) to 1 (the gold term is only measured).
        temperature: T, softens teacher and student in the teacher's term.
        chunk_size: positions at a time; the result does not depend on it. None: so many that a chunk's logits take
            some 34 MB, or 512 MB on a GPU.
        gold_scale: what the gold term is multiplied by: targets for one gold label, where not every one has a label.
        divergence: the teacher's term.

    Raises:
        ValueError: `weight` is not 0 though there are no soft targets, or the soft targets are sparse and of another
            temperature, or the divergence is another than forward KL.
    """
    require_teacher(soft_targets, weight)
    if isinstance(soft_targets, Sparse):
        require_forward_kl(soft_targets, temperature, divergence)
    if chunk_size is None:
        classes = features_PD.shape[1] if weight_VD is None else weight_VD.shape[0]
        chunk_size = max(_NUMBERS_A_CHUNK.get(features_PD.device.type, _NUMBERS_A_CHUNK["cpu"]) // classes, 1)
    assert chunk_size > 0, chunk_size
    has_gold_P = labels_P != NO_GOLD_LABEL
    gold_count = has_gold_P.sum()
    count = gold_count if soft_targets is None else torch.full_like(gold_count, len(labels_P))
    if not torch.is_grad_enabled():
        # Function.needs_input_grad does not know of no_grad: parameters would get gradients that nobody reads.
        features_PD, weight_VD, bias_V = features_PD.detach(), _detached(weight_VD), _detached(bias_V)
    settings = LossSettings((1 - weight) * gold_scale, weight, temperature, chunk_size, DIVERGENCES[divergence])
    total, nll, found = _ChunkedLoss.apply(features_PD, weight_VD, bias_V, labels_P, soft_targets, settings)  # type: ignore[no-untyped-call]
    return LossSums(total, nll, found, count, gold_count)


def require_teacher(soft_targets: SoftTargets | None, weight: float) -> None:
    """Refuse a teacher's term without a teacher.

    Raises:
        ValueError: `weight` is not 0 though there are no soft targets.
    """
    if soft_targets is None and weight != 0:
        raise ValueError(f"weight is {weight:g} without soft targets; give a teacher's soft targets or weight 0")


def require_forward_kl(soft_targets: Sparse, temperature: float, divergence: Divergence) -> None:
    """Refuse what a part of a distribution cannot answer without bias.

    Raises:
        ValueError: another divergence, or another temperature than that of the soft targets.
    """
    if divergence != "forward_kl":
        raise ValueError(f"divergence is {divergence}, which needs every class; ask the teacher live, or forward_kl")
    if temperature != soft_targets.temperature:
        raise ValueError(
            f"temperature is {temperature:g}, but the soft targets were taken at {soft_targets.temperature:g}; "
            "capture them anew"
        )


class _ChunkedLoss(torch.autograd.Function):
    """Computes the gradients together with the loss, while a chunk's logits are there."""

    @staticmethod
    def forward(
        ctx: Any,
        features_PD: Tensor,
        weight_VD: Tensor | None,
        bias_V: Tensor | None,
        labels_P: Tensor,
        soft_targets: SoftTargets | None,
        settings: LossSettings,
    ) -> tuple[Tensor, Tensor, Tensor]:
        exact = exact_dtype(features_PD)
        if isinstance(soft_targets, Projected):
            soft_targets = soft_targets.as_factors()
        products = _Products(features_PD, weight_VD, bias_V, ctx.needs_input_grad[:3])
        nll = torch.zeros((), dtype=exact, device=features_PD.device)
        divergence = torch.zeros_like(nll)
        for start, stop in _even_chunks(len(labels_P), settings.chunk_size):
            logits_CV = products.logits(start, stop)
            told = None if soft_targets is None else soft_targets.chunk(start, stop)
            gradient_CV = products.empty_gradient(logits_CV)
            for first, behind in _even_chunks(stop - start, _rows_in_cache(logits_CV)):
                terms = loss_terms(
                    logits_CV[first:behind],
                    labels_P[start + first : start + behind],
                    None if told is None else told.chunk(first, behind),
                    settings,
                    exact,
                    gradient_CV is not None,
                )
                nll += terms.nll
                divergence += terms.divergence
                if gradient_CV is not None and terms.gradient_CV is not None:
                    gradient_CV[first:behind] = terms.gradient_CV
                    products.add_bias_gradient(terms.gradient_CV)
                del terms  # On a GPU its gradient is the whole chunk's.
            del logits_CV, told
            if gradient_CV is not None:
                products.add_gradient(start, stop, gradient_CV)
            del gradient_CV  # Or it would stay while the next chunk's logits are made.
        total = settings.gold_weight * nll + settings.teacher_weight * settings.temperature**2 * divergence
        # Not saved for backward: what autograd holds too would be copied where it becomes .grad.
        ctx.gradients = [products.grad_features_PD, products.grad_weight_VD, products.grad_bias_V]
        ctx.dtypes = tuple(None if given is None else given.dtype for given in (features_PD, weight_VD, bias_V))
        ctx.mark_non_differentiable(nll, divergence)
        return total, nll, divergence

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        assert ctx.gradients, "the loss has handed its gradients over; compute it again"
        gradients, ctx.gradients = zip(ctx.gradients, ctx.dtypes, strict=True), []
        scaled = [None if gradient is None else gradient.mul_(grad_total).to(dtype) for gradient, dtype in gradients]
        return *scaled, None, None, None


class _Products:
    """The matrix products around the logits: forward a chunk at a time, backward summed over the chunks."""

    def __init__(
        self,
        features_PD: Tensor,
        weight_VD: Tensor | None,
        bias_V: Tensor | None,
        needed: tuple[bool, ...],
    ) -> None:
        self.needed = needed
        self.features_PD, self.weight_VD, self.bias_V = factors(features_PD, weight_VD, bias_V)
        dtype = product_dtype(features_PD)
        # What the gradients' products take, rounded once: autocast would do it again in every chunk.
        self.factor_PD = features_PD.to(dtype) if any(needed) else features_PD
        self.factor_VD = weight_VD.to(dtype) if any(needed) and weight_VD is not None else weight_VD
        needs_features, needs_weight, needs_bias = needed
        exact = exact_dtype(features_PD)
        self.grad_features_PD = torch.empty_like(features_PD) if needs_features else None
        self.grad_weight_VD = (
            torch.zeros_like(weight_VD, dtype=exact) if weight_VD is not None and needs_weight else None
        )
        self.grad_bias_V = torch.zeros_like(bias_V, dtype=exact) if bias_V is not None and needs_bias else None

    def logits(self, start: int, stop: int) -> Tensor:
        """The student's logits at positions start..stop-1: C x V."""
        return project(self.features_PD[start:stop], self.weight_VD, self.bias_V)

    def empty_gradient(self, logits_CV: Tensor) -> Tensor | None:
        """Room for the gradient at some logits, in the type that is multiplied, to be filled from the first row on;
        None where nobody needs it."""
        if not any(self.needed):
            return None
        if self.factor_VD is None or self.factor_VD.dtype == logits_CV.dtype:
            return torch.empty_like(logits_CV)
        # In place of the logits themselves: each row is behind its own gradient, which takes half the room.
        return logits_CV.view(self.factor_VD.dtype).flatten()[: logits_CV.numel()].view_as(logits_CV)

    def add_bias_gradient(self, gradient_CV: Tensor) -> None:
        """Carry the gradient at some logits to the bias, before it is rounded."""
        if self.grad_bias_V is not None:
            self.grad_bias_V += gradient_CV.sum(0)

    def add_gradient(self, start: int, stop: int, gradient_CV: Tensor) -> None:
        """Carry the gradient at the logits of positions start..stop-1 to the features and the weight."""
        if self.factor_VD is None:
            if self.grad_features_PD is not None:
                self.grad_features_PD[start:stop] = gradient_CV
            return
        if self.grad_features_PD is not None:
            self.grad_features_PD[start:stop] = gradient_CV @ self.factor_VD
        if self.grad_weight_VD is None:
            return
        if self.grad_weight_VD.dtype == gradient_CV.dtype:
            self.grad_weight_VD.addmm_(gradient_CV.T, self.factor_PD[start:stop])
            return
        for first in range(0, len(self.factor_VD), _CLASSES_AT_ONCE):
            some = slice(first, first + _CLASSES_AT_ONCE)
            self.grad_weight_VD[some] += gradient_CV[:, some].T @ self.factor_PD[start:stop]


def _even_chunks(positions: int, chunk_size: int) -> Iterator[tuple[int, int]]:
    """Starts and stops of as few chunks as possible: every chunk reads and writes a whole V x D gradient."""
    chunks = -(-positions // chunk_size)
    for chunk in range(chunks):
        yield positions * chunk // chunks, positions * (chunk + 1) // chunks


def _rows_in_cache(logits_CV: Tensor) -> int:
    """Positions whose probabilities stay in a CPU's cache while they are worked on; a GPU wants them all at once."""
    if logits_CV.is_cuda:
        return max(len(logits_CV), 1)
    return max(_NUMBERS_IN_CACHE // logits_CV.shape[1], 1)


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
