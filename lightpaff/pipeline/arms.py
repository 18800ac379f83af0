"""The models that a run compares: the teacher, and students that differ in some keys of the recipe."""

from dataclasses import dataclass, field
from typing import Any

from lightpaff.recipe import Recipe

TEACHER, STUDENT, CONTROL = "teacher", "student", "control"
_FINE_TUNING_WEIGHT = "fine_tuning.distillation.weight"
_SILENCE = {"pretraining.distillation.weight": 0.0, _FINE_TUNING_WEIGHT: 0.0}
"""What makes the control: the student that does not listen (λ = 0 in both stages)."""


@dataclass(frozen=True)
class Arm:
    """One of the compared models.

    Attributes:
        name: as in the report.
        is_small: has the student's shape.
        recipe: with the keys that this arm overrides.
        overrides: these keys.
    """

    name: str
    is_small: bool
    recipe: Recipe
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def is_silenced(self) -> bool:
        """In fine-tuning it hears nothing of the teacher, its texts included."""
        return self.overrides.get(_FINE_TUNING_WEIGHT) == 0


def spoken(name: str) -> str:
    """An arm in a sentence: those that the recipe names in quotes."""
    return f"the {name}" if name in (TEACHER, STUDENT, CONTROL) else f"'{name}'"


def arms_of(recipe: Recipe) -> list[Arm]:
    """The teacher, the student, and what else the recipe compares with them."""
    named = {STUDENT: {}, **({CONTROL: _control_of(recipe)} if recipe.control else {}), **recipe.arms}
    small = [Arm(name, True, recipe.overridden(overrides), overrides) for name, overrides in named.items()]
    return [Arm(TEACHER, False, recipe), *small]


def _control_of(recipe: Recipe) -> dict[str, Any]:
    has_stage = {"pretraining": recipe.pretraining is not None, "fine_tuning": True}
    return {key: value for key, value in _SILENCE.items() if has_stage[key.split(".")[0]]}
