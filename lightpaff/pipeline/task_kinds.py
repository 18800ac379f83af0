"""What differs between tasks once their batches are made: how models are validated, evaluated and timed.

A literal table over the objectives of the recipe; nothing else in the pipeline asks which objective a task has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from transformers import PreTrainedModel

from lightpaff.evaluation.outputs import Outputs
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.pipeline import classification, language_modelling, sequence_to_sequence
from lightpaff.recipe import Task
from lightpaff.training.device import Hardware


class Validate(Protocol):
    """Evaluates a model on the validation set while it is trained; `score`, higher is better, chooses the best."""

    def __call__(
        self, data: Objective, task: Task, tokens_at_once: int, hardware: Hardware, model: HeadedModel
    ) -> dict[str, float]:
        """The values to record, with `score` among them."""
        ...


class PredictExport(Protocol):
    """Writes an export's outputs for a split into a folder, as `Predict` writes a model's."""

    def __call__(
        self, directory: Path, data: Objective, task: Task, vocabulary: Vocabulary, path: Path, description: str
    ) -> None:
        """`directory` is the export's; `path` is the file without its ending."""
        ...


class Predict(Protocol):
    """Writes a model's outputs for a split into a folder."""

    def __call__(
        self,
        model: HeadedModel,
        data: Objective,
        task: Task,
        vocabulary: Vocabulary,
        hardware: Hardware,
        path: Path,
        description: str,
    ) -> None:
        """`path` is the file without its ending."""
        ...


@dataclass(frozen=True)
class TaskKind:
    """How one objective's models are validated, evaluated and timed.

    Attributes:
        soft_targets: the teacher is asked `once` for every training row, or `live` at every batch, where its answers
            (targets x vocabulary) are too many to keep.
        for_validation: the task as the loop validates it: cheaper, where evaluation costs much.
        validate: chooses the best checkpoint.
        predict: writes outputs.
        predict_export: the same of an export, in its own runtime.
        read_outputs: reads them again, with the gold ones.
        describe_timing: what one measurement of the latency is.
        timing_inputs: `count` inputs drawn from the data, for one measurement; `turn` numbers the draws.
        answer_tokens: how many tokens an answer has; at most, where the model may end sooner.
        run: what is timed.
        describe_use: writes into a delivered model's directory how it is meant to be used.
        notes: what the report says beside the scores.
        counted: what scores and intervals are over.
        has_baseline: TF-IDF with a linear model can do the task.
    """

    soft_targets: Literal["once", "live"]
    for_validation: Callable[[Task], Task]
    validate: Validate
    predict: Predict
    predict_export: PredictExport
    read_outputs: Callable[[Path, Objective], Outputs]
    describe_timing: Callable[[Task], str]
    timing_inputs: Callable[[Objective, int, int, torch.device], dict[str, torch.Tensor]]
    answer_tokens: Callable[[Task], int]
    run: Callable[[PreTrainedModel, Objective, Task, Vocabulary, dict[str, torch.Tensor]], object]
    describe_use: Callable[[Path, Objective, Task, Vocabulary], None]
    notes: Callable[[Task, Outputs], dict[str, str]]
    counted: str
    has_baseline: bool = False


def _as_it_is(task: Task) -> Task:
    return task


def _nothing_to_say(directory: Path, data: Objective, task: Task, vocabulary: Vocabulary) -> None:
    pass


def _no_notes(task: Task, outputs: Outputs) -> dict[str, str]:
    return {}


def draw_timed_rows(task: Task, data: Objective, count: int, turn: int) -> tuple[tuple[int, ...], ...]:
    """Token ids of `count` inputs drawn from the data, as they are timed; `turn` numbers the draws."""
    inputs = TASK_KINDS[task.objective].timing_inputs(data, count, turn, torch.device("cpu"))
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    return tuple(tuple(ids[:length]) for ids, length in zip(inputs["input_ids"].tolist(), lengths, strict=True))


_CLASSES: dict[str, Any] = {
    "soft_targets": "once",
    "for_validation": _as_it_is,
    "validate": classification.validate,
    "predict": classification.predict_logits,
    "predict_export": classification.predict_export,
    "read_outputs": classification.read_outputs,
    "describe_timing": lambda task: "one row at a time",
    "timing_inputs": classification.timing_inputs,
    "answer_tokens": classification.answer_tokens,
    "run": classification.run,
    "describe_use": _nothing_to_say,
    "notes": _no_notes,
    "counted": "rows",
    "has_baseline": True,
}

TASK_KINDS: dict[str, TaskKind] = {
    "classify": TaskKind(**_CLASSES),
    "regress": TaskKind(**_CLASSES),
    "clm": TaskKind(
        soft_targets="live",
        for_validation=language_modelling.without_overlap,
        validate=language_modelling.validate,
        predict=language_modelling.predict_likelihoods,
        predict_export=language_modelling.predict_export,
        read_outputs=language_modelling.read_outputs,
        describe_timing=language_modelling.describe_timing,
        timing_inputs=language_modelling.timing_inputs,
        answer_tokens=language_modelling.answer_tokens,
        run=language_modelling.run,
        describe_use=_nothing_to_say,
        notes=language_modelling.notes,
        counted="windows",
    ),
    "translate": TaskKind(
        soft_targets="live",
        for_validation=_as_it_is,
        validate=sequence_to_sequence.validate,
        predict=sequence_to_sequence.predict_texts,
        predict_export=sequence_to_sequence.predict_export,
        read_outputs=sequence_to_sequence.read_outputs,
        describe_timing=sequence_to_sequence.describe_timing,
        timing_inputs=sequence_to_sequence.timing_inputs,
        answer_tokens=sequence_to_sequence.answer_tokens,
        run=sequence_to_sequence.run,
        describe_use=sequence_to_sequence.write_generation_settings,
        notes=sequence_to_sequence.notes,
        counted="rows",
    ),
}
