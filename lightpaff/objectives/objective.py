"""What every objective offers: text becomes a model input, target positions and gold classes.

Once a batch has those, everything after it is the same for all objectives (see docs/architecture.md).
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lightpaff.objectives.batch import Batch


@dataclass(frozen=True)
class AnswerWords:
    """How the report speaks of what a model answers.

    Attributes:
        one: what a row is given, as in: every row the same class.
        several: what two models have in common, as in: same answers.
        difference: what the largest difference between two models is of; empty where there are no numbers.
    """

    one: str
    several: str
    difference: str = ""


class Objective(Protocol):
    """An objective over one data set. Its batches are a function of the arguments alone."""

    head: str
    """Which head of the model predicts; see `models/architecture.py`."""
    number_of_classes: int
    """V: what the head chooses from; 1 is a score (regression)."""
    lengths_N: np.ndarray
    """Tokens of each example, as the model sees it (of an encoder-decoder both sides together)."""
    targets_N: np.ndarray
    """Target positions of each example."""
    gold_targets_N: np.ndarray
    """How many of these have a gold class."""
    gold_ids: np.ndarray
    """The examples that have a gold class or text: without a teacher the others teach nothing."""

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """The batch of these examples, corrupted by this draw where the objective corrupts."""
        ...
