"""`lightpaff export`: the student of a finished run for another runtime, checked before it is delivered."""

import math
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from lightpaff.deployment.card import CARD
from lightpaff.errors import UserError
from lightpaff.pipeline.build import LAST, Graph, TaskSteps
from lightpaff.pipeline.context import RunContext
from lightpaff.pipeline.delivery import deliver_export, export_directory
from lightpaff.pipeline.exporting import SplitCheck, judge, why_not
from lightpaff.pipeline.graph import run_step
from lightpaff.pipeline.run import RECIPE, RUN, only_run_in, open_context, prepare, read_run
from lightpaff.recipe import Recipe
from lightpaff.recipe_families import FAMILIES
from lightpaff.recipe_sections import Export
from lightpaff.report.formats import percent
from lightpaff.report.metrics import METRICS


@dataclass(frozen=True)
class Exported:
    """An export that passed its check.

    Attributes:
        directory: self-contained.
        checks: what the export says beside what the student says, the validation set first.
        judgement: whether that was enough to tell.
    """

    directory: Path
    checks: list[SplitCheck]
    judgement: str


def make_export_request(to: str, quantise: str, tolerance: float) -> Export:
    """What the command line asks for.

    Raises:
        UserError: the format does not come in this precision.
    """
    try:
        return Export.model_validate({"to": to, "quantise": quantise, "tolerance": tolerance})
    except ValidationError as error:
        problem = error.errors()[0]
        option = "--tolerance" if "tolerance" in problem["loc"] else f"--quantise {quantise}"
        raise UserError(f"{option}: {problem['msg'].removeprefix('Value error, ')}") from error


def export_student(run: Path, request: Export, *, task: str | None, output: Path | None) -> Exported:
    """Export the delivered student of a run.

    Args:
        run: the directory of a finished run.
        request: the format, the precision, and what it may lose.
        task: whose student; may be left out where the run has one task.
        output: where the export goes; left out, `exports/FORMAT` in the run's directory.

    Raises:
        UserError: the run is not finished, the format is not for the task, or the export loses too much.
    """
    if output is not None:
        output = output.resolve()
        _require_free(output)
    context, graph = _open_run(run, request)
    steps = _find_task(graph, task)
    [export] = steps.exports
    for step in (steps.chosen, export.exported, export.checked):
        run_step(step)
    if not export.is_delivered:
        is_tolerable = judge(export.checks[0], math.inf, request.quantise)[0] != "refused"
        raise UserError(
            f"{request.name} of {steps.task.name} is refused: {export.judgement[1]}; take another --quantise or --to"
            f"{', or raise --tolerance' if is_tolerable else ''}"
        )
    destination = output or export_directory(run, len(graph.tasks) > 1, steps.task.name, request)
    with only_run_in(run):
        deliver_export(export, destination, context, steps)
    return Exported(destination, export.checks, ": ".join(export.judgement))


def _require_free(output: Path) -> None:
    # It would be replaced.
    if output.exists() and not (output / CARD).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise UserError(f"--output {output}: is there already and holds no export; give another place")


def _require_possible(context: RunContext, request: Export) -> None:
    known = FAMILIES[context.recipe.family].exports
    if request.to not in known:
        raise UserError(
            f"--to {request.to}: does not take the family {context.recipe.family}; take {' or '.join(known)}"
        )
    if why := why_not(request, context.inputs.student_config):
        raise UserError(f"--to {request.to}: cannot be made ({why})")


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
    console.print(exported.judgement)
    console.print(str(exported.directory), soft_wrap=True)


def _open_run(run: Path, request: Export) -> tuple[RunContext, Graph]:
    if not (run / RUN).is_file() or not (run / RECIPE).is_file():
        raise UserError(f"{run}: holds no {RUN}, so it is no run; give the directory that lightpaff run wrote")
    # Another number of threads, or a newer torch, does not undo what was trained.
    written = read_run(run)
    made_with = written.get("made with")
    context = open_context(Recipe.load(run / RECIPE), run, made_with)
    _require_possible(context, request)
    graph, _ = prepare(context, [request])
    unfinished = [step.name for step in graph.steps if step.kind not in LAST and step.state != "done"]
    again = f"lightpaff run {run / RECIPE} --output {run}"
    if unfinished and "steps" in written:
        raise UserError(
            f"{run}: another version of lightpaff made it, its data changed, or steps were deleted ({len(unfinished)} "
            f"are to be done anew, first: {unfinished[0]}); {again} does so, or take that version"
        )
    if unfinished:
        raise UserError(
            f"{run}: is not finished ({len(unfinished)} steps to do, first: {unfinished[0]}); {again} goes on with it"
        )
    return context, graph


def _find_task(graph: Graph, name: str | None) -> TaskSteps:
    known = {steps.task.name: steps for steps in graph.tasks}
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name not in known:
        found = "is missing" if name is None else f"is {name}"
        raise UserError(f"--task {found}: the run has {', '.join(known)}; name one of them")
    return known[name]
