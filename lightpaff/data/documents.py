"""Documents of a source, verbatim: what language modelling reads, where cleaning would change what is predicted."""

import itertools
import re
from collections.abc import Iterator
from typing import Any

from lightpaff.data.readers import read_lines, resolve_format
from lightpaff.data.sources import HUB_PREFIX, ResolvedSource, iterate_rows
from lightpaff.errors import UserError

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Lone surrogates, which JSON can spell, but no UTF-8 file and no tokenizer takes."""


def iterate_documents(resolved: ResolvedSource, column: str) -> Iterator[tuple[int, str]]:
    """The texts of a source with the line or row at which each starts, as `source.document` says.

    `row`: the text column of each row, but for lone surrogates; without a value it is empty. `blank-line`: the lines
    of a txt file up to one that is empty or white space only, joined by newlines, with none at the end. `file`: the
    whole txt file, character by character, but for a byte order mark. `where`, `split` and `limit` choose rows; with
    the other two there are none, and `limit` counts documents.

    Args:
        resolved: the source.
        column: which holds the text, for `row`.

    Raises:
        UserError: as `sources.iterate_rows` and `text_of`; also for a document of lines in a file that is not txt,
            with `where` or `split`, or in a file without text.
    """
    source = resolved.source
    if source.document == "row":
        for number, row in iterate_rows(resolved):
            yield number, _SURROGATE.sub("", text_of(row, column, source.path, number))
        return
    lines = _open_lines(resolved)
    documents = _join_all(lines) if source.document == "file" else _join_up_to_blank_lines(lines)
    number = 0
    for number, text in itertools.islice(documents, source.limit):
        yield number, text
    if number == 0:
        raise UserError(f"{source.path}: holds no text; give a file with data, or leave this source out")


def text_of(row: dict[str, Any], column: str, origin: str, number: int) -> str:
    """The text of a row's column; a missing value is an empty text.

    Raises:
        UserError: when there is no such column, or its value is not text.
    """
    if column not in row:
        raise UserError(
            f"{origin}, row {number}: has no column '{column}'; it has {', '.join(row)}; name one of them in the recipe"
        )
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, dict | list):
        raise UserError(f"{origin}, row {number}: column '{column}' holds a {type(value).__name__}, not text")
    return str(value)


def _open_lines(resolved: ResolvedSource) -> Iterator[tuple[int, str]]:
    source = resolved.source
    # As for rows: those of a Hub data set are kept as parquet whatever the source names.
    named = None if source.path.startswith(HUB_PREFIX) else source.format
    format, _ = resolve_format(resolved.location, named, source.path)
    if format != "txt":
        raise UserError(
            f"{source.path}: is read as {format}, but document '{source.document}' is for txt files; leave document out"
        )
    for key in ("where", "split"):
        if getattr(source, key):
            raise UserError(
                f"{source.path}: {key} chooses rows, and there are none with document '{source.document}'; "
                "leave one of the two out"
            )
    return read_lines(resolved.location, format, source.path)


def _join_all(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    if text := "".join(line for _, line in lines):
        yield 1, text


def _join_up_to_blank_lines(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for is_text, group in itertools.groupby(lines, key=lambda numbered: bool(numbered[1].strip())):
        if is_text:
            numbers, texts = zip(*group, strict=True)
            yield numbers[0], "\n".join(text.rstrip("\r\n") for text in texts)
