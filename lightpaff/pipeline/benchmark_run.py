"""`lightpaff benchmark`: runs, models and exports beside each other, each in its own runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from rich.console import Console

from lightpaff.deployment.benchmark_table import render_rich
from lightpaff.deployment.card import CARD
from lightpaff.deployment.contenders import find_contenders
from lightpaff.deployment.measuring import Measurement, MeasureSettings, count_parts, measure
from lightpaff.errors import UserError
from lightpaff.machine import count_cores
from lightpaff.models.opening import read_config
from lightpaff.models.vocabulary import load_tokenizer, number_of_classes
from lightpaff.objectives.table import TASK_OBJECTIVES, draw_timed_rows
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.pipeline.context import evaluation_splits
from lightpaff.pipeline.delivery import EXPORTS
from lightpaff.pipeline.run import RECIPE, RUN, read_run, steps_beside
from lightpaff.progress import console as progress_console
from lightpaff.progress import progress_bar
from lightpaff.recipe import Recipe

LENGTHS = (32, 128, 512)
"""In tokens, where nobody says otherwise."""
LENGTHS_BESIDE_OWN = (32, 128)
"""The same, where a run's own inputs say more than a third length would."""

_CONFIG = "config.json"
_OWN_ROWS = 1000


@dataclass(frozen=True)
class Benchmark:
    """What was measured, one number of threads after the other, and a note for everything that was left out."""

    measurements: list[Measurement]
    notes: list[str]


@dataclass(frozen=True)
class _Run:
    """One task of a finished run: where its models and its prepared rows are."""

    directory: Path
    task: str
    models: dict[str, Path]
    rows: Path


def run_benchmark(
    paths: list[str],
    settings: MeasureSettings,
    *,
    threads: Sequence[int],
    task: str | None,
    lengths: Sequence[int] | None = None,
    own: bool | None = None,
) -> Benchmark:
    """Measure everything that is found in the given places, in turn, and again for every number of threads.

    Args:
        paths: directories of runs (teacher, student and exports), of models and of exports; NAME=DIRECTORY names one.
        settings: what is measured, but for lengths and task rows.
        threads: for each model; 0 is all cores.
        task: of runs with several tasks.
        lengths: in tokens; None is `LENGTHS_BESIDE_OWN` or `LENGTHS`.
        own: whether to measure the first run's own inputs (its test set's, else its validation set's) too; None: where
            there is a run and no lengths are given.

    Raises:
        UserError: a directory holds nothing that can be measured, or the models do different work.
    """
    directories: dict[str, Path] = {}
    runs = []
    for path in paths:
        found = _open(path, task)
        if isinstance(found, _Run):
            runs.append(found)
        for name, directory in (found.models if isinstance(found, _Run) else found).items():
            directories[name if name not in directories else f"{name} of {path}"] = directory
    if own and not runs:
        raise UserError("--own: none of the paths is a run, so there is no task whose inputs could be measured")
    measures_own = bool(runs) and lengths is None if own is None else own
    settings = replace(
        settings,
        lengths=tuple(lengths or (LENGTHS_BESIDE_OWN if measures_own else LENGTHS)),
        task_rows=_draw_own_rows(runs[0], settings.seed) if measures_own else (),
    )
    return _measure_each(directories, settings, threads)


def print_benchmark(benchmark: Benchmark, console: Console) -> None:
    """Show what was measured: one table for each number of threads."""
    for _, rows in groupby(benchmark.measurements, key=lambda row: row.threads):
        console.print(render_rich(list(rows)))
    for note in benchmark.notes:
        console.print(note)


def _measure_each(directories: Mapping[str, Path], settings: MeasureSettings, threads: Sequence[int]) -> Benchmark:
    measurements = []
    notes: list[str] = []
    for count in dict.fromkeys(number or count_cores() for number in threads):
        contenders, notes = find_contenders(directories, threads=count)
        names = ", ".join(contender.name for contender in contenders)
        with_threads = f"{count} {'thread' if count == 1 else 'threads'}"
        progress_console.print(f"Measuring {names} in turn, with {with_threads}")
        parts = count_parts(contenders, settings)
        with progress_bar(f"measure with {with_threads}", parts, "parts") as advance:
            measurements += measure(contenders, settings, advance)
    return Benchmark(measurements, notes)


def _open(path: str, task: str | None) -> _Run | dict[str, Path]:
    """A run, or one model by its name."""
    name, separator, rest = path.partition("=")
    directory = Path(rest if separator else path)
    if (directory / RUN).is_file():
        return _open_run(directory, task)
    if (directory / CARD).is_file() or (directory / _CONFIG).is_file():
        return {name if separator else directory.name: directory}
    raise UserError(
        f"{directory}: holds no {RUN}, {CARD} or {_CONFIG}; give the directory of a run, an export or a model"
    )


def _open_run(run: Path, task: str | None) -> _Run:
    content = read_run(run)
    if "steps" in content and "roles" not in content:
        raise UserError(
            f"{run}: was written by an older lightpaff; lightpaff run {run / RECIPE} --output {run} renews it"
        )
    if "steps" not in content:
        raise UserError(f"{run}: is not finished; go on with lightpaff run {run / RECIPE} --output {run}")
    tasks = [entry["name"] for entry in content["recipe"]["tasks"]]
    if task not in tasks and (task is not None or len(tasks) > 1):
        found = "is missing" if task is None else f"is {task}"
        raise UserError(f"--task {found}: the run has {', '.join(tasks)}; name one of them")
    chosen = task or tasks[0]
    roles = [role for role in content["roles"] if role["task"] == chosen]
    # Of a ready-made model the folder is absolute.
    folders = {(role["kind"], role.get("arm")): steps_beside(run) / role["folder"] for role in roles}
    parts = [] if len(tasks) == 1 else [chosen]
    return _Run(
        directory=run,
        task=chosen,
        models=_models_of_run(run, folders["model", "teacher"], parts),
        rows=folders["rows", None],
    )


def _models_of_run(run: Path, teacher: Path, parts: list[str]) -> dict[str, Path]:
    """The fine-tuned teacher, the delivered student and the exports of a run's task."""
    found = {"teacher": teacher, "student": run.joinpath("student", *parts)}
    exports = run.joinpath(EXPORTS, *parts)
    if exports.is_dir():
        found |= {folder.name: folder for folder in sorted(exports.iterdir()) if (folder / CARD).is_file()}
    return found


def _draw_own_rows(run: _Run, seed: int) -> tuple[tuple[int, ...], ...]:
    """Token ids of what the task's models are asked: rows drawn from the split that the run reports."""
    recipe = Recipe.load(run.directory / RECIPE)
    task = next(task for task in recipe.tasks if task.name == run.task)
    student = run.models["student"]
    tokenizer, config = load_tokenizer(student, recipe.family), read_config(student)
    vocabulary = Vocabulary(
        tokenizer,
        number_of_classes(tokenizer, config),
        decoder_start_id=getattr(config, "decoder_start_token_id", None),
    )
    data = TASK_OBJECTIVES[task.objective].open_split(task, run.rows, evaluation_splits(task)[-1], vocabulary)
    return draw_timed_rows(task, data, _OWN_ROWS, seed)
