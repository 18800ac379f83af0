"""How fast this machine trains, from a few optimiser steps on the run's own data: speed does not depend on weights."""

import time
from typing import Any

import numpy as np
import torch

from lightpaff.data.batch_order import BatchOrder
from lightpaff.models.headed import HeadedModel
from lightpaff.models.initialisation import create_student
from lightpaff.models.opening import split_model
from lightpaff.objectives.objective import Objective
from lightpaff.pipeline.build import TrainingStep
from lightpaff.pipeline.context import RunContext
from lightpaff.pipeline.workload import config_of, data_of, teacher_config_of
from lightpaff.recipe_training import Distillation
from lightpaff.targets.capture import encoded
from lightpaff.targets.encodings import Encoding
from lightpaff.targets.teacher import LiveTeacher, NoTeacher, Teacher
from lightpaff.training.optimiser import create_optimiser, freeze
from lightpaff.training.optimiser_step import LossModule

_STEPS = 2


def measure_tokens_per_second(context: RunContext, training: TrainingStep) -> float:
    """Train random models of the planned shapes for a moment, after one step to warm up; the best step counts."""
    settings = training.training
    data, examples = _some_examples(context, training)
    batch = data.batch(examples, draw=0).to(context.hardware.device)
    model = _random_model(context, training, config_of(context, training))
    teacher: Teacher = NoTeacher()
    if training.asks_teacher == "live":
        teacher = LiveTeacher(_random_teacher(context, training), context.hardware.precision)
    freeze(model.model, settings)
    module = LossModule(model, gold_scale=1.0).train()
    optimiser = create_optimiser(module, settings)
    distillation = Distillation(weight=0.5 if training.asks_teacher == "live" else 0.0)
    times = []
    for _ in range(1 + _STEPS):
        started = time.monotonic()
        with context.hardware.autocast():
            losses = module(batch, teacher.targets(batch), distillation)
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if context.hardware.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - started)
    return float(data.lengths_N[examples].sum()) / min(times[1:])


def measure_asking(context: RunContext, training: TrainingStep, encoding: Encoding) -> float:
    """Tokens a second of which a random teacher's soft targets can be captured; the best of a few batches counts."""
    data, examples = _some_examples(context, training)
    batch = data.batch(examples, draw=0).to(context.hardware.device)
    teacher = LiveTeacher(_random_teacher(context, training), context.hardware.precision)
    times = []
    for _ in range(1 + _STEPS):
        started = time.monotonic()
        with context.hardware.autocast(), torch.no_grad():
            for kept in encoded(teacher.targets(batch), encoding, len(batch.positions_P)):
                kept.popitem()[1].cpu()
        times.append(time.monotonic() - started)
    return float(data.lengths_N[examples].sum()) / min(times[1:])


def _some_examples(context: RunContext, training: TrainingStep) -> tuple[Objective, np.ndarray]:
    """Some that go through the model together; with a gold target each, since others' may still be unwritten."""
    data, ids = data_of(context, training)
    settings = training.training
    labelled = np.intersect1d(ids, data.gold_ids)
    order = BatchOrder(data.lengths_N, labelled, settings.batch_size, settings.micro_batch_tokens, 0)
    return data, order.micro_batches(0)[1][0]


def _random_teacher(context: RunContext, training: TrainingStep) -> HeadedModel:
    return _random_model(context, training, teacher_config_of(context, training))


def _random_model(context: RunContext, training: TrainingStep, config: Any) -> HeadedModel:
    data, _ = data_of(context, training)
    model = create_student(
        config,
        data.head,
        data.number_of_classes,
        initialisation="random",
        teacher_path=None,
        seed=0,
        attention=context.hardware.attention,
        dropout=training.training.dropout,
    )
    return split_model(model.to(context.hardware.device), data.head, data.number_of_classes)
