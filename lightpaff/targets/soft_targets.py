"""What a teacher says at the target positions of a batch.

Shapes: P target positions, V classes, K stored classes, D hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lightpaff.models.projection import factors, project


@dataclass(frozen=True)
class Dense:
    """The teacher's logits, all classes: `logits_PV`; for regression its score in the one column."""

    logits_PV: Tensor

    def chunk(self, start: int, stop: int) -> "Dense":
        """The targets of positions start..stop-1."""
        return Dense(self.logits_PV[start:stop])

    def map(self, change: Callable[[Tensor], Tensor]) -> "Dense":
        """The same with the tensor changed."""
        return Dense(change(self.logits_PV))


@dataclass(frozen=True)
class Projected:
    """A live teacher's logits, not yet computed: features_PD @ weight_VD.T + bias_V, so that never more than one
    chunk of positions x V is in memory. Without a weight, the features are the logits."""

    features_PD: Tensor
    weight_VD: Tensor | None
    bias_V: Tensor | None

    def as_factors(self) -> "Projected":
        """The same in the types that are multiplied, cast once for all chunks."""
        return Projected(*factors(self.features_PD, self.weight_VD, self.bias_V))

    def chunk(self, start: int, stop: int) -> Dense:
        """The logits of positions start..stop-1."""
        return Dense(project(self.features_PD[start:stop], self.weight_VD, self.bias_V))


@dataclass(frozen=True)
class Sparse:
    """A part of the teacher's distribution: some classes a position, each with its weight.

    Attributes:
        ids_PK: int64 classes.
        weights_PK: what each counts. Drawn from the teacher's distribution: 1/K, or an importance weight, so that the
            expectation of the weights of a class is its probability; a class drawn twice stands there twice. Of the
            most probable classes: their probabilities.
        rest_P: the probability of all other classes, which then are one more class; None where nothing is left out.
        entropy_P: of the teacher's distribution over these classes, in nats.
        temperature: at which the teacher's distribution was taken.
    """

    ids_PK: Tensor
    weights_PK: Tensor
    rest_P: Tensor | None
    entropy_P: Tensor
    temperature: float = 1.0

    def chunk(self, start: int, stop: int) -> "Sparse":
        """The targets of positions start..stop-1."""
        rest_P = None if self.rest_P is None else self.rest_P[start:stop]
        part = slice(start, stop)
        return Sparse(self.ids_PK[part], self.weights_PK[part], rest_P, self.entropy_P[part], self.temperature)

    def map(self, change: Callable[[Tensor], Tensor]) -> "Sparse":
        """The same with every tensor changed."""
        rest_P = None if self.rest_P is None else change(self.rest_P)
        return Sparse(change(self.ids_PK), change(self.weights_PK), rest_P, change(self.entropy_P), self.temperature)


Stored = Dense | Sparse
SoftTargets = Projected | Stored
