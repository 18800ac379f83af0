"""`lightpaff benchmark`: runs, models and exports beside each other, each in its own runtime."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from lightpaff.deployment.benchmark_table import render_rich
from lightpaff.deployment.card import CARD
from lightpaff.deployment.contenders import find_contenders
from lightpaff.deployment.measuring import Measurement, MeasureSettings, list_cells, measure
from lightpaff.errors import UserError
from lightpaff.pipeline.export_run import EXPORTS
from lightpaff.pipeline.run import RUN, STEPS
from lightpaff.progress import console as progress_console
from lightpaff.progress import progress_bar

_MODEL = "model"
_CONFIG = "config.json"


@dataclass(frozen=True)
class Benchmark:
    """What was measured, and a note for everything that was left out."""

    measurements: list[Measurement]
    notes: list[str]


def run_benchmark(paths: list[str], settings: MeasureSettings, *, threads: int, task: str | None) -> Benchmark:
    """Measure everything that is found in the given places, in turn.

    Args:
        paths: directories of runs (teacher, student and exports), of models and of exports; NAME=DIRECTORY names one.
        settings: what is measured.
        threads: for each; 0 is all cores.
        task: of runs with several tasks.

    Raises:
        UserError: a directory holds nothing that can be measured, or the models do different work.
    """
    directories: dict[str, Path] = {}
    for path in paths:
        for name, directory in _find_models(path, task).items():
            directories[name if name not in directories else f"{name} of {path}"] = directory
    contenders, notes = find_contenders(directories, threads=threads)
    progress_console.print(f"Measuring {', '.join(contender.name for contender in contenders)} in turn")
    with progress_bar("measure", len(list_cells(contenders, settings)), "cells") as advance:
        return Benchmark(measure(contenders, settings, advance), notes)


def print_benchmark(benchmark: Benchmark, console: Console) -> None:
    """Show what was measured."""
    console.print(render_rich(benchmark.measurements))
    for note in benchmark.notes:
        console.print(note)


def _find_models(path: str, task: str | None) -> dict[str, Path]:
    name, separator, rest = path.partition("=")
    directory = Path(rest if separator else path)
    if (directory / RUN).is_file():
        return _models_of_run(directory, task)
    if (directory / CARD).is_file() or (directory / _CONFIG).is_file():
        return {name if separator else directory.name: directory}
    raise UserError(
        f"{directory}: holds no {RUN}, {CARD} or {_CONFIG}; give the directory of a run, an export or a model"
    )


def _models_of_run(run: Path, task: str | None) -> dict[str, Path]:
    """The fine-tuned teacher, the delivered student and the exports of a run's task."""
    content = json.loads((run / RUN).read_text())
    if "steps" not in content:
        raise UserError(f"{run}: is not finished; go on with lightpaff run {run / 'recipe.yaml'} --output {run}")
    tasks = [entry["name"] for entry in content["recipe"]["tasks"]]
    if task is None and len(tasks) > 1:
        raise UserError(f"--task is missing: the run has {', '.join(tasks)}; name one of them")
    chosen = task or tasks[0]
    if chosen not in tasks:
        raise UserError(f"--task is {chosen}: the run has {', '.join(tasks)}; name one of them")
    parts = [] if len(tasks) == 1 else [chosen]
    found = {}
    beginning = f"fine-tune the teacher on {chosen}, seed "
    for name, folder in content["steps"].items():
        if name.startswith(beginning):
            found["teacher"] = run.parent / STEPS / folder / _MODEL
    found["student"] = run.joinpath("student", *parts)
    exports = run.joinpath(EXPORTS, *parts)
    if exports.is_dir():
        found |= {folder.name: folder for folder in sorted(exports.iterdir()) if (folder / CARD).is_file()}
    return found
