"""Bad runs beside a good one: whatever goes wrong, the good one stays as it is."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def list_files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of change of every file but the locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: ((status := path.stat()).st_size, status.st_mtime_ns) for path in files}


@pytest.fixture
def runs(finished_run: Any) -> Iterator[Path]:
    """The folder with the finished run and its steps: when the test ends, what was in it is still there, and nothing
    half-written has been added."""
    folder = finished_run.folder / "runs"
    before = list_files(folder)
    yield folder
    after = list_files(folder)
    changed = [str(path) for path, facts in before.items() if after.get(path) != facts]
    assert not changed
    assert not [*folder.rglob("*.part"), *folder.rglob("*.old")]
    added = {path.parent for path in after.keys() - before.keys() if path.parent.parent == folder / "steps"}
    assert all((directory / "manifest.json").exists() for directory in added if not directory.name.startswith("."))
    assert all((directory / "run.json").exists() for directory in folder.iterdir() if directory.name != "steps")


@pytest.fixture
def expect_refusal(runs: Path, run_cli: Callable[..., Any]) -> Callable[..., str]:
    """Run a recipe that must be refused with one line that holds all the fragments; return the line."""

    def run_and_check(recipe: Path, *fragments: str, output: Path | None = None, options: tuple[str, ...] = ()) -> str:
        shutil.rmtree(runs / "refused", ignore_errors=True)
        outcome = run_cli("run", recipe, "--output", output or runs / "refused", *options)
        message: str = outcome.message
        assert outcome.code == 2
        for fragment in fragments:
            assert fragment in message, f"'{fragment}' is not in: {message}"
        assert output is not None or not (runs / "refused").exists()
        return message

    return run_and_check
