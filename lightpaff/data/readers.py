"""Rows out of text and table files, one after the other: memory holds a line or a record batch, never the file.

Bad files are refused with the line at which they go wrong, not skipped over: a row that disappears silently changes
what a run measures.
"""

import bz2
import csv
import functools
import gzip
import io
import itertools
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, Literal, cast

import fsspec

from lightpaff.errors import UserError, one_line

Format = Literal["txt", "jsonl", "csv", "tsv", "parquet", "conll", "squad"]
Row = dict[str, Any]
NumberedRow = tuple[int, Row]

TEXT_COLUMN = "text"
"""The one column of a txt file."""

_FORMATS: dict[str, Format] = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".conll": "conll",
    ".json": "squad",
}
_FIRST_BYTES = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\x28\xb5\x2f\xfd": ".zst", b"PAR1": ".parquet"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_FIELD = 1 << 28  # characters; the csv module's own limit, 128 Ki, is less than a long document
_PARQUET_BATCH_ROWS = 1024


def read_rows(file: str, format: Format | None, origin: str) -> Iterator[NumberedRow]:
    """The rows of a file, with the line at which each starts (parquet: the row's number), counted from 1.

    Every non-blank line of a txt file is a row with the column `text`. csv and tsv have a header line; all their
    cells are strings, an empty one is None. A csv file may have semicolons, tabs or vertical bars for commas. In tsv
    files a quotation mark is a character like any other. A conll file has a word a line, its tag in the last column,
    and a blank line behind every sentence, which is a row with the columns `tokens` and `tags`. A squad file (of SQuAD
    1.1 or 2.0) has a row a question, in the Hub's columns. What is no value is None in every format: null, NaN.

    Args:
        file: a local path or an fsspec URL; an ending .gz, .zst or .bz2 tells its compression.
        format: how the rows are written; None: as the ending tells.
        origin: what to call the file in messages.

    Raises:
        UserError: names `origin` and the line: a file that is missing, a directory, without rows, binary, not UTF-8,
            not what its ending says, or broken.
    """
    chosen, compression = resolve_format(file, format, origin)
    rows = 0
    with _open_file(file, origin) as stored, _DECOMPRESSORS[compression](stored) as stream:
        for number, row in _READERS[chosen](stream, origin):
            rows += 1
            _refuse_header(row, f"{origin}, row {number}")
            yield number, row
    if rows == 0:
        raise UserError(f"{origin}: holds no rows; give a file with data, or leave this source out")


def read_lines(file: str, origin: str) -> Iterator[tuple[int, str]]:
    """All lines of a txt file, blank ones too, with their line ends and their numbers, counted from 1.

    Put together, they are the file, but for a byte order mark.

    Args:
        file, origin: as for `read_rows`.

    Raises:
        UserError: as `read_rows`, but a file without lines has none.
    """
    _, compression = resolve_format(file, "txt", origin)
    with _open_file(file, origin) as stored, _DECOMPRESSORS[compression](stored) as stream:
        yield from enumerate(_decode_lines(stream, origin), start=1)


def resolve_format(file: str, format: Format | None, origin: str) -> tuple[Format, str]:
    """How a file is read: its format, and the ending of its compression, empty for none.

    Args:
        file: a local path or an fsspec URL.
        format: as for `read_rows`.
        origin: what to call the file in messages.

    Raises:
        UserError: the ending tells no format, or a parquet file is compressed as a whole.
    """
    ending, compression = _split_endings(file)
    chosen = format or _FORMATS.get(ending)
    if chosen is None:
        endings, formats = ", ".join(_FORMATS), ", ".join(dict.fromkeys(_FORMATS.values()))
        raise UserError(
            f"{origin}: the ending '{ending}' tells no format; let the name end in one of {endings}, or add the key "
            f"format to the recipe's source, with one of {formats}"
        )
    if chosen == "parquet" and compression:
        raise UserError(f"{origin}: a parquet file compresses its own columns; decompress the {compression} around it")
    return chosen, compression


def _split_endings(file: str) -> tuple[str, str]:
    """The ending that tells the format and the one that tells the compression, each lower-cased or empty."""
    path = PurePosixPath(file.lower())
    compression = path.suffix if path.suffix in _DECOMPRESSORS else ""
    return (path.with_suffix("") if compression else path).suffix, compression


def _open_file(file: str, origin: str) -> IO[bytes]:
    try:
        return cast("IO[bytes]", fsspec.open(file, "rb").open())
    except FileNotFoundError as error:
        raise UserError(f"{origin}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{origin}: is a directory; name a file in it") from error
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{origin}: cannot be opened ({error}); check the path and the permissions") from error


def _refuse_header(row: Row, place: str) -> None:
    # `or ""`: the index that pandas writes has no name, so that its cell there is empty.
    if len(row) > 1 and all(name == (value or "") for name, value in row.items()):
        names = ", ".join(filter(None, row))
        raise UserError(f"{place}: repeats the names of the columns ({names}); delete the row")


def _split_lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a file. One without any line feed has carriage returns for line ends, if it has these."""
    for number, line in enumerate(stream):
        if number == 0 and b"\r" in line and not line.endswith(b"\n"):
            yield from line.splitlines(keepends=True)
        else:
            yield line


def _decode_lines(stream: IO[bytes], origin: str) -> Iterator[str]:
    """The lines of a UTF-8 text with their line ends; a byte order mark at the start is dropped."""
    number = 0
    try:
        for number, line in enumerate(_split_lines(stream), start=1):
            if number == 1:
                _refuse_other_contents(line, origin)
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if b"\0" in line:
                raise UserError(f"{origin}: is a binary file (NUL byte in line {number}); give UTF-8 text")
            yield line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte {error.start + 1} of the line is 0x{error.object[error.start]:02x}"
        raise UserError(f"{origin}: line {number} is not UTF-8 text ({byte}); convert the file to UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        place = f"after line {number}" if number else "from the start"
        raise UserError(f"{origin}: cannot be read {place} ({error}); check its ending or get it anew") from error


def _refuse_other_contents(first_line: bytes, origin: str) -> None:
    for first_bytes, ending in _FIRST_BYTES.items():
        if first_line.startswith(first_bytes) and not _is_text(first_line):
            raise UserError(f"{origin}: is a binary file ({ending} by its first bytes); let its name end in {ending}")


def _is_text(line: bytes) -> bool:
    # A text may start with the letters BZh or PAR1.
    try:
        return "\0" not in line.decode("utf-8")
    except UnicodeDecodeError:
        return False


def _read_txt(stream: IO[bytes], origin: str) -> Iterator[NumberedRow]:
    for number, line in enumerate(_decode_lines(stream, origin), start=1):
        if line.strip():
            yield number, {TEXT_COLUMN: line.rstrip("\r\n")}


def _read_jsonl(stream: IO[bytes], origin: str) -> Iterator[NumberedRow]:
    for number, line in enumerate(_decode_lines(stream, origin), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(
                line.rstrip("\r\n"), parse_constant=_CONSTANTS.__getitem__, object_pairs_hook=_object_of_pairs
            )
        except KeyError as error:
            raise UserError(f"{origin}: line {number} has {error.args[0]}, which is no JSON; write a number") from error
        except (ValueError, RecursionError) as error:
            problem = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise UserError(f"{origin}: line {number} is not JSON ({problem}); write one JSON object a line") from error
        if not isinstance(row, dict):
            found = f"a JSON {type(row).__name__}, not an object"
            raise UserError(f'{origin}: line {number} is {found}; write lines such as {{"text": "..."}}')
        yield number, row


_CONSTANTS = {"NaN": None}
"""What Python's JSON has beside JSON, and programs write where there is no value."""


def _object_of_pairs(pairs: list[tuple[str, Any]]) -> Row:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key '{repeated}' twice; give every value its own key")
    return row


def _read_delimited(
    stream: IO[bytes], origin: str, *, delimiters: str, quoting: Literal[0, 3]
) -> Iterator[NumberedRow]:
    csv.field_size_limit(max(_LONGEST_FIELD, csv.field_size_limit()))
    # Lines keep their ends, so that one inside quotation marks belongs to the cell.
    lines = _decode_lines(stream, origin)
    beginning = list(itertools.islice(lines, 1))
    delimiter = _choose_delimiter("".join(beginning), delimiters, origin)
    reader = csv.reader(itertools.chain(beginning, lines), delimiter=delimiter, quoting=quoting, strict=True)
    header: list[str] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{origin}: the row at line {number} is broken ({error}); check its quotation") from error
        if header and cells:
            yield number, _row_of_cells(header, cells, f"{origin}: the row at line {number}")
        elif cells:
            if quoting == csv.QUOTE_NONE and all(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in cells):
                raise UserError(
                    f"{origin}: the columns' names stand in quotation marks; set format: csv, which reads them"
                )
            header = _check_header(cells, origin)


def _row_of_cells(header: list[str], cells: list[str], place: str) -> Row:
    if len(cells) != len(header):
        raise UserError(
            f"{place} has {len(cells)} fields, the header {len(header)} ({', '.join(header)}); "
            "check the delimiter and the quotation"
        )
    return {name: cell or None for name, cell in zip(header, cells, strict=True)}


_QUOTED = re.compile('"[^"]*("|$)')


def _choose_delimiter(header: str, delimiters: str, origin: str) -> str:
    """The delimiter that the header, but for what stands in quotation marks, has most of; where several have as many,
    the first in `delimiters`."""
    chosen = max(delimiters, key=_QUOTED.sub("", header).count)
    if chosen not in header and (others := [other for other in ",;" if other in header]):
        raise UserError(
            f"{origin}: the header has no tab but '{others[0]}' ({header.strip()}); set format: csv, or separate the "
            "columns with tabs"
        )
    return chosen


def _check_header(names: list[str], origin: str) -> list[str]:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"{origin}: the header names '{repeated[0]}' twice; give every column its own name")
    return names


def _read_parquet(stream: IO[bytes], origin: str) -> Iterator[NumberedRow]:
    import pyarrow  # slow to import, and only this format needs it
    import pyarrow.parquet

    number = 0
    try:
        file = pyarrow.parquet.ParquetFile(stream)
        _check_header(file.schema_arrow.names, origin)
        for batch in file.iter_batches(batch_size=_PARQUET_BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: _plain_value(value, name, origin, number) for name, value in row.items()}
    except (pyarrow.ArrowException, OSError) as error:
        problem = one_line(error)
        raise UserError(f"{origin}: is a broken parquet file, after row {number} ({problem}); get it anew") from error


def _plain_value(value: Any, name: str, origin: str, number: int) -> Any:
    """NaN is no value, and bytes are text, inside nested columns too."""
    if isinstance(value, dict):
        return {key: _plain_value(inner, f"{name}.{key}", origin, number) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain_value(inner, name, origin, number) for inner in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{origin}, row {number}: column '{name}' holds bytes that are not UTF-8 text; write it as strings"
        ) from error


def _read_conll(stream: IO[bytes], origin: str) -> Iterator[NumberedRow]:
    sentence: list[tuple[str, str]] = []
    first, columns = 0, 0
    for number, line in enumerate(itertools.chain(_decode_lines(stream, origin), [""]), start=1):
        if not line.strip() or line.startswith("-DOCSTART-"):
            if sentence:
                words, tags = zip(*sentence, strict=True)
                yield first, {"tokens": list(words), "tags": list(tags)}
                sentence = []
            continue
        cells = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
        columns = columns or len(cells)
        if len(cells) != columns or columns < 2:
            raise UserError(
                f"{origin}: line {number} has {len(cells)} columns, and a conll file has a word and its tag, as many "
                "columns in every line; check the file"
            )
        first = first if sentence else number
        sentence.append((cells[0], cells[-1]))


def _read_squad(stream: IO[bytes], origin: str) -> Iterator[NumberedRow]:
    number = 0
    try:
        for article in json.load(stream)["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    number += 1
                    answers = asked.get("answers", [])
                    yield (
                        number,
                        {
                            "id": asked["id"],
                            "title": article.get("title"),
                            "context": paragraph["context"],
                            "question": asked["question"],
                            "answers": {key: [answer[key] for answer in answers] for key in ("text", "answer_start")},
                        },
                    )
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{origin}: is no SQuAD file, after question {number} ({one_line(error)}); write other rows one JSON "
            "object a line and let the name end in .jsonl"
        ) from error


def _open_zstandard(compressed: IO[bytes]) -> IO[bytes]:
    import pyarrow  # slow to import, and only this compression needs it

    # Unlike zstandard's own reader it notices a file that was cut short, and reads all of its frames.
    stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(compressed, mode="r"), "zstd")
    return cast("IO[bytes]", io.BufferedReader(stream))


_DECOMPRESSORS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    "": lambda stored: stored,
    ".gz": lambda compressed: cast("IO[bytes]", gzip.GzipFile(fileobj=compressed)),
    ".bz2": lambda compressed: cast("IO[bytes]", bz2.BZ2File(compressed)),
    ".zst": _open_zstandard,
}
_READERS: dict[Format, Callable[[IO[bytes], str], Iterator[NumberedRow]]] = {
    "txt": _read_txt,
    "jsonl": _read_jsonl,
    "csv": functools.partial(_read_delimited, delimiters=",;\t|", quoting=csv.QUOTE_MINIMAL),
    "tsv": functools.partial(_read_delimited, delimiters="\t", quoting=csv.QUOTE_NONE),
    "parquet": _read_parquet,
    "conll": _read_conll,
    "squad": _read_squad,
}
