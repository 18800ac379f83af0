"""From a YAML file to a recipe: read, overridden, checked, its local paths anchored beside the file."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lightpaff.errors import UserError

Content = TypeVar("Content", bound=BaseModel)

_SOURCES = frozenset(("train", "validation", "test", "unlabelled", "corpus"))
"""Keys of sources, whose short form is a path."""

_TYPES_IN_LOCATIONS = ("str", "int", "float", "list[str]")
"""Where a key may hold several types, pydantic adds the type it tried to the key."""


def read_recipe(model: type[Content], path: Path, overrides: list[str]) -> Content:
    """Read a recipe, whose model is `Recipe`; see `Recipe.load`, which is the public name.

    Raises:
        UserError: names the file and the key, what was found and what to do.
    """
    return _anchor_paths(read_content(model, path, overrides), path.parent)


def change_recipe(recipe: Content, keys: dict[str, Any]) -> Content:
    """A recipe with other values for some keys, `tasks.0.train.0.limit` for one in a list; its sources are written out
    (`train` is a list of sources, each with a `path`).

    Raises:
        UserError: names the key, what was found and what to do.
    """
    content = recipe.model_dump()
    for key, value in keys.items():
        _place_value(content, key.split("."), value, key)
    try:
        return type(recipe).model_validate(content)
    except ValidationError as error:
        raise UserError(_first_problem(error, type(recipe))) from error


def read_content(model: type[Content], path: Path, overrides: Sequence[str] = ()) -> Content:
    """Read a YAML file of any model, its paths as they stand.

    Raises:
        UserError: names the file and the key, what was found and what to do.
    """
    content = _read_yaml(path)
    for override in overrides:
        key, value = read_override(override)
        _place_value(content, key.split("."), value, f"--set {override}")
    return check_content(model, content, path)


def check_content(model: type[Content], content: dict[str, Any], origin: Path) -> Content:
    """Content that was read from a file, as its model.

    Raises:
        UserError: names the file and the key, what was found and what to do.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{origin}: {_first_problem(error, model)}") from error


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses what YAML forbids and PyYAML lets pass: of a key that stands twice the second would win unseen."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key '{key.value}' stands twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return node


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _EachKeyOnce)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such recipe; give the path of a YAML file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a directory; give the path of a YAML file") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); give a YAML file") from error
    except (yaml.YAMLError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"{path}: is not valid YAML: {problem}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds {type(content).__name__}, not keys and values; see the folder recipes/")
    return content


def read_override(override: str) -> tuple[str, Any]:
    """The key and the value that one --set gives.

    Raises:
        UserError: it is no key and value.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set {override}: write it as key.path=value, such as --set student.layers=4")
    try:
        return key, yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"--set {override}: the value is not valid YAML; quote it") from error


def _place_value(content: dict[str, Any], key: list[str], value: Any, told: str) -> None:
    *parents, last = key
    place: Any = content
    for position, (parent, following) in enumerate(pairwise(key)):
        index = _index(place, parent, told)
        if isinstance(place, dict) and place.get(parent) is None:
            place[parent] = {}
        place[index] = _written_out(place[index], parents[: position + 1], following)
        place = place[index]
        if not isinstance(place, dict | list):
            raise UserError(f"{told}: {'.'.join(parents[: position + 1])} holds a value, not keys")
    place[_index(place, last, told)] = value


def _index(place: dict[str, Any] | list[Any], key: str, told: str) -> Any:
    if isinstance(place, dict):
        return key
    if not key.isdecimal() or int(key) >= len(place):
        raise UserError(f"{told}: '{key}' is not a place in a list of {len(place)}; count from 0")
    return int(key)


def _written_out(value: Any, place: list[str], following: str) -> Any:
    """What stands at a place, of which a key is meant; of sources, the short forms: one alone for a list, its path."""
    *_, before, last = ("", *place)
    if last in _SOURCES and following.isdecimal() and not isinstance(value, list):
        return [value]
    return {"path": value} if isinstance(value, str) and not _SOURCES.isdisjoint((before, last)) else value


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"] if part not in _TYPES_IN_LOCATIONS)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = _keys_at(model, problem["loc"][:-1])
        return f"unknown key '{key}'; known here: {', '.join(known)}"
    if problem["type"] == "missing":
        return f"key '{key}' is missing; add it (lightpaff schema describes every key)"
    found = "" if isinstance(problem["input"], dict) else f"; found {problem['input']!r}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    place = f"key '{key}': " if key else ""
    return f"{place}{message}{found}{more}"


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at `location`, found by walking the fields' annotations."""
    current: type[BaseModel] = model
    for part in location:
        if isinstance(part, str) and part in current.model_fields:
            current = _section_in(current.model_fields[part].annotation) or current
    return list(current.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _section_in(inner)) is not None:
            return found
    return None


def _targets_in(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Where both stages and the arms say where soft targets are stored."""
    for stage in ("pretraining", "fine_tuning"):
        if content[stage] is not None:
            yield content[stage]["distillation"]["targets"]
        for keys in content["arms"].values():
            if "store" in keys.get(key := f"{stage}.distillation.targets", {}):
                yield keys[key]


def _anchor_paths(recipe: Content, folder: Path) -> Content:
    def anchored(path: str) -> str:
        is_local = not path.startswith(("wheel:", "hub:", "/", "~")) and "://" not in path
        return str((folder / path).resolve()) if is_local else str(Path(path).expanduser()) if path[0] == "~" else path

    def model_source(source: str) -> str:
        # A Hub id looks like a relative path: it is a path only where something is there.
        if (folder / source).exists() or source.startswith(("./", "../")):
            return anchored(source)
        if Path(source).exists() and not Path(source).is_absolute():
            raise UserError(
                f"{source}: is in the working directory, and paths count from the recipe's folder, {folder.resolve()}, "
                f"which has none; write {Path(source).resolve()}, or hub:{source} for the Hub's"
            )
        return source

    content = recipe.model_dump()
    corpus = (content["pretraining"] or {"corpus": []})["corpus"]
    for task in content["tasks"]:
        sources = [*task["train"], task["validation"], *task["unlabelled"]] + ([task["test"]] if task["test"] else [])
        corpus = [*corpus, *sources]
        task["teacher"] = model_source(task["teacher"]) if task["teacher"] else None
    for source in corpus:
        source["path"] = anchored(source["path"])
    for targets in _targets_in(content):
        targets["store"] = anchored(targets["store"]) if targets.get("store") else None
    named = content["teacher"]["source"]
    if named is not None:
        content["teacher"]["source"] = [model_source(s) for s in ([named] if isinstance(named, str) else named)]
    if content["student"]["initialisation"] not in ("random", "teacher"):
        content["student"]["initialisation"] = model_source(content["student"]["initialisation"])
    return type(recipe).model_validate(content)
