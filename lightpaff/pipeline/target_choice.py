"""Whether a student's teacher is asked at every batch, or once for all: which of them asks less."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lightpaff.data.batch_order import BatchOrder
from lightpaff.objectives.objective import Objective
from lightpaff.recipe_training import Distillation, Training
from lightpaff.targets.encodings import Encoding
from lightpaff.training.loop import count_steps

_SAVES = 2.0
"""Drawn soft targets are a little noisier than whole ones: they must save so much of the teacher's work at least."""


@dataclass(frozen=True)
class TargetChoice:
    """Where a student's soft targets come from.

    Attributes:
        kind: live, or how they are stored.
        why: for the plan.
        epochs: how often the teacher is asked about the whole text or all rows, by this student alone.
        draws: how many maskings an example has; None: another one in every epoch.
    """

    kind: Literal["live", "sampled", "top-k", "dense"]
    why: str
    epochs: float
    draws: int | None = None

    def encoding(self, distillation: Distillation, classes: int) -> Encoding:
        """How they are written."""
        assert self.kind != "live"
        if self.kind == "dense":
            return Encoding("dense", classes)
        targets = distillation.targets
        # Of few classes, all.
        stored = targets.draws if self.kind == "sampled" else min(targets.draws, classes)
        return Encoding(self.kind, classes, stored, distillation.temperature, targets.proposal)


def choose_targets(
    distillation: Distillation, own_epochs: float, all_epochs: float, *, draws_anew: bool, variants: int = 1
) -> TargetChoice:
    """What a student hears, and why.

    Args:
        distillation: the student's.
        own_epochs: of the student's training.
        all_epochs: of all trainings that can share what is captured.
        draws_anew: every epoch sees another masking.
        variants: of an example without masking: two where a target may be the teacher's own text.
    """
    targets = distillation.targets
    draws = min(targets.epochs, math.ceil(own_epochs)) if draws_anew else 1
    once = float(min(draws, own_epochs)) * variants
    again = draws if draws_anew else None
    if targets.kind == "live":
        return TargetChoice("live", "the recipe says so", own_epochs)
    if targets.kind != "auto":
        return TargetChoice(targets.kind, "the recipe says so", once, again)
    if distillation.divergence != "forward_kl":
        return TargetChoice("live", f"{distillation.divergence} needs every class", own_epochs)
    sums = f"the teacher is asked for {once:.3g} epochs in place of {all_epochs:.3g}"
    if all_epochs < _SAVES * once:
        return TargetChoice("live", f"captured once, {sums}", own_epochs)
    return TargetChoice("sampled", sums, once, again)


def epochs_of(training: Training, data: Objective, example_ids: np.ndarray) -> float:
    """How often a training goes through its examples."""
    order = BatchOrder(data.lengths_N, example_ids, training.batch_size, training.micro_batch_tokens, seed=0)
    return count_steps(training, data.lengths_N[example_ids], order.steps_per_epoch) / order.steps_per_epoch


def seen_ids(
    data: Objective, example_ids: np.ndarray, training: Training, seeds: list[int], draws: int | None
) -> list[np.ndarray]:
    """Of every masking, the examples that are in some batch of some seed, ascending."""
    count = draws or 1
    seen = np.zeros((count, len(data.lengths_N)), dtype=bool)
    for seed in seeds:
        order = BatchOrder(data.lengths_N, example_ids, training.batch_size, training.micro_batch_tokens, seed)
        steps = count_steps(training, data.lengths_N[example_ids], order.steps_per_epoch)
        for epoch in range(math.ceil(steps / order.steps_per_epoch)):
            first, behind = epoch * order.steps_per_epoch, min((epoch + 1) * order.steps_per_epoch, steps)
            if behind - first == order.steps_per_epoch:
                seen[epoch % count, example_ids] = True
                continue
            for step in range(first, behind):
                seen[epoch % count, np.concatenate(order.micro_batches(step)[1])] = True
    return [np.flatnonzero(own) for own in seen]
