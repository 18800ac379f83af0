"""What a teacher says at the target positions of a batch.

Shapes: P target positions, V classes, K stored classes, D hidden.
"""

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


SoftTargets = Dense | Projected
