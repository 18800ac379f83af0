"""`lightpaff new`: look at the data and the teacher, decide, say why, and write the recipe."""

from pathlib import Path

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe
from lightpaff.start.columns import look_at
from lightpaff.start.guessing import guess
from lightpaff.start.teacher import look_at_teacher
from lightpaff.start.writing import Files, NewRecipe, make_recipe, write_recipe


def new_recipe(
    files: Files, teacher: str | None, output: Path, columns: dict[str, str] | None = None
) -> tuple[Recipe, NewRecipe]:
    """Look at a file, and write a recipe for it that runs as it is.

    Args:
        files: what the user has.
        teacher: a directory, a Hub id, or anything that `teacher.source` takes; None: a usual one.
        output: the recipe's file, where nothing is yet.
        columns: those that the user names; see `guess`.

    Raises:
        UserError: the file cannot be read, nothing fits, or the teacher does not.
    """
    table = look_at(files.train)
    for other in (files.validation, files.test):
        if other is not None:
            _require_same_columns(other, [column.name for column in table.columns], files.train)
    found = guess(table, columns)
    made = make_recipe(_name_of(files.train), files, table, found, look_at_teacher(teacher, found))
    return write_recipe(made, output), made


def _require_same_columns(path: Path, names: list[str], like: Path) -> None:
    own = [column.name for column in look_at(path).columns]
    if missing := [name for name in names if name not in own and name != "references"]:
        raise UserError(f"{path}: has no column '{missing[0]}', which {like.name} has; it has {', '.join(own)}")


def _name_of(path: Path) -> str:
    stem = path.name.split(".")[0]
    stem = path.resolve().parent.name if stem in ("train", "data", "training") else stem
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in stem)
    return kept.strip("-_") or "task"
