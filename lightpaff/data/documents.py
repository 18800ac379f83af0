"""Documents of a source, verbatim: what language modelling reads, where cleaning would change what is predicted."""

import itertools
from collections.abc import Iterator
from typing import Any

from lightpaff.data.cleaning import SURROGATE
from lightpaff.data.readers import Format, read_lines, resolve_format
from lightpaff.data.sources import HUB_PREFIX, ResolvedSource, iterate_rows
from lightpaff.errors import UserError


def iterate_documents(resolved: ResolvedSource, column: str) -> Iterator[tuple[int, str]]:
    """The texts of a source with the line or row at which each starts, as `source.document` says.

    `row`: the text column of each row, but for lone surrogates; without a value it is empty.

    `blank-line`: the lines of a txt file, or the rows' texts, up to one that is empty or white space only, joined by
    newlines, with none at the end.

    `file`: the whole txt file, character by character, but for a byte order mark; of a table, all rows' texts in
    order, each ending in a newline, which is added where the text has none. So a file's lines, kept as rows (as the
    Hub keeps WikiText), are the file again.

    `where`, `split` and `limit` choose rows, before these are put together. The lines of a txt file are rows for
    `row` only: otherwise `where` and `split` are refused, and `limit` counts documents.

    Args:
        resolved: the source.
        column: which holds the text.

    Raises:
        UserError: as `sources.iterate_rows`, `readers.read_lines` and `text_of`; also for `where` or `split` where a
            txt file has no rows, and for a txt file without text.
    """
    source = resolved.source
    if source.document == "row":
        yield from _row_texts(resolved, column)
    elif _format_of(resolved) == "txt":
        yield from _documents_of_txt(resolved)
    elif source.document == "file":
        yield from _join_all((number, _with_line_end(text)) for number, text in _row_texts(resolved, column))
    else:
        yield from _join_up_to_blank_lines(_row_texts(resolved, column))


def text_of(row: dict[str, Any], column: str, origin: str, number: int) -> str:
    """The text of a row's column; a missing value is an empty text.

    Raises:
        UserError: when there is no such column, or its value is not text.
    """
    if column not in row:
        raise UserError(
            f"{origin}, row {number}: has no column '{column}'; it has {', '.join(row)}; name one of them in the "
            "recipe, or give the row one"
        )
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, dict | list):
        raise UserError(f"{origin}, row {number}: column '{column}' holds a {type(value).__name__}, not text")
    return str(value)


def _format_of(resolved: ResolvedSource) -> Format:
    source = resolved.source
    # As for rows: those of a Hub data set are kept as parquet whatever the source names.
    named = None if source.path.startswith(HUB_PREFIX) else source.format
    return resolve_format(resolved.location, named, source.path)[0]


def _row_texts(resolved: ResolvedSource, column: str) -> Iterator[tuple[int, str]]:
    for number, row in iterate_rows(resolved):
        yield number, SURROGATE.sub("", text_of(row, column, resolved.source.path, number))


def _with_line_end(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def _documents_of_txt(resolved: ResolvedSource) -> Iterator[tuple[int, str]]:
    source = resolved.source
    for key in ("where", "split"):
        if getattr(source, key):
            raise UserError(
                f"{source.path}: {key} chooses rows, and a txt file has none with document '{source.document}'; "
                "leave one of the two out"
            )
    lines = read_lines(resolved.location, source.path)
    documents = _join_all(lines) if source.document == "file" else _join_up_to_blank_lines(lines)
    number = 0
    for number, text in itertools.islice(documents, source.limit):
        yield number, text
    if number == 0:
        raise UserError(f"{source.path}: holds no text; give a file with data, or leave this source out")


def _join_all(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    first = next(lines, None)
    if first is not None:
        number, text = first
        yield number, text + "".join(line for _, line in lines)


def _join_up_to_blank_lines(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for is_text, group in itertools.groupby(lines, key=lambda numbered: bool(numbered[1].strip())):
        if is_text:
            numbers, texts = zip(*group, strict=True)
            yield numbers[0], "\n".join(text.rstrip("\r\n") for text in texts)
