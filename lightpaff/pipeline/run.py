"""A run: inputs, plan, steps, report, and the student ready to use.

    RUN/run.json              what this directory is: the recipe's fingerprint, and where each step's result is
    RUN/recipe.yaml           the recipe with its defaults
    RUN/report/               index.html, report.md, report.json, report_data.json
    RUN/student/              the student; with several tasks, a folder for each
    RUN/exports/              the student for other runtimes, checked; with several tasks, a folder for each

Steps are kept beside the runs, in `steps`, so that runs share them.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lightpaff.errors import UserError
from lightpaff.files import whole_directory, write_json_whole, write_whole
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.pipeline.build import Graph, TaskSteps, build_graph
from lightpaff.pipeline.class_order import check_class_order
from lightpaff.pipeline.data_steps import read_warnings
from lightpaff.pipeline.delivery import best_student, deliver_export, export_directory, plan_exports
from lightpaff.pipeline.environment import what_decides_bits
from lightpaff.pipeline.graph import DoneStep, Step, run_step
from lightpaff.pipeline.inputs import gather_inputs
from lightpaff.pipeline.online import go_online
from lightpaff.pipeline.outcome import Finished, report_data
from lightpaff.pipeline.plan import Plan, make_plan, print_plan, require_disk_space
from lightpaff.pipeline.training_steps import Start, Workshop, task_objective
from lightpaff.progress import console
from lightpaff.recipe import Recipe
from lightpaff.report.page import write_report
from lightpaff.report.rows import ReportData
from lightpaff.training.device import choose_hardware

STEPS = "steps"
RUN = "run.json"
RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves.

    Attributes:
        directory: the run's directory.
        page: the report.
        student: a transformers directory; with several tasks, the folder that holds one for each.
        report: the report's content.
    """

    directory: Path
    page: Path
    student: Path
    report: ReportData


def run(recipe: Recipe, output: str | Path | None = None, command: str = "") -> RunResult:
    """Do everything that a recipe says, reusing what is done and resuming what was interrupted.

    Args:
        recipe: see `Recipe.load`.
        output: the run's directory; left out, `runs/NAME`.
        command: how the report says that it can be made again.

    Raises:
        UserError: for bad input or a bad machine state, in one line.
        StoppedError: after Ctrl-C; the same call goes on.
    """
    _require_one_process()
    directory = default_output(recipe, output)
    _require_free(directory, recipe)
    shop, graph, data = prepare(recipe, directory)
    exports = plan_exports(shop)
    # Only now: a recipe whose inputs were refused has taken no directory, and can be corrected.
    _claim(directory, recipe)
    plan = make_plan(shop, graph, exports)
    print_plan(plan, shop, console)
    require_disk_space(plan, shop)
    done = {**data}
    for step in graph.steps:
        if step.fingerprint not in done:
            done[step.fingerprint] = run_step(step)
    _deliver_students(shop, graph, directory)
    online = go_online(shop, graph, exports)
    command = command or f"lightpaff run {directory / RECIPE} --output {directory}"
    return _deliver(Finished(shop, graph, done, online, exports, command), directory)


def prepare(
    recipe: Recipe, directory: Path, made_with: dict[str, str] | None = None
) -> tuple[Workshop, Graph, dict[str, DoneStep]]:
    """Check a run's inputs and prepare its data; nothing is trained.

    Args:
        recipe: what to do.
        directory: the run's.
        made_with: of a finished run, what its steps were made with; left out, what there is now.
    """
    root = directory.parent / STEPS
    _make_writable(root)
    hardware = choose_hardware(recipe)
    shop = Workshop(recipe, gather_inputs(recipe, root), hardware, root, made_with or what_decides_bits())
    graph = build_graph(shop)
    done = {step.fingerprint: run_step(step) for step in graph.data}
    for steps in graph.tasks:
        for warning in read_warnings(steps.rows):
            console.print(f"Warning: {steps.task.name}: {warning}", style="yellow")
        if steps.task.name in shop.inputs.task_teachers:
            check_class_order(shop, steps, Start.of_fetched(shop.inputs.task_teachers[steps.task.name]))
    return shop, graph, done


def plan_run(recipe: Recipe, output: str | Path | None = None) -> tuple[Plan, Workshop]:
    """Plan a run: fetches and prepares the data, probes the speed, trains nothing."""
    shop, graph, _ = prepare(recipe, default_output(recipe, output))
    return make_plan(shop, graph, plan_exports(shop)), shop


def default_output(recipe: Recipe, output: str | Path | None) -> Path:
    """Where a run goes."""
    return Path(output) if output is not None else Path("runs") / recipe.name


def _require_one_process() -> None:
    # Ranks that share a step's lock would wait for each other for ever.
    if (ranks := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        raise UserError(
            f"WORLD_SIZE is {ranks}: a run is one process so far (the training loop itself takes ranks); start it "
            "without torchrun or accelerate launch"
        )


def _require_free(directory: Path, recipe: Recipe) -> None:
    """Make sure that a run's directory is this recipe's, or nobody's.

    Raises:
        UserError: when it belongs to another recipe, or is something else.
    """
    if _is_taken(directory):
        _require_same_recipe(directory, recipe.model_dump(mode="json"))
    if directory.exists():
        _make_writable(directory)


def _is_taken(directory: Path) -> bool:
    if directory.exists() and not directory.is_dir():
        return True
    # Hidden files are what a killed process leaves.
    return directory.is_dir() and any(not path.name.startswith(".") for path in directory.iterdir())


def _claim(directory: Path, recipe: Recipe) -> None:
    """Make the run's directory this recipe's, and free it of what a killed process left."""
    _make_writable(directory)
    for leftover in (*directory.rglob(".*.part"), *directory.rglob(".*.old")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    content = recipe.model_dump(mode="json")
    # First, because without it the directory is no run.
    if not (directory / RUN).exists():
        write_json_whole(directory / RUN, {"recipe_fingerprint": recipe.fingerprint(), "recipe": content})
    write_whole(directory / RECIPE, yaml.safe_dump(content, sort_keys=False))


def _require_same_recipe(directory: Path, content: dict[str, Any]) -> None:
    remedy = "give another --output, or delete it"
    try:
        recorded = json.loads((directory / RUN).read_text())["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory}: is not empty and holds no readable {RUN}, so it is no run; {remedy}") from error
    # Which exports are made changes nothing that was trained.
    changed = _differences({**recorded, "exports": None}, {**content, "exports": None})
    if changed:
        raise UserError(f"{directory}: holds a run of another recipe ({'; '.join(changed[:3])}); {remedy}")


def _differences(old: Any, new: Any, key: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for name in sorted({*old, *new})
            for line in _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        ]
    return [] if old == new else [f"{key}: {old!r} there, {new!r} now"]


def _make_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".write-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); give another --output") from error


def _deliver_students(shop: Workshop, graph: Graph, directory: Path) -> None:
    for steps in graph.tasks:
        _, student = best_student(shop, steps)
        target = directory / "student" if len(graph.tasks) == 1 else directory / "student" / steps.task.name
        with whole_directory(target, {"copied from": str(student.path)}) as folder:
            shutil.copytree(student.path, folder, dirs_exist_ok=True)
            data = task_objective(shop, steps.task, steps.rows, "validation")
            objective = TASK_OBJECTIVES[steps.task.objective]
            objective.describe_use(folder, data, steps.task, shop.inputs.vocabulary)


def _deliver(finished: Finished, directory: Path) -> RunResult:
    shop, graph = finished.shop, finished.graph
    _deliver_exports(finished, directory)
    data = report_data(finished)
    write_report(data, directory / "report")
    write_json_whole(
        directory / RUN,
        {
            "recipe_fingerprint": shop.recipe.fingerprint(),
            "recipe": shop.recipe.model_dump(mode="json"),
            "made with": shop.made_with,
            "steps": {step.name: step.directory.name for step in (*graph.steps, *_last_steps(finished))},
            "roles": [role for steps in graph.tasks for role in _roles(steps, shop.root)],
        },
    )
    page = directory / "report" / "index.html"
    console.print(f"Done: {page}")
    return RunResult(directory, page, directory / "student", data)


def _deliver_exports(finished: Finished, directory: Path) -> None:
    several = len(finished.online) > 1
    for task in finished.online:
        for export in task.exports:
            destination = export_directory(directory, several, task.steps.task.name, export.request)
            if export.is_delivered:
                deliver_export(export, destination, finished.shop, task.steps)


def _roles(steps: TaskSteps, root: Path) -> list[dict[str, Any]]:
    """Where a task's prepared rows and fine-tuned models are: folders under the steps, or of ready-made models."""
    task = steps.task.name
    rows = {"kind": "rows", "task": task, "folder": steps.rows.directory.name}
    return [
        rows,
        *(
            {
                "kind": "model",
                "task": task,
                "arm": arm,
                "seed": seed,
                "folder": str(start.path.relative_to(root) if start.step else start.path.resolve()),
            }
            for (arm, seed), start in steps.models.items()
        ),
    ]


def _last_steps(finished: Finished) -> list[Step]:
    return [done.step for task in finished.online for done in task.done]
