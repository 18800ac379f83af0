"""The three models that a run compares, as a table."""

from dataclasses import dataclass
from typing import Literal

ArmName = Literal["teacher", "student", "control"]


@dataclass(frozen=True)
class Arm:
    """One of the compared models.

    Attributes:
        name: as in the report.
        is_small: has the student's shape.
        is_distilled: listens to the teacher; the control is the student that does not (λ = 0 in both stages).
    """

    name: ArmName
    is_small: bool
    is_distilled: bool


TEACHER = Arm("teacher", is_small=False, is_distilled=False)
STUDENT = Arm("student", is_small=True, is_distilled=True)
CONTROL = Arm("control", is_small=True, is_distilled=False)
