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
        return known_budgets(study, directory) or _write(study, directory)


def known_budgets(study: Study, directory: Path) -> Budgets | None:
    """Those that this study began with in the directory; None where it has not begun.

    Raises:
        UserError: the directory holds something else.
    """
    known = _read(directory)
    if not known:
        return None
    identity = _identity(study)
    if {key: known[key] for key in identity} != identity:
        raise UserError(
            f"{directory}: holds another study of that name, or one of a recipe that was changed since; give "
            "another --output, or delete it"
        )
    budgets: Budgets = known["steps"]
    return budgets


def begun_or(directory: Path, asked: dict[str, Any], choose: Callable[[], Study]) -> Study:
    """The study that was begun in a directory; where there is none, the chosen one, begun.

    Args:
        directory: the study's.
        asked: what it was chosen by, as JSON has it: it has to be the same when it goes on.
        choose: the study.

    Raises:
        UserError: the directory holds something else, or what was asked for otherwise.
    """
    with alone_with(directory / _LOCK):
        if known := _read(directory):
            if (before := known.get("asked")) is None:
                raise UserError(f"{directory}: holds a study that was begun otherwise; give another --output")
            for key, value in asked.items():
                if before[key] != value:
                    raise UserError(
                        f"{directory}: was begun with the {key} {before[key]}, not {value}; give the same, or another "
                        "--output"
                    )
            return Study.model_validate(known["study"])
        study = choose()
        _write(study, directory, asked=asked)
        return study


def _identity(study: Study) -> dict[str, Any]:
    """A recipe that was edited makes another study."""
    recipes = {arm: arm_recipe(study, arm, study.seeds[0]).fingerprint() for arm in study.arms}
    return {"study": study.model_dump(mode="json"), "recipes": recipes}


def _write(study: Study, directory: Path, **more: Any) -> Budgets:
    budgets = find_budgets(study, directory)
    write_json_whole(directory / STUDY, {**_identity(study), "steps": budgets, **more})
    return budgets


def _read(directory: Path) -> dict[str, Any]:
    """Empty where there is none.

    Raises:
        UserError: it cannot be read; the directory holds something else.
    """
    path = directory / STUDY
    if not path.exists():
        if directory.exists() and any(not entry.name.startswith(".") for entry in directory.iterdir()):
            raise UserError(f"{directory}: is not empty and holds no {STUDY}; give another --output, or delete it")
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        Study.model_validate(content["study"])
        if not content.keys() >= {"recipes", "steps"}:
            raise KeyError(STUDY)
        return content
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read; give another --output, or delete it") from error
