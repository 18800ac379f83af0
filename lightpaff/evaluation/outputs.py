"""What one model says about every row of a split, whatever the task: it can be scored, on any part of the rows."""

from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lightpaff.evaluation.comparison import Comparison
from lightpaff.recipe_sections import Metric

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Outputs(Protocol):
    """A model's outputs for the rows of a split, beside the gold ones."""

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def score(self, metric: Metric) -> float:
        """The value of a metric over all rows: a fraction (BLEU too), a correlation, or a perplexity."""
        ...

    def weighted_score(self, metric: Metric, weights_N: Floats) -> float:
        """The same where each row comes as often as its weight says, a whole number: a resample of the rows."""
        ...

    def compare(self, other: Self) -> Comparison:
        """How far another model's outputs for the same rows are from these."""
        ...

    @property
    def is_finite_N(self) -> NDArray[np.bool_]:
        """Which rows the model has an answer for: NaN and infinity are none."""
        ...

    @property
    def is_constant(self) -> bool:
        """The model gave several rows one answer, all of them the same."""
        ...

    @property
    def units_N(self) -> Integers:
        """The unit of each row, counted from 0: rows of one unit are not independent, and are resampled together."""
        ...


class ChoosingOutputs(Outputs, Protocol):
    """Outputs that choose a checkpoint; of equal scores the lower loss decides."""

    @property
    def loss(self) -> float:
        """The mean of -log P(gold class) in nats, or a mean squared error."""
        ...
