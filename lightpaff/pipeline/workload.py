"""How much a training goes through, and what that costs in floating point operations."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lightpaff.data.batch_order import BatchOrder
from lightpaff.models.shapes import forward_flops_per_token, training_flops_per_token
from lightpaff.objectives.objective import Objective
from lightpaff.pipeline.budget import with_steps_over
from lightpaff.pipeline.build import TrainingStep
from lightpaff.pipeline.context import RunContext, corpus_ids, corpus_objective, task_objective
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


def workload_of(context: RunContext, training: TrainingStep) -> Workload:
    """How much a training goes through, from its budget and its prepared data."""
    data, ids = data_of(context, training)
    settings = training.training
    if training.task is not None:
        settings = with_steps_over(training.budget, settings, data)
    order = BatchOrder(data.lengths_N, ids, settings.batch_size, settings.micro_batch_tokens, 0)
    steps = count_steps(settings, data.lengths_N[ids], order.steps_per_epoch)
    epoch = float(data.lengths_N[ids].sum())
    return Workload(
        steps,
        epoch * steps / order.steps_per_epoch,
        epoch,
        round(epoch / len(ids)),
        target_share=float(data.targets_N[ids].sum()) / epoch,
    )


def data_of(context: RunContext, training: TrainingStep) -> tuple[Objective, np.ndarray]:
    """What a training learns from, and which of its examples."""
    if training.task is None:
        return corpus_objective(context, training.data), corpus_ids(context, training.data)[0]
    data = task_objective(context, training.task, training.data, "train")
    return data, np.arange(len(data.lengths_N)) if training.supervision else data.gold_ids


class Flops(NamedTuple):
    """Floating point operations of a training: its own, its teacher's at every batch, and those once for all."""

    own: float
    live: float
    once: float

    @property
    def teacher(self) -> float:
        """All of its teacher's."""
        return self.live + self.once


def captured_tokens(training: TrainingStep, workload: Workload) -> float:
    """About which a training has its teacher asked once, into a store."""
    if training.asks_teacher != "once" or training.targets is None:
        return 0.0
    return training.targets.epochs * workload.tokens_an_epoch


def flops_of(context: RunContext, training: TrainingStep, workload: Workload) -> Flops:
    """What a training costs."""
    head, classes = head_of(context, training)
    shape = {"sequence_length": workload.sequence_length, "target_share": workload.target_share}
    own = training_flops_per_token(
        config_of(context, training),
        head,
        classes,
        **shape,  # type: ignore[arg-type]
        freeze_embeddings=training.training.freeze_embeddings,
    )
    teacher = forward_flops_per_token(teacher_config_of(context, training), head, classes, **shape)  # type: ignore[arg-type]
    live = workload.tokens if training.asks_teacher == "live" else 0.0
    once = captured_tokens(training, workload)
    if training.lets_teacher_write:
        assert training.task is not None
        # At most: every beam goes through the whole model, though the source is read once.
        once += training.task.generation.beams * workload.tokens_an_epoch
    return Flops(own * workload.tokens, teacher * live, teacher * once)


def config_of(context: RunContext, training: TrainingStep) -> Any:
    """The shape of the model that a step trains."""
    return context.inputs.student_config if training.arm.is_small else context.inputs.teacher_config


def teacher_config_of(context: RunContext, training: TrainingStep) -> Any:
    """The shape of the teacher that a step may ask."""
    return context.inputs.teacher_config_of(training.task) if training.task else context.inputs.teacher_config


def head_of(context: RunContext, training: TrainingStep) -> tuple[str, int]:
    """The head that a step trains, and its classes."""
    data, _ = data_of(context, training)
    return data.head, data.number_of_classes
