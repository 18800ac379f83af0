"""Measurements of shapes, kept for the next search: one JSON file each, whole or absent."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lightpaff.deployment.shape_search import Timing
from lightpaff.errors import UserError
from lightpaff.files import write_json_whole
from lightpaff.recipe import fingerprint_of

VARIABLE = "LIGHTPAFF_CACHE"
"""Of the environment: where lightpaff keeps what can be made again."""


def cache_directory() -> Path:
    """`$LIGHTPAFF_CACHE`, or else `lightpaff` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightpaff"


class ShapeStore:
    """Measurements by what they depend on.

    Args:
        directory: made where it is missing.

    Raises:
        UserError: nothing can be written there.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{directory}: cannot be made ({error.strerror}); set {VARIABLE} to a folder") from error
        if not os.access(directory, os.W_OK):
            raise UserError(f"{directory}: cannot be written to; set {VARIABLE} to another folder")

    def find(self, key: dict[str, Any]) -> Timing | None:
        """What was measured under this key; None where nothing was, or its file cannot be read."""
        try:
            content = json.loads(self._path_of(key).read_text(encoding="utf-8"))
            return replace(Timing(**content["timing"]), is_kept=True)
        except (OSError, ValueError, KeyError, TypeError):
            # It can be made again.
            return None

    def keep(self, key: dict[str, Any], timing: Timing) -> None:
        """Keep a measurement, in place of an earlier one."""
        write_json_whole(self._path_of(key), {"key": key, "timing": asdict(timing)})

    def _path_of(self, key: dict[str, Any]) -> Path:
        return self._directory / f"{fingerprint_of(key)[:32]}.json"
