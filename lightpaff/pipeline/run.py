"""A run: inputs, plan, steps, report, and the student ready to use.

    RUN/run.json              what this directory is: the recipe's fingerprint, and where each step's result is
    RUN/recipe.yaml           the recipe with its defaults
    RUN/report/               index.html, report.md, report.json, report_data.json
    RUN/student/              the student; with several tasks, a folder for each
    RUN/exports/              the student for other runtimes, checked; with several tasks, a folder for each

Steps are kept beside the runs, in `steps`, so that runs share them.
"""

import contextlib
import json
import shutil
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from lightpaff import ranks
from lightpaff.errors import UserError
from lightpaff.files import alone_with, write_json_whole, write_whole
from lightpaff.pipeline.build import Graph, TaskSteps, build_graph, data_steps
from lightpaff.pipeline.choosing import chosen_seed
from lightpaff.pipeline.context import ModelSource, RunContext
from lightpaff.pipeline.data_steps import read_warnings
from lightpaff.pipeline.delivery import deliver_export, deliver_student, export_directory, plan_exports
from lightpaff.pipeline.environment import what_decides_bits
from lightpaff.pipeline.exporting import Verdict
from lightpaff.pipeline.graph import DoneStep, run_step_with_ranks, share_out
from lightpaff.pipeline.inputs import gather_inputs
from lightpaff.pipeline.outcome import Finished, report_data
from lightpaff.pipeline.plan import Plan, make_plan, print_plan, require_disk_space
from lightpaff.pipeline.ready_teacher import check_ready_teacher
from lightpaff.progress import console
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import Export
from lightpaff.report.page import write_report
from lightpaff.report.rows import ReportData
from lightpaff.training.device import choose_hardware

STEPS = "steps"
RUN = "run.json"
RECIPE = "recipe.yaml"
MAY_FAIL = ("export", "check", "online")
"""The kinds of steps that a run can do without."""
_BECOMES: dict[Verdict, str] = {
    "delivered": "delivered",
    "undecided": "delivered, undecided",
    "refused": "reported, and not delivered",
}


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


def run(recipe: Recipe, output: str | Path | None = None, command: str = "") -> RunResult | None:
    """Do everything that a recipe says, reusing what is done and resuming what was interrupted.

    With several ranks (torchrun, accelerate launch), all call it; but for the first, the result is None.

    Args:
        recipe: see `Recipe.load`.
        output: the run's directory; left out, `runs/NAME`.
        command: how the report says that it can be made again.

    Raises:
        UserError: for bad input or a bad machine state, in one line.
        StoppedError: after Ctrl-C; the same call goes on.
    """
    directory = default_output(recipe, output)
    ranks.join(choose_hardware(recipe).device.type)
    console.quiet = not ranks.is_first()
    with ranks.first_before_others():
        _require_free(directory, recipe)
        context = open_context(recipe, directory)
    exports = plan_exports(context)
    graph, done = prepare(context, exports.exports)
    with only_run_in(directory) if ranks.is_first() else contextlib.nullcontext():
        if ranks.is_first():
            # Only now: a recipe whose inputs were refused has taken no directory, and can be corrected.
            _claim(directory, recipe)
            plan = make_plan(context, graph, exports)
            print_plan(plan, context, console)
            require_disk_space(plan, context)
        graph, failures = _do_steps(context, graph, exports.exports, done)
        if not ranks.is_first():
            return None
        command = command or f"lightpaff run {directory / RECIPE} --output {directory}"
        return _deliver(Finished(context, graph, done, exports, failures, command), directory)


def open_context(recipe: Recipe, directory: Path, made_with: dict[str, str] | None = None) -> RunContext:
    """Fetch and check a run's inputs.

    Args:
        recipe: what to do.
        directory: the run's.
        made_with: of a finished run, what its steps were made with; left out, what there is now.
    """
    root = steps_beside(directory)
    _make_writable(root)
    hardware = choose_hardware(recipe)
    return RunContext(recipe, gather_inputs(recipe, root), hardware, root, made_with or what_decides_bits())


def prepare(context: RunContext, exports: list[Export]) -> tuple[Graph, dict[str, DoneStep]]:
    """Prepare a run's data and lay it out; nothing is trained. What is done comes by its fingerprint."""
    tokenizer, (corpus, tasks) = context.inputs.trained_tokenizer, data_steps(context)
    rows = [step for data in tasks for step in data.steps]
    done = {tokenizer.step.fingerprint: tokenizer} if tokenizer else {}
    done |= {step.fingerprint: run_step_with_ranks(step) for step in (*([corpus] if corpus else []), *rows)}
    graph = build_graph(context, exports)
    for steps in graph.tasks:
        for warning in read_warnings(steps.rows):
            console.print(f"Warning: {steps.task.name}: {warning}", style="yellow")
        if steps.task.name in context.inputs.task_teachers:
            check_ready_teacher(context, steps, ModelSource.of_fetched(context.inputs.task_teachers[steps.task.name]))
    return graph, done


def plan_run(recipe: Recipe, output: str | Path | None = None) -> tuple[Plan, RunContext]:
    """Plan a run: fetches and prepares the data, probes the speed, trains nothing."""
    context = open_context(recipe, default_output(recipe, output))
    exports = plan_exports(context)
    return make_plan(context, prepare(context, exports.exports)[0], exports), context


def _do_steps(
    context: RunContext, graph: Graph, exports: list[Export], done: dict[str, DoneStep]
) -> tuple[Graph, list[str]]:
    """Do what is not in `done`, and put it there: the graph of all that could be done, and why the rest could not.

    An export that fails is left out, with its check: a trained student is worth its report all the same.
    """
    failures: dict[str, str] = {}
    while to_do := [step for step in graph.steps if step.fingerprint not in done]:
        step = to_do[0]
        # Predictions need nothing of each other.
        share_out(list(takewhile(lambda one: one.kind == "predict", to_do)))
        try:
            done[step.fingerprint] = run_step_with_ranks(step)
        except UserError as error:
            if step.kind not in MAY_FAIL:
                raise
            failures[step.name] = f"{step.name} failed: {error}"
            console.print(failures[step.name])
            graph = build_graph(context, exports, failures)
    for steps in graph.tasks:
        for export in steps.exports:
            verdict, why = export.judgement
            console.print(f"{export.request.name} of {steps.task.name} is {_BECOMES[verdict]}: {why}")
    return graph, list(failures.values())


def default_output(recipe: Recipe, output: str | Path | None) -> Path:
    """Where a run goes.

    Raises:
        UserError: where steps are.
    """
    directory = Path(output) if output is not None else Path("runs") / recipe.name
    steps_beside(directory)
    return directory


def steps_beside(directory: Path) -> Path:
    """The folder of the steps that a run's directory shares with those beside it.

    Raises:
        UserError: the directory is such a folder.
    """
    # "." and ".." do not say what they are beside.
    named = directory if directory.name not in ("", "..") else directory.resolve()
    if named.name == STEPS:
        raise UserError(f"{directory}: '{STEPS}' is the name of the folder that runs share; give another --output")
    return named.parent / STEPS


def only_run_in(directory: Path) -> AbstractContextManager[None]:
    """Nothing else writes into a run's directory meanwhile: what is half-written there is of a process that is gone."""
    lock = steps_beside(directory) / f".{directory.resolve().name}.run.lock"
    return alone_with(lock, f"{directory}: another process is at work there; waiting for it")


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
    """Make the run's directory this recipe's, and free it of what a killed process left.

    Raises:
        UserError: it has become another recipe's.
    """
    _require_free(directory, recipe)
    _make_writable(directory)
    for leftover in (*directory.rglob(".*.part"), *directory.rglob(".*.old")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            # Gone already where it was in a leftover folder.
            leftover.unlink(missing_ok=True)
    content = recipe.model_dump(mode="json")
    # First, because without it the directory is no run.
    if not (directory / RUN).exists():
        write_json_whole(directory / RUN, {"recipe_fingerprint": recipe.fingerprint(), "recipe": content})
    write_whole(directory / RECIPE, yaml.safe_dump(content, sort_keys=False))


def read_run(directory: Path, remedy: str = "give the directory that lightpaff run wrote") -> dict[str, Any]:
    """What a run's directory says that it is.

    Raises:
        UserError: it says nothing of the kind.
    """
    try:
        content: dict[str, Any] = json.loads((directory / RUN).read_text())
        content["recipe"]
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory}: is not empty and holds no readable {RUN}, so it is no run; {remedy}") from error


def _require_same_recipe(directory: Path, content: dict[str, Any]) -> None:
    remedy = "give another --output, or delete it"
    recorded = read_run(directory, remedy)["recipe"]
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
        # It has no name that another process could take away.
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); give another --output") from error


def _deliver(finished: Finished, directory: Path) -> RunResult:
    context, graph = finished.context, finished.graph
    _deliver_models(finished, directory)
    data = report_data(finished)
    write_report(data, directory / "report")
    write_json_whole(
        directory / RUN,
        {
            "recipe_fingerprint": context.recipe.fingerprint(),
            "recipe": context.recipe.model_dump(mode="json"),
            "made with": context.made_with,
            "steps": {step.name: step.directory.name for step in graph.steps},
            "roles": [role for steps in graph.tasks for role in _roles(steps, context.root)],
        },
    )
    page = directory / "report" / "index.html"
    console.print(f"Done: {page}")
    return RunResult(directory, page, directory / "student", data)


def _deliver_models(finished: Finished, directory: Path) -> None:
    tasks = finished.graph.tasks
    for steps in tasks:
        deliver_student(steps, directory / "student" if len(tasks) == 1 else directory / "student" / steps.task.name)
        delivered = {export.request.name: export for export in steps.exports if export.is_delivered}
        for request in finished.exports.exports:
            destination = export_directory(directory, len(tasks) > 1, steps.task.name, request)
            if request.name in delivered:
                deliver_export(delivered[request.name], destination, finished.context, steps)
            else:
                # What lies there was delivered by an earlier version, or with another tolerance.
                shutil.rmtree(destination, ignore_errors=True)


def _roles(steps: TaskSteps, root: Path) -> list[dict[str, Any]]:
    """Where a task's prepared rows, fine-tuned models and exports are: folders under the steps, or of ready-made
    models."""
    task = steps.task.name
    return [
        {"kind": "rows", "task": task, "folder": steps.rows.directory.name},
        {"kind": "choice", "task": task, "seed": chosen_seed(steps.chosen), "folder": steps.chosen.directory.name},
        *(
            {"kind": "export", "task": task, "export": one.request.name, "folder": one.exported.directory.name}
            for one in steps.exports
        ),
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
