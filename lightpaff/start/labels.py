"""Which classes a recipe names and in which order, and labels that a run would refuse."""

from collections import Counter
from pathlib import Path
from typing import Any

from lightpaff.data.numbers import is_number
from lightpaff.data.sources import ResolvedSource
from lightpaff.data.tagged_words import find_tags
from lightpaff.data.task_data import find_labels, label_name
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Task
from lightpaff.recipe_sources import Source
from lightpaff.start.guessing import Guess
from lightpaff.start.parts import Files, Parts, all_rows_of

WITH_CLASSES = ("classify", "tag")
_RARE = 3
_TOLD = 6


def find_classes(name: str, path: Path, guess: Guess) -> list[str]:
    """All classes of a file, in the order in which a run numbers them; none where the task has none.

    Raises:
        UserError: as a run refuses them: a single class, labels that differ in capitals only, words for a missing one.
    """
    if guess.objective not in WITH_CLASSES:
        return []
    source, find = Source(path=str(path)), find_tags if guess.objective == "tag" else find_labels
    asked = {"name": name, "objective": guess.objective, "columns": guess.columns, "train": [source]}
    return find(Task.model_validate({**asked, "validation": source}), [ResolvedSource(source, str(path), "")])


def choose_labels(files: Files, guess: Guess, parts: Parts, teacher: list[str]) -> tuple[list[str], list[str]]:
    """The classes that the recipe has to name, none where a run finds the same, and one line a decision.

    Args:
        files: what the user has.
        guess: with all classes of the train file.
        parts: the rows of each part.
        teacher: the names of a fine-tuned teacher's classes in its order; they count where the data has no others.

    Raises:
        UserError: validation or test rows that the user chose have a class that is none of these.
    """
    if not guess.labels:
        return [], []
    counts = {part: _count(source, guess.columns.get("label", "tags")) for part, source in parts.sources.items()}
    in_order = _in_order_of(teacher, guess.labels)
    # Of rows that were shared out here, any may have gone to training.
    shared = [counts[part].keys() for part, source in parts.sources.items() if part == "train" or "split" in source]
    labels = in_order or [label for label in guess.labels if any(label in found for found in shared)]
    for part, found in counts.items():
        if unknown := sorted(found.keys() - set(labels)):
            raise UserError(
                f"{files.parts.get(part, files.train)}: the {part} rows hold the label '{unknown[0]}', and the "
                f"training rows {_told(labels)}; write it as there, or leave these rows out"
            )
    rows = sum(counts.values(), Counter[str]())
    missing = [label for label in labels if not rows[label]]
    rare = [label for label in labels if 0 < rows[label] < _RARE] if guess.objective == "classify" else []
    why = ["labels: in the order of the teacher's classes"] if in_order else []
    why += [f"labels: no row has the teacher's {_told(missing)}"] if missing else []
    why += [f"labels: too rare to learn or to measure, with fewer than {_RARE} rows: {_told(rare)}"] if rare else []
    if _are_numbers_of(teacher, labels):
        return teacher, [*why, f"labels: the rows' numbers are the teacher's classes, {_told(teacher)}"]
    return labels if in_order or set(labels) > counts["train"].keys() else [], why


def _are_numbers_of(teacher: list[str], labels: list[str]) -> bool:
    """As data sets of the Hub keep classes; LABEL_0 is no name."""
    are_named = not any(is_number(name) or name.startswith("LABEL_") for name in teacher)
    return are_named and labels == [str(number) for number in range(len(teacher))]


def _in_order_of(teacher: list[str], labels: list[str]) -> list[str]:
    """The labels in a teacher's order, and its classes that the data lacks; none where it calls them otherwise."""
    names, spelled = [name.casefold() for name in teacher], {label.casefold(): label for label in labels}
    if not spelled.keys() <= set(names) or len(set(names)) < len(names) or len(spelled) < len(labels):
        return []
    return [spelled.get(folded, name) for folded, name in zip(names, teacher, strict=True)]


def _count(source: dict[str, Any], column: str) -> Counter[str]:
    """How often each label stands in a part's rows."""
    found = Counter[str]()
    for row in all_rows_of(source):
        value = row.get(column)
        labels = value if isinstance(value, list) else [value]
        found.update(name for label in labels if label is not None and (name := label_name(label)))
    return found


def _told(labels: list[str]) -> str:
    return ", ".join(labels[:_TOLD]) + (", …" if len(labels) > _TOLD else "")
