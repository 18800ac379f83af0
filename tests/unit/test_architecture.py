"""The rules of the house that an import can break."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "lightpaff"
FOUNDATIONS = {
    "errors",
    "files",
    "memory",
    "ranks",
    "recipe",
    "recipe_families",
    "recipe_sections",
    "recipe_sources",
    "recipe_training",
    "recipe_file",
    "runtimes",
    "machine",
    "progress",
}
"""What any room may stand on; they import no room."""

ROOMS = [
    "data",
    "models",
    "evaluation",
    "objectives",
    "targets",
    "training",
    "report",
    "deployment",
    "pipeline",
    "study",
    "start",
    "serving",
    "cli",
]
"""In the order in which data walks through them: a room imports only rooms before it."""

LIGHT = {
    "report": {"torch", "transformers"},
    "data": {"torch"},
    "recipe": {"torch", "transformers"},
    "recipe_families": {"torch", "transformers"},
    "recipe_file": {"torch", "transformers"},
    "recipe_sections": {"torch", "transformers"},
    "recipe_sources": {"torch", "transformers"},
    "recipe_training": {"torch", "transformers"},
    "runtimes": {"torch", "transformers"},
    "machine": {"torch", "transformers"},
}
"""What a room's source does not name, not even inside a function."""

QUICK = ["lightpaff", "lightpaff.cli", "lightpaff.recipe", "lightpaff.report.page"]
"""Imported without torch and transformers, so that the command line answers at once."""


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{name.name}" for name in node.names)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def files_of(room: str) -> list[Path]:
    return [file for file in sorted(PACKAGE.rglob("*.py")) if room_of(file) == room]


def rooms_imported_by(room: str) -> set[str]:
    names = {name for file in files_of(room) for name in imports_of(file)}
    return {name.split(".")[1] for name in names if name.startswith("lightpaff.")} - {room}


def test_every_room_is_in_the_list() -> None:
    found = {room_of(file) for file in PACKAGE.rglob("*.py")}
    assert found == {*ROOMS, *FOUNDATIONS, "__init__", "__main__"}


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_earlier_rooms_only(room: str) -> None:
    earlier = set(ROOMS[: ROOMS.index(room)])
    assert rooms_imported_by(room) <= earlier | FOUNDATIONS


@pytest.mark.parametrize("file", sorted(FOUNDATIONS))
def test_foundations_import_no_room(file: str) -> None:
    assert rooms_imported_by(file) <= FOUNDATIONS


@pytest.mark.parametrize("room", sorted(LIGHT))
def test_light_rooms_name_no_heavy_library(room: str) -> None:
    libraries = {name.split(".")[0] for file in files_of(room) for name in imports_of(file)}
    assert not libraries & LIGHT[room]


def test_no_two_files_need_each_other() -> None:
    """Not even by imports inside functions."""
    files = {".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}
    needed = {name: {*imports_of(file)} & files.keys() - {name} for name, file in files.items()}
    assert list(TopologicalSorter(needed).static_order())


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: file.name)
def test_no_file_is_long(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 500


def test_nothing_imports_the_tests_or_another_private_name() -> None:
    for file in PACKAGE.rglob("*.py"):
        for name in imports_of(file):
            assert not name.startswith("tests")
            private = [part for part in name.split(".") if part.startswith("_") and not part.startswith("__")]
            assert not (name.startswith("lightpaff.") and private), f"{file} imports {name}"


@pytest.mark.parametrize("module", QUICK)
def test_quick_modules_load_no_heavy_library(module: str) -> None:
    code = (
        f"import sys, {module}; print(sorted({{'torch', 'transformers', 'accelerate', 'datasets'}} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
