"""The learning rate as a function of the step alone, so that a resumed run needs no scheduler state."""

import math
from collections.abc import Callable

from lightpaff.recipe_training import Schedule, Training


def _linear(progress: float, _decay: float) -> float:
    return 1 - progress


def _cosine(progress: float, _decay: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _warmup_stable_decay(progress: float, decay: float) -> float:
    """Constant, then straight down in the last `decay` of the steps (MiniCPM; arXiv 2404.06395, section 4)."""
    return min(1.0, (1 - progress) / decay) if decay else 1.0


_SHAPES: dict[Schedule, Callable[[float, float], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "wsd": _warmup_stable_decay,
}


def learning_rate(settings: Training, step: int, total_steps: int) -> float:
    """The learning rate of optimiser step `step` (from 0) of `total_steps`.

    It rises in a straight line over the first `warmup` share of the steps, then follows the schedule towards 0.
    """
    warmup_steps = round(settings.warmup * total_steps)
    if step < warmup_steps:
        return settings.learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    decay = min(1.0, settings.decay * total_steps / max(1, total_steps - warmup_steps))
    return settings.learning_rate * _SHAPES[settings.schedule](progress, decay)
