"""What the columns of a file hold, from its first rows."""

import itertools
import math
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightpaff.data.readers import Format, read_rows, resolve_format

_ROWS_READ = 20_000
_SHORT = 4.0
"""Words of a label, at the most, on average."""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        kind: text, number, list (of strings), mapping, or other.
        filled: the share of rows that have a value.
        distinct: how many values there are.
        words: their mean length.
        values: the most frequent ones, as they stand.
        are_whole: all numbers are whole.
        rows: with a value.
        items: of lists, how many different items there are.
    """

    name: str
    kind: str
    filled: float
    distinct: int
    words: float
    values: list[Any]
    are_whole: bool
    rows: int
    items: int = 0

    @property
    def is_unique(self) -> bool:
        """No value comes twice, or nearly none."""
        return self.distinct > 0.98 * self.rows

    @property
    def could_be_label(self) -> bool:
        """Few short values that come again and again."""
        few = self.distinct <= max(2, min(200, self.rows // 5))
        return self.kind in ("text", "number") and self.distinct >= 2 and few and self.words <= _SHORT

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


@dataclass(frozen=True)
class Table:
    """A file's columns; `rows` were looked at, all there are where `is_whole`."""

    path: str
    format: Format
    columns: list[Column]
    rows: int
    is_whole: bool

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)


def look_at(path: Path) -> Table:
    """Read a file's first rows.

    Raises:
        UserError: as `read_rows`.
    """
    format, _ = resolve_format(str(path), None, str(path))
    rows = list(itertools.islice(_rows(path), _ROWS_READ + 1))
    seen = rows[:_ROWS_READ]
    names = dict.fromkeys(name for row in seen for name in row)
    columns = [_column(name, [row.get(name) for row in seen]) for name in names]
    return Table(str(path), format, columns, len(seen), len(rows) <= _ROWS_READ)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return (row for _, row in read_rows(str(path), None, str(path)))


def _column(name: str, values: list[Any]) -> Column:
    given = [value for value in values if value is not None and value != ""]
    kind = _kind_of(given)
    shown = [str(value) for value in given]
    counts: dict[str, int] = {}
    for text in shown:
        counts[text] = counts.get(text, 0) + 1
    order = sorted(counts, key=lambda text: -counts[text])
    return Column(
        name=name,
        kind=kind,
        filled=len(given) / max(len(values), 1),
        distinct=len(counts),
        words=statistics.fmean(len(text.split()) for text in shown) if shown else 0.0,
        values=order[:200],
        are_whole=kind == "number" and all(math.isfinite(float(text)) and float(text).is_integer() for text in shown),
        rows=len(given),
        items=len({str(item) for value in given for item in value}) if kind == "list" else 0,
    )


def _kind_of(values: list[Any]) -> str:
    if not values:
        return "other"
    if all(isinstance(value, list) and all(isinstance(item, str | int) for item in value) for value in values):
        return "list"
    if all(isinstance(value, dict) for value in values):
        return "mapping"
    if all(isinstance(value, bool) for value in values):
        return "text"
    # Cells of a csv file are strings.
    if all(isinstance(value, int | float) or (isinstance(value, str) and _is_number(value)) for value in values):
        return "number"
    return "text" if all(isinstance(value, str | int | float | bool) for value in values) else "other"


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text) is not None
