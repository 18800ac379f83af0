"""How many steps a training takes, and which of its examples it sees."""

import math
from typing import Literal

import numpy as np

from lightpaff.data.batch_order import BatchOrder
from lightpaff.objectives.objective import Objective
from lightpaff.recipe_training import Training
from lightpaff.training.loop import count_steps

Budget = Literal["every row", "labelled rows"]
"""What the steps of a fine-tuning are counted over. A student who hears the teacher learns from every row, and its
control, which has no use for rows without a label, takes as many steps."""


def with_steps_over(budget: Budget, training: Training, data: Objective) -> Training:
    """The same training with its budget in steps, counted over the rows that the budget speaks about."""
    ids = np.arange(len(data.lengths_N)) if budget == "every row" else data.gold_ids
    _, steps = _lay_out(training, data, ids)
    return training.model_copy(update={"steps": steps, "tokens": None, "epochs": None})


def epochs_of(training: Training, data: Objective, example_ids: np.ndarray) -> float:
    """How often a training goes through its examples."""
    order, steps = _lay_out(training, data, example_ids)
    return steps / order.steps_per_epoch


def seen_ids(
    data: Objective, example_ids: np.ndarray, training: Training, seeds: list[int], draws: int | None
) -> list[np.ndarray]:
    """Of every masking, the examples that are in some batch of some seed, ascending."""
    count = draws or 1
    seen = np.zeros((count, len(data.lengths_N)), dtype=bool)
    for seed in seeds:
        order, steps = _lay_out(training, data, example_ids, seed)
        for epoch in range(math.ceil(steps / order.steps_per_epoch)):
            first, behind = epoch * order.steps_per_epoch, min((epoch + 1) * order.steps_per_epoch, steps)
            if behind - first == order.steps_per_epoch:
                seen[epoch % count, example_ids] = True
                continue
            for step in range(first, behind):
                seen[epoch % count, np.concatenate(order.micro_batches(step)[1])] = True
    return [np.flatnonzero(own) for own in seen]


def _lay_out(training: Training, data: Objective, example_ids: np.ndarray, seed: int = 0) -> tuple[BatchOrder, int]:
    """The order of its batches, and how many of them the budget pays for."""
    order = BatchOrder(data.lengths_N, example_ids, training.batch_size, training.micro_batch_tokens, seed)
    return order, count_steps(training, data.lengths_N[example_ids], order.steps_per_epoch)
