"""How teacher, student and exports answer online: each in a process of its own, in turn, on the task's own inputs."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from lightpaff.deployment.contenders import Contender, find_contenders
from lightpaff.deployment.measuring import PROCESSES, Measurement, MeasureSettings, count_parts, measure
from lightpaff.errors import UserError
from lightpaff.files import write_json_whole
from lightpaff.machine import busy_share, processor_name, versions_of
from lightpaff.objectives.table import TASK_OBJECTIVES, draw_timed_rows
from lightpaff.pipeline.context import ModelSource, RunContext, evaluation_splits, task_objective
from lightpaff.pipeline.exporting import EXPORT
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.progress import console, progress_bar
from lightpaff.recipe_sections import Task
from lightpaff.runtimes import packages_of_runtimes

ONLINE = "online.json"
_SECONDS = 12.0
_BATCH_SIZES = (1, 32)
_INPUTS_DRAWN = 512


def online_step(
    context: RunContext, task: Task, rows: Step, models: Mapping[str, ModelSource], exports: Mapping[str, Step]
) -> Step:
    """Measure models in PyTorch, in float32, and exports in their runtimes, on the processor, by name.

    The first model is what the ratios are against.
    """
    threads = torch.get_num_threads()

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        settings = _settings(context, task, rows)
        with tempfile.TemporaryDirectory(dir=folders.checkpoints) as folder:
            ready = {
                name: _make_ready(context, task, rows, start, Path(folder) / name) for name, start in models.items()
            }
            exported = {name: step.directory / EXPORT for name, step in exports.items()}
            contenders, notes = find_contenders(ready | exported, threads=threads)
            for note in notes:
                console.print(note)
            before = busy_share()
            measurements = _measure(contenders, settings, step.name)
        if unmeasured := models.keys() - {measurement.contender for measurement in measurements}:
            raise UserError(
                f"the {min(unmeasured)}'s positions end before what it is to read and write; take a model with more"
            )
        write_json_whole(folders.result / ONLINE, [asdict(measurement) for measurement in measurements])
        return {"threads": threads, "busy": round(max(before, busy_share()), 2)}

    settings = {
        "processor": processor_name(),
        "threads": threads,
        "versions": versions_of(packages_of_runtimes()),
        "models": {name: start.identity for name, start in models.items()},
        "exports": list(exports),
        "generation": task.generation.model_dump(),
    }
    inputs = (rows, *(needed for start in models.values() for needed in start.inputs), *exports.values())
    return Step(f"measure the exports on {task.name}", "online", settings, inputs, context.root, work)


def read_online(step: Step) -> list[Measurement]:
    """What `online_step` measured."""
    return [Measurement(**row) for row in json.loads((step.directory / ONLINE).read_text())]


def _settings(context: RunContext, task: Task, rows: Step) -> MeasureSettings:
    objective = TASK_OBJECTIVES[task.objective]
    data = task_objective(context, task, rows, evaluation_splits(task)[-1])
    return MeasureSettings(
        batch_sizes=_BATCH_SIZES,
        lengths=(),
        task_rows=draw_timed_rows(task, data, _INPUTS_DRAWN, 0),
        new_tokens=objective.answer_tokens(task),
        beams=task.generation.beams,
        length_penalty=task.generation.length_penalty,
        seconds=_SECONDS,
        processes=PROCESSES,
    )


def _measure(contenders: list[Contender], settings: MeasureSettings, description: str) -> list[Measurement]:
    parts = count_parts(contenders, settings)
    if not parts:
        # A decoder whose positions end before what it is asked to write.
        return []
    with progress_bar(description, parts, "parts") as advance:
        return measure(contenders, settings, advance)


def _make_ready(context: RunContext, task: Task, rows: Step, start: ModelSource, folder: Path) -> Path:
    """A model's directory that also says how the model writes, as a delivered one does."""
    folder.mkdir()
    for file in start.path.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    data = task_objective(context, task, rows, evaluation_splits(task)[-1])
    # A link to the file that came with the model would be written through.
    (folder / "generation_config.json").unlink(missing_ok=True)
    TASK_OBJECTIVES[task.objective].describe_use(folder, data, task, context.inputs.vocabulary)
    return folder
