"""What a study's directory is, in its file study.json: the study with its defaults, its recipes, and the steps of each
arm. Written once; a study that goes on has what it began with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightpaff.errors import UserError
from lightpaff.files import alone_with, write_json_whole
from lightpaff.study.budgets import Budgets, find_budgets
from lightpaff.study.definition import Study, arm_recipe

STUDY = "study.json"
_LOCK = ".lock"


def claim(study: Study, directory: Path) -> Budgets:
    """Make the directory this study's, and find its budgets.

    Raises:
        UserError: it is another one's.
    """
    with alone_with(directory / _LOCK):
        if known := _read(directory):
            budgets: Budgets = known.pop("steps")
            if known != _identity(study):
                raise UserError(
                    f"{directory}: holds another study of that name, or one of a recipe that was changed since; give "
                    "another --output, or delete it"
                )
            return budgets
        return _write(study, directory)


def begun_or(directory: Path, choose: Callable[[], Study]) -> Study:
    """The study that was begun in a directory; where there is none, the chosen one, begun.

    Raises:
        UserError: the directory holds something else.
    """
    with alone_with(directory / _LOCK):
        if known := _read(directory):
            return Study.model_validate(known["study"])
        study = choose()
        _write(study, directory)
        return study


def _identity(study: Study) -> dict[str, Any]:
    """A recipe that was edited makes another study."""
    recipes = {arm: arm_recipe(study, arm, study.seeds[0]).fingerprint() for arm in study.arms}
    return {"study": study.model_dump(mode="json"), "recipes": recipes}


def _write(study: Study, directory: Path) -> Budgets:
    if any(not entry.name.startswith(".") for entry in directory.iterdir()):
        raise UserError(f"{directory}: is not empty and holds no {STUDY}; give another --output, or delete it")
    budgets = find_budgets(study, directory)
    write_json_whole(directory / STUDY, {**_identity(study), "steps": budgets})
    return budgets


def _read(directory: Path) -> dict[str, Any]:
    """Empty where there is none.

    Raises:
        UserError: it cannot be read.
    """
    path = directory / STUDY
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text())
        Study.model_validate(content["study"])
        return {key: content[key] for key in ("study", "recipes", "steps")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read; give another --output, or delete it") from error
