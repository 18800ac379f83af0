"""`lightpaff export`: the student of a finished run for another runtime, checked before it is delivered."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.model_card import usage_example, write_model_card
from lightpaff.errors import UserError
from lightpaff.files import whole_directory
from lightpaff.pipeline.arms import STUDENT
from lightpaff.pipeline.build import Graph, TaskSteps
from lightpaff.pipeline.exporting import (
    EXPORT,
    Request,
    SplitCheck,
    check_step,
    export_step,
    read_checks,
    require_within,
)
from lightpaff.pipeline.graph import Step, run_step
from lightpaff.pipeline.outcome import best_student
from lightpaff.pipeline.run import RECIPE, RUN, prepare
from lightpaff.pipeline.training_steps import Workshop
from lightpaff.recipe import Recipe
from lightpaff.report.formats import percent
from lightpaff.report.metrics import METRICS

EXPORTS = "exports"


@dataclass(frozen=True)
class Exported:
    """An export that passed its check.

    Attributes:
        directory: self-contained.
        checks: what the export says beside what the student says, the validation set first.
    """

    directory: Path
    checks: list[SplitCheck]


def export_student(run: Path, request: Request, *, task: str | None, tolerance: float, output: Path | None) -> Exported:
    """Export the delivered student of a run.

    Args:
        run: the directory of a finished run.
        request: the format and the precision.
        task: whose student; may be left out where the run has one task.
        tolerance: how many points of the task's metric (per cent of a perplexity) the export may lose on the
            validation set.
        output: where the export goes; left out, `exports/FORMAT` in the run's directory.

    Raises:
        UserError: the run is not finished, the format is not for the task, or the export loses too much.
    """
    shop, graph = _open_run(run)
    steps = _find_task(graph, task)
    exported, checked = make_export(shop, steps, request)
    checks = read_checks(checked)
    require_within(checks[0], tolerance, f"{request.name} of {steps.task.name}")
    folder = Path(request.name) if len(graph.tasks) == 1 else Path(steps.task.name) / request.name
    destination = output or run / EXPORTS / folder
    deliver_export(exported, checks, destination, shop, steps)
    return Exported(destination, checks)


def make_export(shop: Workshop, steps: TaskSteps, request: Request) -> tuple[Step, Step]:
    """Export the best student of a task and run the check; both steps are done then."""
    seed, student = best_student(shop, steps)
    exported = export_step(shop, steps.task, steps.rows, student, request)
    run_step(exported)
    checked = check_step(shop, steps.task, steps.rows, exported, steps.predictions[STUDENT, seed], request)
    run_step(checked)
    return exported, checked


def deliver_export(
    exported: Step, checks: list[SplitCheck], destination: Path, shop: Workshop, steps: TaskSteps
) -> None:
    """Copy a checked export to where it is used, with its model card."""
    with whole_directory(destination, {"copied from": exported.directory.name}) as folder:
        shutil.copytree(exported.directory / EXPORT, folder, dirs_exist_ok=True)
        card = ExportCard.read(folder)
        facts = {
            "name": f"{steps.task.name}: a student, {exported.name.rpartition(' ')[2]}",
            "task": steps.task.name,
            "made by": f"the recipe {shop.recipe.name} (fingerprint {shop.recipe.fingerprint()[:12]})",
        }
        write_model_card(folder, card, facts, _table(checks), usage_example(card))


def print_export(exported: Exported, console: Console) -> None:
    """Show what the check found."""
    table = Table("split", "rows", "metric", "student", "export", "same answers", "largest difference")
    for check in exported.checks:
        shown = METRICS[check.metric]
        table.add_row(
            check.split,
            f"{check.rows:,}",
            shown.name,
            shown.write(check.student),
            shown.write(check.export),
            "" if check.agreement is None else percent(check.agreement),
            "" if check.largest_difference is None else f"{check.largest_difference:.2g}",
        )
    console.print(table)
    console.print(str(exported.directory), soft_wrap=True)


def _open_run(run: Path) -> tuple[Workshop, Graph]:
    if not (run / RUN).is_file() or not (run / RECIPE).is_file():
        raise UserError(f"{run}: holds no {RUN}, so it is no run; give the directory that lightpaff run wrote")
    shop, graph, _ = prepare(Recipe.load(run / RECIPE), run)
    unfinished = [step.name for step in graph.steps if step.state != "done"]
    if unfinished:
        raise UserError(
            f"{run}: is not finished ({len(unfinished)} steps to do, first: {unfinished[0]}); "
            f"lightpaff run {run / RECIPE} --output {run} goes on with it"
        )
    return shop, graph


def _find_task(graph: Graph, name: str | None) -> TaskSteps:
    known = {steps.task.name: steps for steps in graph.tasks}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        found = "is missing" if name is None else f"is {name}"
        raise UserError(f"--task {found}: the run has {', '.join(known)}; name one of them")
    return known[name]


def _table(checks: list[SplitCheck]) -> str:
    lines = ["| split | rows | metric | student | this export | same answers |", "|---|---|---|---|---|---|"]
    for check in checks:
        shown = METRICS[check.metric]
        same = "" if check.agreement is None else percent(check.agreement)
        lines.append(
            f"| {check.split} | {check.rows:,} | {shown.name} | {shown.write(check.student)} | "
            f"{shown.write(check.export)} | {same} |"
        )
    return "\n".join(lines)
