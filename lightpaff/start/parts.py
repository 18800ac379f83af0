"""Which rows of the user's files are for training, validation and test, measured before it is written down."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightpaff.data.sources import ResolvedSource, iterate_rows
from lightpaff.data.splits import part_of
from lightpaff.errors import UserError
from lightpaff.recipe_sources import Source, Split
from lightpaff.start.columns import Column, Table
from lightpaff.start.guessing import Guess

_FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
_WITH_OWN_TEST = {"train": 0.9, "validation": 0.1}
_LEAST = 1 / 3
"""Of the share that a part should have."""
_SEEDS = 48
_VALUES_COUNTED = 100_000
_MOST_LABELS_NAMED = 50
"""In a recipe, where some rows have none."""
WITH_LABELS = ("classify", "regress")
"""Objectives whose rows have one label, or group, that validation and test look at."""


@dataclass(frozen=True)
class Files:
    """What the user gave: files of one layout."""

    train: Path
    validation: Path | None = None
    test: Path | None = None
    unlabelled: list[Path] = field(default_factory=list)

    @property
    def parts(self) -> dict[str, Path]:
        """Those that are a part's own."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: path for part, path in named.items() if path is not None}


@dataclass(frozen=True)
class Parts:
    """The rows of each part.

    Attributes:
        sources: by part, as a recipe has them.
        group: the column whose rows stay together; None where none can.
        why: one line a decision.
    """

    sources: dict[str, dict[str, Any]]
    group: str | None
    why: list[str]


def divide(files: Files, tables: dict[str, Table], guess: Guess) -> Parts:
    """Take the files as they are, or cut the train file: by a column that says the part, or by the rows' content.

    Args:
        files: what the user has.
        tables: by part, of the files that are a part's own.
        guess: what they are for.

    Raises:
        UserError: there are too few rows to cut, or validation and test rows have no label.
    """
    group = guess.group
    if group is not None and any(table.column(group) is None for table in tables.values()):
        group = None
    sources = {part: source_of(path) for part, path in files.parts.items()}
    sources, why = _by_column(sources, tables["train"], guess)
    if "validation" not in sources:
        cut, group, told = _cut(sources, guess, group)
        sources, why = {**sources, **cut}, [*why, *told]
    else:
        why = why or ["split: as you gave the files"]
        group = group if guess.objective in WITH_LABELS else None
    for part in ("validation", "test"):
        if part in sources and guess.objective in WITH_LABELS:
            table = tables.get(part, tables["train"])
            sources[part], told = _labelled_only(sources[part], part, table, guess)
            why += told
    return Parts({part: sources[part] for part in _FRACTIONS if part in sources}, group, why)


def source_of(path: Path) -> dict[str, Any]:
    """A file as a recipe has it. A link keeps its own name, whose ending tells the format."""
    return {"path": str(path.absolute())}


def _by_column(
    sources: dict[str, dict[str, Any]], table: Table, guess: Guess
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """A column may say of every row of the train file whose it is; files that the user gave go before it."""
    taken = [*guess.columns.values(), guess.group]
    column = next((column for column in table.columns if column.parts and column.name not in taken), None)
    if column is None:
        return sources, []
    _require_known_parts(table, column)
    rows = Counter(str(row[column.name]) for row in _rows_of(sources["train"], guess, column.name))
    counts = {part: sum(rows[value] for value in values) for part, values in column.parts.items()}
    own = {part: {**sources["train"], "where": {column.name: column.parts[part]}} for part in counts if counts[part]}
    if "train" not in own:
        raise UserError(
            f"{table.path}: no row that column '{column.name}' gives to train has a label in "
            f"'{guess.columns['label']}'; label some, or give them in a file of their own (--unlabelled)"
        )
    own |= {part: source for part, source in sources.items() if part != "train"}
    told = ", ".join(f"{counts[part]} {part}" for part in own if "where" in own[part])
    blank = table.rows - column.rows
    left_out = f"; {blank} rows where it is empty are left out" if blank else ""
    return own, [f"split: as column '{column.name}' says, {told} rows{left_out}"]


def _require_known_parts(table: Table, column: Column) -> None:
    """Rows that somebody held out must not be trained on because their word is not known."""
    if unknown := column.parts.get(""):
        raise UserError(
            f"{table.path}: column '{column.name}' holds '{unknown[0]}' beside train; write train, validation or test "
            "there, leave cells of no part empty, or give the column another name where it means something else"
        )
    if not column.is_everywhere:
        raise UserError(f"{table.path}: some rows have no column '{column.name}', which says the part; give it to all")


def _cut(
    sources: dict[str, dict[str, Any]], guess: Guess, group: str | None
) -> tuple[dict[str, dict[str, Any]], str | None, list[str]]:
    """Parts of the training rows, by the group if that leaves enough in each."""
    whole, fractions = sources["train"], _WITH_OWN_TEST if "test" in sources else _FRACTIONS
    # A CoNLL file's columns have no names of the user's, and its reader calls the words of a sentence so.
    first = guess.columns.get("text") or guess.columns.get("source") or "tokens"
    by = group or ("context" if guess.objective == "answer" else first)
    found = _find_seed(whole, guess, by, fractions, _LEAST)
    if group is None:
        found = found or _find_seed(whole, guess, by, fractions, 0.0)
    if found is None and group is None:
        raise UserError(
            f"{whole['path']}: the rows of different '{by}' are too few to cut into {', '.join(fractions)}; give more "
            "rows, or files of their own (--validation, --test)"
        )
    if found is None:
        parts, _, why = _cut(sources, guess, None)
        told = f"split: rows of one '{group}' are not kept together: there are too few, or too uneven ones"
        return parts, None, [told, *why]
    seed, shares = found
    what = f"rows of one '{by}' stay together" if group else f"the same '{by}', to the letter, is never in two of them"
    told = ", ".join(f"{100 * share:.0f} % {part}" for part, share in shares.items())
    split = {"by": by, "fractions": fractions, **({"seed": seed} if seed else {})}
    parts = {part: {**whole, "split": {**split, "take": part}} for part in fractions}
    return parts, group, [f"split: {told}, by the content of '{by}', so that {what}"]


def _find_seed(
    source: dict[str, Any], guess: Guess, by: str, fractions: dict[str, float], least: float
) -> tuple[int, dict[str, float]] | None:
    """A seed that gives every part more than the least part of its share, and the shares that it gives: the first one,
    or else the one that gives training nearly what it should have."""
    splits = [Split(by=by, fractions=fractions, take="train", seed=seed) for seed in range(_SEEDS)]
    shares = _shares(((str(row[by]), 1) for row in _rows_of(source, guess, by)), splits[0])
    if _are_fair(shares, fractions, least):
        return 0, shares
    counts = Counter[str]()
    for row in _rows_of(source, guess, by):
        counts[str(row[by])] += 1
        if len(counts) > _VALUES_COUNTED:
            return None
    tried = [(split.seed, _shares(counts.items(), split)) for split in splits]
    fair = [(seed, shares) for seed, shares in tried if _are_fair(shares, fractions, least)]
    return min(fair, key=lambda one: abs(one[1]["train"] - fractions["train"]), default=None)


def _shares(counts: Iterable[tuple[str, int]], split: Split) -> dict[str, float]:
    rows = Counter[str]()
    for value, count in counts:
        rows[part_of(value, split)] += count
    return {part: rows[part] / max(rows.total(), 1) for part in split.fractions}


def _are_fair(shares: dict[str, float], fractions: dict[str, float], least: float) -> bool:
    return all(shares[part] > least * fraction for part, fraction in fractions.items())


def _rows_of(source: dict[str, Any], guess: Guess, column: str) -> Iterator[dict[str, Any]]:
    """Without those that have no label, which are of use to training alone."""
    label = guess.columns["label"] if guess.objective in WITH_LABELS else column
    return (row for row in all_rows_of(source) if column in row and not (label != column and _is_empty(row, label)))


def all_rows_of(source: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As the run reads them."""
    return (row for _, row in iterate_rows(ResolvedSource(Source.model_validate(source), source["path"], "")))


def _is_empty(row: dict[str, Any], column: str) -> bool:
    return row.get(column) is None or not str(row[column]).strip()


def _labelled_only(source: dict[str, Any], part: str, table: Table, guess: Guess) -> tuple[dict[str, Any], list[str]]:
    """Validation and test rows need a label."""
    label = table.column(guess.columns["label"])
    assert label is not None
    if label.rows == table.rows or not (missing := sum(_is_empty(row, label.name) for row in all_rows_of(source))):
        return source, []
    found = f"column '{label.name}' is empty in {missing} {part} rows"
    is_nameable = label.is_everywhere and 0 < len(label.values) <= _MOST_LABELS_NAMED
    if guess.objective == "regress" or not is_nameable:
        raise UserError(
            f"{table.path}: {found}, which need a label; give rows without one in a file of their own (--unlabelled)"
        )
    own = {**source, "where": {**source.get("where", {}), label.name: label.values}}
    return own, [f"label: {found}, which are left out"]
