"""How much a training goes through, and what that costs in floating point operations."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lightpaff.data.batch_order import BatchOrder
from lightpaff.data.corpus import held_out
from lightpaff.data.task_data import TaskRows
from lightpaff.data.token_table import TokenTable
from lightpaff.models.encoder import CLASSES, MASKED_TOKENS
from lightpaff.models.shapes import forward_flops_per_token, training_flops_per_token
from lightpaff.pipeline.arms import CONTROL
from lightpaff.pipeline.build import TrainingStep
from lightpaff.pipeline.data_steps import SEQUENCES
from lightpaff.pipeline.training_steps import Workshop, read_labels, with_steps_of_student
from lightpaff.recipe import Training
from lightpaff.training.loop import count_steps


@dataclass(frozen=True)
class Workload:
    """How much a training goes through.

    Attributes:
        steps: optimiser steps.
        tokens: real tokens over the whole training.
        tokens_an_epoch: of the data, each example once.
        sequence_length: the mean, in tokens.
        target_share: target positions a token.
    """

    steps: int
    tokens: float
    tokens_an_epoch: float
    sequence_length: int
    target_share: float


def workload_of(shop: Workshop, training: TrainingStep) -> Workload:
    """How much a training goes through, from its budget and its prepared data."""
    if training.stage == "pre-training":
        pretraining = shop.recipe.pretraining
        assert pretraining is not None
        sequences = TokenTable(training.data.directory / SEQUENCES)
        ids, _ = held_out(sequences, pretraining.validation_fraction)
        return _workload(training.training, sequences.lengths_N, ids, pretraining.mask_rate)
    rows = TaskRows.open(training.data.directory / "train.arrow")
    lengths_N, every_id = rows.tokens.lengths_N, np.arange(len(rows.tokens))
    ids = every_id if training.uses_unlabelled else np.flatnonzero(~np.isnan(rows.labels_N))
    settings = training.training
    if training.arm == CONTROL:
        settings = with_steps_of_student(settings, lengths_N)
    return _workload(settings, lengths_N, ids, 1 / float(lengths_N[ids].mean()))


def _workload(settings: Training, lengths_N: np.ndarray, ids: np.ndarray, target_share: float) -> Workload:
    order = BatchOrder(lengths_N, ids, settings.batch_size, settings.micro_batch_tokens, 0)
    steps = count_steps(settings, lengths_N[ids], order.steps_per_epoch)
    epoch = float(lengths_N[ids].sum())
    return Workload(steps, epoch * steps / order.steps_per_epoch, epoch, round(epoch / len(ids)), target_share)


def flops_of(shop: Workshop, training: TrainingStep, workload: Workload) -> tuple[float, float]:
    """Floating point operations of a training, and of its teacher's answers."""
    head, classes = head_of(shop, training)
    shape = {"sequence_length": workload.sequence_length, "target_share": workload.target_share}
    own = training_flops_per_token(config_of(shop, training), head, classes, **shape)  # type: ignore[arg-type]
    teacher_config = shop.inputs.teacher_config_of(training.task) if training.task else shop.inputs.teacher_config
    teacher = forward_flops_per_token(teacher_config, head, classes, **shape)  # type: ignore[arg-type]
    asked = {"live": workload.tokens, "once": workload.tokens_an_epoch, "never": 0.0}[training.asks_teacher]
    return own * workload.tokens, teacher * asked


def config_of(shop: Workshop, training: TrainingStep) -> Any:
    """The shape of the model that a step trains."""
    return shop.inputs.student_config if training.arm.is_small else shop.inputs.teacher_config


def head_of(shop: Workshop, training: TrainingStep) -> tuple[str, int]:
    """The head that a step trains, and its classes."""
    if training.stage == "pre-training":
        return MASKED_TOKENS, shop.inputs.vocabulary_size
    return CLASSES, len(read_labels(training.data)) or 1
