"""What the columns of a file hold, from all its rows, in one pass and bounded memory."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from lightpaff.data.readers import Format, read_rows, resolve_format
from lightpaff.data.scripts import count_words

_SHORT = 4.0
"""Words of a label, at the most, on average."""
_SHORT_LETTERS = 12.0
"""The same of the letters of scripts without spaces."""
_VALUES_KEPT, _LONGEST_KEPT = 10_000, 200
"""How many different values are kept, and of how many characters; of others only their number is known."""
_HASHES_KEPT = 50_000
_ITEMS_KEPT = 100_000
_FEW_ITEMS = 1_000
_FIRST_ROWS = 1_000
_PART_COLUMNS = ("split", "fold", "part", "partition", "subset")
_PART_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "development", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "holdout", "heldout"), "test"),
}


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        kind: text, number, list (of strings), mapping, or other.
        filled: the share of rows that have a value.
        is_everywhere: no row leaves the column out, as one of JSON lines may.
        distinct: how many values there are; nearly, where they are very many.
        words: their mean length; a letter of a script without spaces is a word.
        letters: how many of these words are such letters.
        values: all, the most frequent ones first, as they stand; empty where they are long or very many.
        are_whole: all numbers are whole.
        rows: with a value.
        items: of lists, how many different items there are.
        few_items: of lists, all of them where they are few.
    """

    name: str
    kind: str
    filled: float
    is_everywhere: bool
    distinct: int
    words: float
    letters: float
    values: list[str]
    are_whole: bool
    rows: int
    items: int = 0
    few_items: tuple[str, ...] = ()

    @property
    def is_unique(self) -> bool:
        """No value comes twice, or nearly none."""
        return self.distinct > 0.98 * self.rows

    @property
    def is_short(self) -> bool:
        """No longer than a label."""
        return self.words - self.letters <= _SHORT and self.letters <= _SHORT_LETTERS

    @property
    def could_be_label(self) -> bool:
        """Few short values that come again and again."""
        few = self.distinct <= max(2, min(200, self.rows // 5))
        return self.kind in ("text", "number") and bool(self.values) and self.distinct >= 2 and few and self.is_short

    @property
    def could_be_classes(self) -> bool:
        """Short values that come twice on average, numbers only where they count: 0 to K - 1, or 1 to K."""
        is_fit = self.kind == "text" or (self.kind == "number" and self.are_whole and self._counts())
        return is_fit and bool(self.values) and self.distinct >= 2 and 2 * self.distinct <= self.rows and self.is_short

    @property
    def could_be_score(self) -> bool:
        """Numbers, not all whole or of too many values for labels."""
        return self.kind == "number" and self.distinct > 2 and not (self.are_whole and self.is_unique)

    @property
    def could_be_text(self) -> bool:
        """Words, mostly different ones."""
        return self.kind == "text" and self.words >= 1 and not self.is_id and (self.distinct > 0.2 * self.rows)

    @property
    def is_id(self) -> bool:
        """One short value without spaces a row."""
        is_word = (self.kind == "number" and self.are_whole) or (self.kind == "text" and self.words <= 1.01)
        return is_word and self.is_unique

    @property
    def parts(self) -> dict[str, list[str]]:
        """Where the column says which rows are for train, validation and test: its words for each of them, and under no
        name those that nobody knows."""
        found: dict[str, list[str]] = {}
        for value in self.values if self.is_named_for_parts else []:
            found.setdefault(_PART_WORDS.get(value.strip().lower(), ""), []).append(value)
        return found if "train" in found else {}

    @property
    def is_named_for_parts(self) -> bool:
        """A column of this name is no label."""
        return self.name.lower() in _PART_COLUMNS

    def _counts(self) -> bool:
        numbers = [float(value) for value in self.values]
        return bool(numbers) and min(numbers) in (0, 1) and max(numbers) - min(numbers) < 1.1 * len(numbers)


@dataclass(frozen=True)
class Table:
    """A file's columns, and how many rows it has."""

    path: str
    format: Format
    columns: list[Column]
    rows: int

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)


def look_at(path: Path) -> Table:
    """Read a file.

    Raises:
        UserError: as `read_rows`.
    """
    format, _ = resolve_format(str(path), None, str(path))
    tallies: dict[str, _Tally] = {}
    rows = 0
    for row in _rows(path):
        rows += 1
        for name, value in row.items():
            tally = tallies.get(name)
            if tally is None:
                tally = tallies[name] = _Tally()
            tally.add(value)
    return Table(str(path), format, [tally.column(name, rows) for name, tally in tallies.items()], rows)


def names_of_columns(path: Path) -> list[str]:
    """The columns of a file's first rows.

    Raises:
        UserError: as `read_rows`.
    """
    return list(dict.fromkeys(name for row in itertools.islice(_rows(path), _FIRST_ROWS) for name in row))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return (row for _, row in read_rows(str(path), None, str(path)))


class _Tally:
    """What is known of a column so far."""

    def __init__(self) -> None:
        self._seen = self._given = self._words = self._letters = 0
        self._kinds: set[str] = set()
        self._are_whole = True
        self._counts: dict[str, int] | None = {}
        self._distinct = _Distinct()
        self._items: set[str] = set()

    def add(self, value: Any) -> None:
        """One cell."""
        self._seen += 1
        if value is None or (isinstance(value, str) and not value.strip()):
            return
        self._given += 1
        kind, text = _kind_of(value), str(value)
        self._kinds.add(kind)
        if kind == "number":
            self._are_whole = self._are_whole and float(text).is_integer()
        if kind == "list" and len(self._items) < _ITEMS_KEPT:
            self._items.update(map(str, value))
        words, letters = count_words(text)
        self._words += words + letters
        self._letters += letters
        self._count(text)

    def _count(self, text: str) -> None:
        if self._counts is not None and len(text) <= _LONGEST_KEPT:
            self._counts[text] = self._counts.get(text, 0) + 1
            if len(self._counts) <= _VALUES_KEPT:
                return
        if self._counts is not None:
            for earlier in self._counts:
                self._distinct.add(earlier)
            self._counts = None
        self._distinct.add(text)

    def column(self, name: str, rows: int) -> Column:
        """All of it, once the file's rows are read."""
        given, counts = max(self._given, 1), self._counts
        kind = _kind_of_all(self._kinds)
        return Column(
            name=name,
            kind=kind,
            filled=self._given / rows,
            is_everywhere=self._seen == rows,
            distinct=min(self._distinct.number(), given) if counts is None else len(counts),
            words=self._words / given,
            letters=self._letters / given,
            values=sorted(counts, key=lambda text: -counts[text]) if counts else [],
            are_whole=kind == "number" and self._are_whole,
            rows=self._given,
            items=len(self._items) if kind == "list" else 0,
            few_items=tuple(sorted(self._items)) if len(self._items) <= _FEW_ITEMS else (),
        )


class _Distinct:
    """How many different texts there are: of very many, those whose hash is low are counted."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._halvings = 0

    def add(self, text: str) -> None:
        """One text."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "big")
        if number >> (64 - self._halvings):
            return
        self._hashes.add(number)
        if len(self._hashes) > _HASHES_KEPT:
            self._halvings += 1
            self._hashes = {number for number in self._hashes if not number >> (64 - self._halvings)}

    def number(self) -> int:
        """How many were added, to a percent or so."""
        return len(self._hashes) << self._halvings


_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


def _kind_of(value: Any) -> str:
    if isinstance(value, str):
        # Cells of a csv file are strings.
        return "number" if _NUMBER.fullmatch(value) else "text"
    if isinstance(value, bool):
        return "text"
    if isinstance(value, int | float | Decimal):
        return "number"
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return "list"
    return "mapping" if isinstance(value, dict) else "other"


def _kind_of_all(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "text" if kinds == {"text", "number"} else "other"
