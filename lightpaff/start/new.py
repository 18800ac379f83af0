"""`lightpaff new`: look at the data and the teacher, decide, say why, and write the recipe."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe
from lightpaff.start.columns import Table, look_at, names_of_columns
from lightpaff.start.guessing import Guess, guess
from lightpaff.start.labels import choose_labels, find_classes
from lightpaff.start.parts import Files, divide
from lightpaff.start.teacher import classes_of, fetch_teacher, look_at_teacher
from lightpaff.start.writing import UNLABELLED, NewRecipe, make_recipe, require_free, write_recipe

_ANY_LATENCY = "1000s"


@dataclass(frozen=True)
class StudentBudget:
    """What the student may take, as `lightpaff shapes` has it; without either, it has half of the teacher's layers.

    Attributes:
        max_latency: of one input of the recipe's length: `10ms`.
        size: on disk: `5x` smaller than the teacher in float32, or `30MB`.
    """

    max_latency: str | None = None
    size: str | None = None


_ANY_STUDENT = StudentBudget()


def new_recipe(
    files: Files,
    teacher: str | None,
    output: Path,
    columns: dict[str, str] | None = None,
    budget: StudentBudget = _ANY_STUDENT,
) -> tuple[Recipe, NewRecipe]:
    """Look at a file, and write a recipe for it that runs as it is.

    Args:
        files: what the user has.
        teacher: a directory, a Hub id, or anything that `teacher.source` takes; None: a usual one.
        output: the recipe's file, where nothing is yet.
        columns: those that the user names; see `guess`.
        budget: of the student, whose shape is then looked for, by measuring some on this machine.

    Raises:
        UserError: the file cannot be read, nothing fits, or the teacher does not.
    """
    teacher = teacher and os.path.expanduser(teacher)
    tables = {part: look_at(path) for part, path in files.parts.items()}
    fetched = fetch_teacher(teacher)
    name, found = _name_of(files.train), guess(tables["train"], columns, classes_of(fetched))
    _check_columns(files, tables, found, columns or {})
    found = replace(found, labels=find_classes(name, files.train, found))
    known = look_at_teacher(teacher, found, fetched)
    parts = divide(files, tables, found)
    if found.group is not None and parts.group is None and columns and "group" in columns:
        raise UserError(
            f"{files.train}: --column group={found.group}: its rows cannot be kept together in parts (too few or too "
            "uneven ones, or the parts are given); leave it out"
        )
    asked = " ".join(filter(None, (budget.max_latency, budget.size)))
    labels, told = choose_labels(files, found, parts, known.names)
    languages = found.languages if known.knows_languages else None
    found = replace(found, labels=labels, languages=languages, why=[*found.why, *told])
    made = make_recipe(name, files, tables["train"], found, parts, known, asked)
    if budget == _ANY_STUDENT:
        return write_recipe(made, output), made
    require_free(output)
    draft = output.with_name(f".{output.stem}.draft.yaml")
    draft.unlink(missing_ok=True)
    try:
        # Whoever stops the search leaves no recipe behind.
        told = _fit_student(draft, write_recipe(made, draft), budget, output)
        draft.rename(output)
    finally:
        draft.unlink(missing_ok=True)
    return Recipe.load(output), replace(made, decisions=[*made.decisions, *told])


def _fit_student(path: Path, recipe: Recipe, budget: StudentBudget, output: Path) -> list[str]:
    from lightpaff.pipeline.shapes_run import ShapesRequest, find_shapes

    request = ShapesRequest(
        str(path),
        budget.max_latency or _ANY_LATENCY,
        budget.size or "1x",
        length=recipe.tasks[0].max_length,
        write=path,
        output=output.with_name(f"{output.stem}-shapes"),
    )
    return [line.removeprefix(f"{path}: ") for line in find_shapes(request).written]


def _check_columns(files: Files, tables: dict[str, Table], guess: Guess, given: dict[str, str]) -> None:
    """The other files need the columns that are used, and texts without labels only those of the texts."""
    if files.unlabelled and guess.objective not in UNLABELLED:
        raise UserError(f"{files.unlabelled[0]}: the objective {guess.objective} takes no rows without labels")
    used = {role: name for role, name in guess.columns.items() if role != "references"}
    texts = [name for role, name in used.items() if role in ("text", "text_pair", "source")]
    labelled = [*used.values(), *(name for role, name in given.items() if role == "group")]
    for part in [part for part in files.parts if part != "train"]:
        _require(files.parts[part], labelled, [column.name for column in tables[part].columns], files.train)
    for path in files.unlabelled:
        _require(path, texts, names_of_columns(path), files.train)


def _require(path: Path, names: list[str], own: list[str], like: Path) -> None:
    if missing := [name for name in names if name not in own]:
        raise UserError(f"{path}: has no column '{missing[0]}', which {like.name} has; it has {', '.join(own)}")


def _name_of(path: Path) -> str:
    stem = path.name.split(".")[0]
    stem = path.absolute().parent.name if stem in ("train", "data", "training") else stem
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in stem)
    return kept.strip("-_") or "task"
