"""Will it pay for me? A study of a user's own recipe, cut down to about an hour of this machine."""

import math
from pathlib import Path
from typing import Any

from lightpaff.errors import UserError
from lightpaff.pipeline.delivery import plan_exports
from lightpaff.pipeline.plan import make_plan
from lightpaff.progress import console
from lightpaff.recipe import Recipe
from lightpaff.recipe_file import check_content
from lightpaff.study.cells import lay_out
from lightpaff.study.definition import Study, is_study, read_overrides
from lightpaff.study.record import begun_or

_SECONDS = 3000.0
"""Of training; predictions and the rest have what is left of the hour."""
_SILENT = {"pretraining.distillation.weight": 0.0, "fine_tuning.distillation.weight": 0.0}
_TRAININGS = ("teacher.pretraining", "pretraining.training", "fine_tuning.teacher_training", "fine_tuning.training")
_BUDGETS = ("steps", "tokens", "epochs")


def quick_study(recipe: Path, overrides: list[str], output: Path | None, task: str | None = None) -> tuple[Study, Path]:
    """Both stages, fine-tuning only, and neither, with three seeds; all budgets are cut by one factor so that training
    takes less than an hour. A study that is there goes on as it began.

    Args:
        recipe: its path.
        overrides: of its keys, as --set has them.
        output: the study's directory; left out, under `runs/studies`.
        task: the one that the study is about, of several.

    Returns:
        The study, and its directory.

    Raises:
        UserError: for bad input; the directory is of something else.
    """
    if is_study(recipe):
        raise UserError(f"{recipe}: is a study, not a recipe; leave --preset out, or give a recipe")
    given = read_overrides(overrides)
    content = Recipe.load(recipe, overrides).model_dump()
    directory = output or Path("runs") / "studies" / "-".join(filter(None, (content["name"], "quick", task)))
    # What was asked for: the study's own set has the cut budgets besides.
    asked = {"recipe": str(recipe.resolve()), "task": task, "--set": given}
    return begun_or(directory, asked, lambda: _choose(recipe, content, task, given, directory)), directory


def _choose(recipe: Path, content: dict[str, Any], task: str | None, given: dict[str, Any], directory: Path) -> Study:
    whole = _study(recipe, content, task, given)
    seconds = _seconds(whole, directory)
    factor = min(1.0, _SECONDS / max(seconds, 1.0))
    console.print(
        f"The whole study takes about {seconds / 60:.0f} min here; quick: {100 * factor:.0f} % of each budget"
    )
    return _study(recipe, content, task, {**given, **_cut(content, factor)}) if factor < 1 else whole


def _study(recipe: Path, content: dict[str, Any], task: str | None, changed: dict[str, Any]) -> Study:
    arms: dict[str, dict[str, Any]] = {
        "both stages": {},
        "fine-tuning only": {"pretraining.distillation.weight": 0.0},
        "no distillation": _SILENT,
    }
    if content["pretraining"] is None:
        arms = {"distilled": {}, "no distillation": {"fine_tuning.distillation.weight": 0.0}}
    study = {
        "name": f"{content['name']}-quick",
        "title": f"Will distillation pay for {content['name']}?",
        "recipe": str(recipe.resolve()),
        "task": task,
        "set": changed,
        "arms": arms,
        "baseline": "no distillation",
    }
    return check_content(Study, study, recipe)


def _seconds(study: Study, directory: Path) -> float:
    """Of all trainings: the teacher's once, the students' with every seed."""
    found: dict[str, float] = {}
    for arm in study.arms:
        cell = lay_out(study, arm, study.seeds[0], directory, None)
        for item in make_plan(cell.context, cell.graph, plan_exports(cell.context)).trainings:
            seeds = len(study.seeds) if item.training.arm.is_small else 1
            found[item.training.step.fingerprint] = item.seconds * seeds
    return sum(found.values())


def _cut(content: dict[str, Any], factor: float) -> dict[str, Any]:
    """Every budget of the recipe times the factor."""
    changed: dict[str, Any] = {}
    for key in _TRAININGS:
        place: Any = content
        for part in key.split("."):
            place = place[part] if place is not None else None
        for budget in _BUDGETS:
            if place is not None and place[budget] is not None:
                value = place[budget] * factor
                changed[f"{key}.{budget}"] = value if budget == "epochs" else max(1, math.ceil(value))
    return changed
