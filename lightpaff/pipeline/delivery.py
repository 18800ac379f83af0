"""What a user takes away from a run: the chosen student, and its exports, checked."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.model_card import usage_example, write_model_card
from lightpaff.errors import UserError
from lightpaff.files import whole_directory
from lightpaff.pipeline.build import TaskSteps
from lightpaff.pipeline.context import ModelSource, RunContext
from lightpaff.pipeline.exporting import EXPORT, ExportSteps, SplitCheck, why_not
from lightpaff.recipe import Recipe
from lightpaff.recipe_families import Family
from lightpaff.recipe_sections import Export, Task
from lightpaff.report.formats import percent
from lightpaff.report.metrics import METRICS

EXPORTS = "exports"

_ONNX, _CTRANSLATE2 = Export(to="onnx", quantise="int8"), Export(to="ctranslate2", quantise="int8")
_DEFAULTS: dict[Family, tuple[Export, ...]] = {
    "encoder": (_ONNX,),
    "decoder": (_ONNX, _CTRANSLATE2),
    "encoder-decoder": (_CTRANSLATE2,),
}
"""What a run exports to where its recipe does not say: the first that can be made, as the first are the fastest."""


@dataclass(frozen=True)
class ExportPlan:
    """Which exports a run makes, and a note on what it leaves out."""

    exports: list[Export]
    note: str = ""


def plan_exports(context: RunContext) -> ExportPlan:
    """The recipe's exports, or the family's usual one where that can be made.

    Raises:
        UserError: an export that the recipe asks for cannot be made.
    """
    config = context.inputs.student_config
    if context.recipe.exports is not None:
        for export in context.recipe.exports:
            if why := why_not(export, config):
                raise UserError(f"exports: {export.name} cannot be made ({why}); or take it out of the recipe")
        return ExportPlan(context.recipe.exports)
    notes: list[str] = []
    for usual in _DEFAULTS[context.recipe.family]:
        why = why_not(usual, config)
        if not why:
            return ExportPlan([usual], ", ".join(notes))
        notes.append(f"{usual.name} is left out ({why})")
    return ExportPlan([], ", ".join(notes))


def export_directory(run: Path, several_tasks: bool, task: str, request: Export) -> Path:
    """Where a run's export goes."""
    return run.joinpath(EXPORTS, *([task] if several_tasks else []), request.name)


def deliver_student(steps: TaskSteps, destination: Path) -> None:
    """Copy the chosen student to where it is used."""
    with whole_directory(destination, {"copied from": steps.chosen.directory.name}) as folder:
        shutil.copytree(ModelSource.of_step(steps.chosen).path, folder, dirs_exist_ok=True)


def deliver_export(export: ExportSteps, destination: Path, context: RunContext, steps: TaskSteps) -> None:
    """Copy a checked export to where it is used, with its model card."""
    step = export.exported
    with whole_directory(destination, {"copied from": step.directory.name}) as folder:
        shutil.copytree(step.directory / EXPORT, folder, dirs_exist_ok=True)
        card = ExportCard.read(folder)
        facts = {
            "name": f"{steps.task.name}: a student, {export.request.name}",
            "task": steps.task.name,
            "check": f"{export.judgement[0]}: {export.judgement[1]}",
            "made by": f"the recipe {context.recipe.name} (fingerprint {context.recipe.fingerprint()[:12]})",
        }
        write_model_card(
            folder,
            card,
            facts,
            _table(export.checks),
            usage_example(card),
            task=steps.task,
            stages=taught_stages(context.recipe, steps.task),
        )


def taught_stages(recipe: Recipe, task: Task) -> list[str]:
    """The stages in which the student hears a teacher, by its distributions or by its texts."""
    is_taught = {
        "pre-training": recipe.pretraining is not None and recipe.pretraining.distillation.weight > 0,
        "fine-tuning": recipe.fine_tuning.distillation.weight > 0 or task.sequence_distillation is not None,
    }
    return [stage for stage, taught in is_taught.items() if taught]


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
