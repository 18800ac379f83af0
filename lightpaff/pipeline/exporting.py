"""A trained student as other runtimes take it, and the proof that it still says the same.

An export is a step like any other; its check runs the export over the validation and test rows in its own runtime, and
writes outputs that are scored as those of every model are.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from transformers import PreTrainedConfig

from lightpaff.data.languages import tokenizer_between
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.export_answers import ExportAnswers
from lightpaff.deployment.exporters import export_model, refusal_of
from lightpaff.deployment.tokenizer_writing import write_longest_text, write_tokenizer
from lightpaff.errors import UserError
from lightpaff.evaluation.intervals import paired_difference
from lightpaff.evaluation.outputs import Outputs
from lightpaff.files import sha256_of_file, write_json_whole
from lightpaff.machine import processor_name, versions_of
from lightpaff.models.opening import read_config
from lightpaff.models.shapes import longest_input
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.table import TASK_OBJECTIVES
from lightpaff.pipeline.choosing import chosen_seed
from lightpaff.pipeline.context import ModelSource, RunContext, evaluation_splits, task_objective
from lightpaff.pipeline.data_steps import NOT_OF_THE_ROWS
from lightpaff.pipeline.graph import Step, StepFolders
from lightpaff.recipe_sections import Export, Metric, Task
from lightpaff.report.formats import percent
from lightpaff.report.metrics import METRICS
from lightpaff.runtimes import RUNTIMES, missing_packages, runtime_of

EXPORT = "export"
CHECK = "check.json"
Verdict = Literal["delivered", "undecided", "refused"]
"""What becomes of an export; an undecided one is delivered, and said to be so."""

_ROUNDING = 0.005
"""Honest float32 exports differ by 1e-6 to 1e-4 of the largest logit (tests/parity)."""
_LARGEST_LOSS = 1e9
"""JSON has no infinity."""
_LARGEST_SHIFT = 0.1
"""Of scores that are as good as the student's for whoever reads them as numbers."""


@dataclass(frozen=True)
class SplitCheck:
    """An export against its student on one split.

    Attributes:
        metric: the task's first.
        student, export: its values.
        loss: what the export loses, in per cent of the student's score; of a perplexity, how much higher it is.
        loss_low, loss_high: the 95 % interval of that, paired over the rows.
        agreement: the share of rows with the same class or the same text; None for perplexity.
        largest_difference: of a logit, or of a window's log likelihood a token in nats; None for texts.
        is_another_model: that difference is far above what float32 rounds.
        rows: of the split.
        shift: of scores, see `Comparison`.
    """

    split: str
    metric: Metric
    student: float
    export: float
    loss: float
    loss_low: float
    loss_high: float
    agreement: float | None
    largest_difference: float | None
    is_another_model: bool
    rows: int
    shift: float | None = None


def why_not(request: Export, config: PreTrainedConfig) -> str:
    """Why an export cannot be made, before anything is trained; empty where nothing speaks against it."""
    if missing := missing_packages(_packages(request)):
        return f'{missing[0]} is not installed: pip install "lightpaff[export]"'
    return refusal_of(request.to, config)


def _packages(request: Export) -> tuple[str, ...]:
    return RUNTIMES[runtime_of(request.to)].made_with


@dataclass(frozen=True)
class ExportSteps:
    """An export: the step that writes it, and the one that checks it."""

    request: Export
    exported: Step
    checked: Step

    @property
    def checks(self) -> list[SplitCheck]:
        """What the check found, the validation set first."""
        return [SplitCheck(**check) for check in json.loads((self.checked.directory / CHECK).read_text())]

    @property
    def judgement(self) -> tuple[Verdict, str]:
        """What becomes of it, and why."""
        return judge(self.checks[0], self.request.tolerance, self.request.quantise)

    @property
    def is_delivered(self) -> bool:
        """Whether it may be used: no loss above the tolerance is shown."""
        return self.judgement[0] != "refused"


def export_step(context: RunContext, task: Task, rows: Step, model: ModelSource, request: Export) -> Step:
    """Write a fine-tuned model for another runtime."""

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        destination = folders.result / EXPORT
        destination.mkdir()
        data = task_objective(context, task, rows, "train")
        card = _describe(context, task, rows, model, request, data)
        export_model(request.to, model.path, destination, request.quantise, card.decoder_start or None)
        # As the task uses it: of several languages, the source's.
        own_tokenizer = tokenizer_between(context.inputs.tokenizer, task.languages)
        card = replace(card, tokenizer=write_tokenizer(own_tokenizer, destination))
        if request.to == "transformers":
            TASK_OBJECTIVES[task.objective].describe_use(destination, data, task, context.inputs.vocabulary)
            write_longest_text(destination, task.max_length)
        card.write(destination)
        return {"bytes": sum(file.stat().st_size for file in destination.rglob("*") if file.is_file())}

    settings = {
        "request": request.model_dump(exclude={"tolerance"}),
        "start": model.identity,
        "generation": task.generation.model_dump(),
        "versions": versions_of(_packages(request)),
    }
    name = f"export the student of {task.name} to {request.name}"
    return Step(name, "export", settings, (rows, *model.inputs), context.root, work)


def check_step(
    context: RunContext,
    task: Task,
    rows: Step,
    exported: Step,
    chosen: Step,
    predictions: Mapping[int, Step],
    request: Export,
) -> Step:
    """Run an export over the validation and test rows and compare it with its student's outputs.

    Args:
        exported: see `export_step`.
        chosen: see `choose_step`.
        predictions: of all students, by their seeds.
    """
    objective = TASK_OBJECTIVES[task.objective]

    def work(step: Step, folders: StepFolders) -> dict[str, Any]:
        checks, student = [], predictions[chosen_seed(chosen)]
        for split in evaluation_splits(task):
            data = task_objective(context, task, rows, split)
            directory = exported.directory / EXPORT
            description = f"{step.name} ({split})"
            objective.answer(
                ExportAnswers(directory), data, task, context.inputs.vocabulary, folders.result / split, description
            )
            outputs = objective.read_outputs(folders.result / split, data)
            checks.append(_compare(task, split, objective.read_outputs(student.directory / split, data), outputs))
        write_json_whole(folders.result / CHECK, [asdict(check) for check in checks])
        return {"loss": checks[0].loss}

    settings = {
        # Exports run on the processor, wherever the student was trained.
        "processor": processor_name(),
        "versions": versions_of(_packages(request)),
        "task": task.model_dump(exclude=NOT_OF_THE_ROWS - {"stride", "generation", "metrics"}),
    }
    name = f"check the export to {request.name} on {task.name}"
    return Step(name, "check", settings, (rows, exported, chosen, *predictions.values()), context.root, work)


def describe_loss(check: SplitCheck) -> str:
    """How much an export loses, in words."""
    return (
        f"loses {check.loss:.2f} % [{check.loss_low:.2f}, {check.loss_high:.2f}] of the student's {check.metric} on "
        f"the {check.rows:,} {check.split} rows"
    )


def judge(check: SplitCheck, tolerance: float, quantise: str) -> tuple[Verdict, str]:
    """What becomes of an export, and why: refused where a loss above the tolerance is shown, delivered otherwise; with
    too few rows to tell, that is said. Outputs that are its model's up to rounding need no rows to be told by.

    Args:
        check: of the validation set; the test set decides nothing.
        tolerance: in per cent of the student's score.
        quantise: of the weights. In float32 an export computes what its model computes, up to rounding: another
            answer is a fault, whatever it costs.
    """
    if quantise == "none" and check.is_another_model:
        return "refused", (
            f"its outputs differ by up to {check.largest_difference:.2g} from the student's, more than float32 rounds"
        )
    if check.shift is not None and check.shift > _LARGEST_SHIFT:
        return "refused", (
            f"its scores are off by {percent(check.shift)} of their standard deviation, whatever the correlation says"
        )
    told = describe_loss(check)
    if quantise == "none" and check.largest_difference is not None:
        return "delivered", f"its outputs are the student's, up to what float32 rounds; it {told}"
    if check.loss_low > tolerance:
        return "refused", f"it {told}, more than the tolerance of {tolerance:g} %"
    if check.loss_high > tolerance:
        return (
            "undecided",
            f"it {told}: too few rows to tell whether that is above the tolerance of {tolerance:g} %",
        )
    return "delivered", f"it {told}"


def _compare(task: Task, split: str, student: Outputs, export: Outputs) -> SplitCheck:
    _require_numbers(split, student, export)
    metric = task.metric_names[0]
    before, after = student.score(metric), export.score(metric)
    sign = 1 if METRICS[metric].is_higher_better else -1
    found = paired_difference(metric, student, export)
    # A student that scores 0 has nothing to lose.
    scale = 100 * sign / abs(before) if before else 0.0
    low, high = (
        float(np.clip(end, -_LARGEST_LOSS, _LARGEST_LOSS))
        for end in sorted(scale * end if scale else 0.0 for end in (found.low, found.high))
    )
    compared = student.compare(export)
    return SplitCheck(
        split,
        metric,
        before,
        after,
        loss=scale * found.value,
        loss_low=low,
        loss_high=high,
        agreement=compared.agreement,
        largest_difference=compared.difference,
        is_another_model=(compared.difference or 0.0) > _ROUNDING * max(1.0, compared.largest),
        rows=len(student),
        shift=compared.shift,
    )


def _require_numbers(split: str, student: Outputs, export: Outputs) -> None:
    """NaN has no score, and no interval either, so that it would not be shown to lose anything."""
    is_lost_N = student.is_finite_N & ~export.is_finite_N
    if lost := int(is_lost_N.sum()):
        raise UserError(
            f"it gives no number (NaN or infinity) for {lost:,} of the {len(student):,} {split} rows, where its "
            "student does; export to another format or precision"
        )


def _describe(
    context: RunContext, task: Task, rows: Step, model: ModelSource, request: Export, data: Objective
) -> ExportCard:
    vocabulary = context.inputs.vocabulary
    return ExportCard(
        format=request.to,
        quantisation=request.quantise,
        max_length=task.max_length,
        longest_input=longest_input(read_config(model.path)),
        truncation_side=str(vocabulary.tokenizer.truncation_side),
        source_sha256=sha256_of_file(model.path / "model.safetensors"),
        made_with=versions_of(("lightpaff", *_packages(request))),
        **TASK_OBJECTIVES[task.objective].describe_export(task, rows.directory, data, vocabulary),
    )
