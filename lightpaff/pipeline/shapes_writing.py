"""A shape put into the student of a recipe's file: its sizes only, and every other letter stays as it is."""

from pathlib import Path

import yaml
from transformers import PreTrainedConfig

from lightpaff.errors import UserError
from lightpaff.files import whole_file
from lightpaff.models.families import check_family
from lightpaff.models.narrowing import check_narrowing
from lightpaff.models.shapes import student_config
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import Shape

_FIELDS = ("layers", "decoder_layers", "hidden_size", "heads", "feed_forward")
_START = "initialisation"


def check_recipe(path: Path, teacher_config: PreTrainedConfig) -> Recipe:
    """The recipe that is to get a student.

    Raises:
        UserError: it cannot be read, is for another family, or its student is a ready-made model or names layers.
    """
    recipe = Recipe.load(path)
    check_family(teacher_config, recipe.family, str(path))
    if recipe.student.initialisation not in ("random", "teacher"):
        raise UserError(
            f"{path}: student.{_START} is {recipe.student.initialisation}, a ready-made model with sizes of its own; "
            f"leave --write out, or set student.{_START} to random"
        )
    if named := list(recipe.student.named_layers):
        raise UserError(
            f"{path}: student.teacher_{named[0]} names layers, and another shape may have another number of them; "
            "leave it out"
        )
    try:
        edit_student(path.read_bytes().decode(), {"layers": recipe.student.layers})
    except (KeyError, StopIteration, AssertionError) as error:
        raise UserError(f"{path}: its student is written with an alias or a merge; write it out") from error
    return recipe


def write_shape(path: Path, shape: Shape, teacher_config: PreTrainedConfig) -> list[str]:
    """Put the sizes into the recipe's file. A student that cannot be cut out of its teacher starts at random.

    Args:
        path: of a recipe that `check_recipe` accepted.
        shape: of the student.
        teacher_config: the teacher's.

    Returns:
        Sentences that say what was changed.

    Raises:
        UserError: the recipe is written in a way that keeps its student from being edited.
    """
    wanted: dict[str, int | str] = {field: size for field in _FIELDS if (size := getattr(shape, field)) is not None}
    told = [f"{path}: student is now {', '.join(f'{key} {value}' for key, value in wanted.items())}"]
    recipe = Recipe.load(path)
    if recipe.student.initialisation == "teacher":
        try:
            check_narrowing(student_config(teacher_config, shape), teacher_config)
        except UserError as error:
            wanted[_START] = "random"
            told.append(f"{path}: student.{_START} is now random ({error})")
    expected = recipe.model_dump()
    expected["student"] |= wanted
    text = edit_student(path.read_bytes().decode(), wanted)
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode())
        # Nothing but the student may have changed, however the file is written.
        if Recipe.load(temporary).model_dump() != expected:
            by_hand = ", ".join(f"{key}: {value}" for key, value in wanted.items())
            raise UserError(f"{path}: its student cannot be edited (an alias?); set by hand {by_hand}")
    return told


def edit_student(text: str, wanted: dict[str, int | str]) -> str:
    """The text of a recipe with other values for some keys of its student, comments and order kept.

    Args:
        text: YAML with the mapping `student`, which has the key `layers`.
        wanted: new ones go behind `layers`.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    student = next(value for key, value in root.value if key.value == "student")
    assert isinstance(student, yaml.MappingNode)
    places = {key.value: (key, value) for key, value in student.value}
    edits = {_span(places[key][1]): _written(places[key][1], value) for key, value in wanted.items() if key in places}
    new = {key: value for key, value in wanted.items() if key not in places}
    first, number = places["layers"]
    if student.flow_style:
        end = number.end_mark.index
        edits[end, end] = "".join(f", {key}: {value}" for key, value in new.items())
    else:
        line = _end_of_line(text, number.end_mark.index)
        separator = ("\r\n" if "\r\n" in text else "\n") + " " * first.start_mark.column
        edits[line, line] = "".join(f"{separator}{key}: {value}" for key, value in new.items())
    for (start, end), replacement in sorted(edits.items(), reverse=True):
        text = text[:start] + replacement + text[end:]
    return text


def _written(node: yaml.Node, value: int | str) -> str:
    is_empty = node.start_mark.index == node.end_mark.index
    return f" {value}" if is_empty else str(value)


def _span(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.index, node.end_mark.index


def _end_of_line(text: str, start: int) -> int:
    """Where the line ends, its comment included."""
    end = text.find("\n", start)
    end = len(text) if end < 0 else end
    return end - 1 if text[end - 1 : end] == "\r" else end
