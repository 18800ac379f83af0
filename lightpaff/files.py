"""Files and directories that are either whole or absent, and manifests that prove it.

Everything lightpaff keeps is written under a temporary name, flushed to the disk and renamed, so that a kill at any
moment leaves the old content or the new one, never a part. (A directory that takes another's place is away for the
moment between two renames.)
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lightpaff.errors import UserError
from lightpaff.progress import console

MANIFEST = "manifest.json"
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The numbers of the errors that more room would mend."""

_HASH_BLOCK_BYTES = 1 << 20
# safetensors, tokenizers and shutil.copytree raise errors of their own, with the system's number in their text.
_ERROR_NUMBER = re.compile(r"(?:os error|\[Errno) (\d+)")


@contextlib.contextmanager
def alone_with(path: Path, waiting: str | None = None) -> Iterator[None]:
    """No other process of this machine is inside for the same lock file, whose folder is made; where one is,
    `waiting` is said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        if waiting is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                console.print(waiting)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a name to write to; that file takes the name `path` only when the block ends well.

    A file already at `path` is replaced at that moment; when the block raises, it stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with _named_when_full(path):
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush(path.parent)


def write_whole(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader sees all of it or what was there before."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json_whole(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole (see `write_whole`); NaN is refused, since JSON has none."""
    write_whole(path, json.dumps(content, indent=2, sort_keys=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def whole_directory(path: Path, facts: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yield an empty directory that takes the name `path`, with a manifest, only when the block ends well.

    A directory already at `path` is replaced at that moment; when the block raises, it stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    temporary.mkdir()
    try:
        with _named_when_full(path):
            yield temporary
            write_manifest(temporary, facts or {})
            _flush_tree(temporary)
            _replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_manifest(directory: Path, facts: dict[str, Any]) -> None:
    """Record `facts` with the size and sha256 of every file under `directory`."""
    files = {
        str(path.relative_to(directory)): {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path != directory / MANIFEST
    }
    write_json_whole(directory / MANIFEST, {"facts": facts, "files": files})


def read_manifest(directory: Path) -> dict[str, Any]:
    """Check every file of `directory` against its manifest and return the manifest's facts.

    Raises:
        UserError: when the manifest is missing or unreadable, or a file is missing or differs.
    """
    path = directory / MANIFEST
    remedy = f"delete {directory} and run again to make it anew"
    try:
        manifest = json.loads(path.read_text())
        recorded, facts = manifest["files"], manifest["facts"]
    except FileNotFoundError as error:
        raise UserError(f"{directory}: has no {MANIFEST}, so it is incomplete; {remedy}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is not a manifest ({error}); {remedy}") from error
    for name, expected in recorded.items():
        file = directory / name
        if not file.is_file():
            raise UserError(f"{file}: is missing though the manifest names it; {remedy}")
        if file.stat().st_size != expected["bytes"] or sha256_of_file(file) != expected["sha256"]:
            raise UserError(f"{file}: does not match its manifest (sha256 or size differs); {remedy}")
    return dict(facts)


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal: read once in a process, unless the file changes."""
    facts = os.stat(path)
    # Within a clock's tick a file could change again unseen.
    read = _read_sha256 if time.time_ns() - facts.st_mtime_ns > 2e9 else _read_sha256.__wrapped__
    return read(path, facts.st_size, facts.st_mtime_ns, facts.st_ino)


@cache
def _read_sha256(path: Path, size: int, changed_ns: int, number: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _named_when_full(path: Path) -> Iterator[None]:
    """Let an error of a full disk be an OSError that names `path`; the outermost name, which people know, wins."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (found := _ERROR_NUMBER.search(str(error))):
            number = int(found[1])
        if number not in FULL_DISK:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _replace_directory(new: Path, path: Path) -> None:
    # A directory cannot be renamed over a full one: step the old one aside first.
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    if path.exists():
        os.replace(path, aside)
    os.replace(new, path)
    _flush(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _flush_tree(directory: Path) -> None:
    for path in (*directory.rglob("*"), directory):
        _flush(path)


def _flush(path: Path) -> None:
    """Have a file's content, or a directory's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_disk_error(error: OSError) -> str | None:
    """A line for the person at the terminal about what a disk cannot do; None where it is something else."""
    if error.errno in FULL_DISK:
        return f"{error.filename or 'disk'}: {error.strerror}; make room, then run again: what is done is kept"
    if error.errno == errno.ENAMETOOLONG:
        return f"{error.filename}: {error.strerror}; give a shorter one"
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{error.filename}: there is a file where a directory has to be; give another --output"
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{error.filename}: {error.strerror}; give another --output or change its permissions"
    return None
