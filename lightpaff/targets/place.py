"""Where a store lies: a local directory, or any URL that fsspec knows, of which there is a local copy."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fsspec

from lightpaff.errors import UserError
from lightpaff.files import alone_with, whole_file, write_whole

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class Place:
    """Files under a directory or URL, by names relative to it; each is whole or absent.

    Args:
        url: a local directory or an fsspec URL (`s3://bucket/store`).
        cache: a local directory for copies of what is remote.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self.url = url if url.endswith("://") else url.rstrip("/")
        self._is_local = "://" not in self.url
        self._root = Path(self.url) if self._is_local else cache / hashlib.sha256(self.url.encode()).hexdigest()[:20]

    def __str__(self) -> str:
        return self.url

    def find(self) -> set[str]:
        """The names of all files."""
        if self._is_local:
            return {str(path.relative_to(self._root)) for path in self._root.rglob("*") if path.is_file()}
        system, root = self._system()
        return {str(path)[len(root) :].lstrip("/") for path in system.find(root)}

    def fetch(self, name: str, *, anew: bool = False) -> Path:
        """A local file with the content of `name`.

        Raises:
            FileNotFoundError: there is none.
            UserError: the URL cannot be read.
        """
        path = self._root / name
        if self._is_local or (path.exists() and not anew):
            return path
        system, root = self._system()
        try:
            with whole_file(path) as temporary:
                system.get_file(f"{root}/{name}", str(temporary))
        except FileNotFoundError:
            raise
        except Exception as error:  # every file system of fsspec raises its own
            raise UserError(
                f"{self.url}/{name}: cannot be read ({error}); check the address and your access"
            ) from error
        return path

    def write(self, name: str, content: bytes) -> None:
        """Make `content` the file `name`.

        Raises:
            UserError: the URL cannot be written.
        """
        path = self._root / name
        write_whole(path, content)
        if self._is_local:
            return
        system, root = self._system()
        try:
            system.makedirs(os.path.dirname(f"{root}/{name}"), exist_ok=True)
            system.put_file(str(path), f"{root}/{name}.part")
            system.mv(f"{root}/{name}.part", f"{root}/{name}")
        except Exception as error:  # every file system of fsspec raises its own
            raise UserError(f"{self.url}/{name}: cannot be written ({error}); check your access") from error

    @contextmanager
    def alone(self, what: str = "") -> Iterator[None]:
        """No other process of this machine is inside for the same place, and the same `what`; where nothing may be
        written, there is nothing to wait for."""
        with ExitStack() as stack:
            try:
                stack.enter_context(alone_with(self._root.with_name(f".{self._root.name}{what}.lock")))
            except OSError as error:
                if error.errno not in _READ_ONLY:
                    raise
            yield

    def _system(self) -> tuple[fsspec.AbstractFileSystem, str]:
        try:
            system, root = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise UserError(f"{self.url}: {error}; install what it names, or give a local directory") from error
        return system, str(root).rstrip("/")
