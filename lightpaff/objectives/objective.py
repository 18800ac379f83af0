"""What every objective offers: text becomes a model input, target positions and gold classes.

Once a batch has those, everything after it is the same for all objectives (see docs/architecture.md).
"""

from typing import Protocol

import numpy as np

from lightpaff.objectives.batch import Batch


class Objective(Protocol):
    """An objective over one data set. Its batches are a function of the arguments alone."""

    head: str
    """Which head of the model predicts: `masked_tokens`, `classes`, `next_tokens` or `target_tokens`."""
    number_of_classes: int
    """V: what the head chooses from; 1 is a score (regression)."""
    lengths_N: np.ndarray
    """Tokens of each example, as the model sees it (of an encoder-decoder both sides together)."""
    targets_N: np.ndarray
    """Target positions of each example."""
    gold_ids: np.ndarray
    """The examples that have a gold class or text: without a teacher the others teach nothing."""

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """The batch of these examples, corrupted by this draw where the objective corrupts."""
        ...
