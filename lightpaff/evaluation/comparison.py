"""How far two models' outputs for the same rows are from each other."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Comparison:
    """A model's outputs beside another's.

    Attributes:
        agreement: the share of rows with the same class or the same text; None where the outputs are numbers alone.
        difference: the largest, of a logit or of a window's log likelihood a token in nats; None for texts.
        largest: how large a logit or a score gets; of log likelihoods a token, and of texts, 1.
        shift: of scores, the root mean square of their differences over their own standard deviation: correlations see
            neither another scale nor another zero.
    """

    agreement: float | None
    difference: float | None
    largest: float = 1.0
    shift: float | None = None
