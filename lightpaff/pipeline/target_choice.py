"""Whether a student's teacher is asked at every batch, or once for all: which of them asks less."""

import math
from dataclasses import dataclass
from typing import Literal

from lightpaff.recipe_training import Distillation
from lightpaff.targets.encodings import Encoding

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
