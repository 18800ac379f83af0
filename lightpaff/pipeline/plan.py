"""What a run will do: its steps, what they cost, and how long they may take on this machine."""

import copy
import shutil
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from lightpaff.data.batch_order import BatchOrder
from lightpaff.data.corpus import held_out
from lightpaff.data.task_data import TaskRows
from lightpaff.data.token_table import TokenTable
from lightpaff.errors import UserError
from lightpaff.models.encoder import (
    CLASSES,
    HEADS,
    MASKED_TOKENS,
    configure_head,
    quiet_transformers,
    set_dropout,
    split_model,
)
from lightpaff.models.headed import HeadedModel
from lightpaff.models.shapes import (
    ParameterCount,
    count_parameters,
    forward_flops_per_token,
    shape_of,
    training_flops_per_token,
)
from lightpaff.pipeline.build import Graph, TrainingStep
from lightpaff.pipeline.data_steps import SEQUENCES
from lightpaff.pipeline.training_steps import Workshop, read_labels
from lightpaff.progress import console
from lightpaff.targets.soft_targets import Projected
from lightpaff.training.loop import count_steps
from lightpaff.training.loss import distillation_loss

_BYTES_A_WEIGHT = 4
_STATES_IN_TRAINING = 5
"""Weights, gradients, AdamW's two moments, and the best weights so far."""
_STATES_ON_DISK = 4
"""A checkpoint holds the weights, the two moments and the best weights."""
_ACTIVATION_BYTES_A_LAYER = 34
"""Times tokens and hidden size, in 16 bits (Korthikanti et al. 2022, equation 1, without the attention matrices)."""
_PROBE_STEPS = 2
_SECONDS_ELSEWHERE = 30.0
"""For a prediction, a baseline or a measurement: an order of magnitude."""


@dataclass(frozen=True)
class Workload:
    """How much a training goes through.

    Attributes:
        steps: optimiser steps.
        tokens: real tokens over the whole training.
        sequence_length: the mean, in tokens.
        target_share: target positions a token.
    """

    steps: int
    tokens: float
    sequence_length: int
    target_share: float


@dataclass(frozen=True)
class PlannedTraining:
    """What one training step will cost."""

    training: TrainingStep
    workload: Workload
    training_flops: float
    teacher_flops: float
    memory_bytes: float
    disk_bytes: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What a run will do. `seconds` counts only what is not done yet."""

    graph: Graph
    parameters: dict[str, ParameterCount]
    trainings: list[PlannedTraining]
    seconds: float
    disk_bytes: float


def make_plan(shop: Workshop, graph: Graph, *, probe: bool = True) -> Plan:
    """Plan a run whose data steps are done; with `probe`, time a few training steps of each kind first."""
    speeds: dict[Any, float] = {}
    planned = [_plan_training(shop, training, speeds, probe) for training in graph.trainings]
    unfinished = [item for item in planned if item.training.step.state != "done"]
    others = sum(1 for step in graph.steps if step.state != "done") - len(unfinished)
    parameters = {
        "teacher": count_parameters(shop.inputs.teacher_config, MASKED_TOKENS, shop.inputs.vocabulary_size),
        "student": count_parameters(shop.inputs.student_config, MASKED_TOKENS, shop.inputs.vocabulary_size),
    }
    seconds = sum(item.seconds for item in unfinished) + others * _SECONDS_ELSEWHERE
    results = sum(_weight_bytes(shop, item.training) for item in unfinished)
    checkpoint = max((item.disk_bytes for item in unfinished), default=0.0)
    return Plan(graph, parameters, planned, seconds, results + 2 * checkpoint)


def require_disk_space(plan: Plan, shop: Workshop) -> None:
    """Refuse a run that would fill the disk.

    Raises:
        UserError: says what is needed and what is free.
    """
    free = shutil.disk_usage(shop.root).free
    if plan.disk_bytes > free:
        raise UserError(
            f"{shop.root}: the run needs about {plan.disk_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; make "
            "room or give another --output"
        )


def workload_of(shop: Workshop, training: TrainingStep) -> Workload:
    """How much a training goes through, from its budget and its prepared data."""
    settings = training.training
    if training.stage == "pre-training":
        pretraining = shop.recipe.pretraining
        assert pretraining is not None
        sequences = TokenTable(training.data.directory / SEQUENCES)
        ids, _ = held_out(sequences, pretraining.validation_fraction)
        lengths_N, target_share = sequences.lengths_N, pretraining.mask_rate
    else:
        rows = TaskRows.open(training.data.directory / "train.arrow").tokens
        lengths_N, ids = rows.lengths_N, np.arange(len(rows))
        target_share = 1 / float(lengths_N.mean())
    order = BatchOrder(lengths_N, ids, settings.batch_size, settings.micro_batch_tokens, 0)
    steps = count_steps(settings, lengths_N[ids], order.steps_per_epoch)
    mean = float(lengths_N[ids].mean())
    examples = steps / order.steps_per_epoch * len(ids)
    return Workload(steps, examples * mean, round(mean), target_share)


def flops_of(shop: Workshop, training: TrainingStep, workload: Workload) -> tuple[float, float]:
    """Floating point operations of a training, and of its teacher's answers."""
    head, classes = _head(shop, training)
    shape = {"sequence_length": workload.sequence_length, "target_share": workload.target_share}
    own = training_flops_per_token(_config(shop, training), head, classes, **shape)  # type: ignore[arg-type]
    teacher = forward_flops_per_token(shop.inputs.teacher_config, head, classes, **shape)  # type: ignore[arg-type]
    return own * workload.tokens, teacher * workload.tokens if training.has_live_teacher else 0.0


def print_plan(plan: Plan, shop: Workshop) -> None:
    """Show a plan as tables."""
    console.print(_size_table(plan))
    console.print(_step_table(plan))
    memory = max((item.memory_bytes for item in plan.trainings), default=0.0)
    console.print(
        f"{shop.hardware.device.type}, {shop.hardware.precision}; about {_duration(plan.seconds)} of work left, "
        f"{memory / 1e9:.1f} GB of memory, {plan.disk_bytes / 1e9:.1f} GB of disk in {shop.root}"
    )


def _plan_training(shop: Workshop, training: TrainingStep, speeds: dict[Any, float], probe: bool) -> PlannedTraining:
    workload = workload_of(shop, training)
    own, teacher = flops_of(shop, training, workload)
    seconds = 0.0
    if probe and training.step.state != "done":
        kind = (training.arm.is_small, training.stage, training.has_live_teacher, workload.sequence_length)
        if kind not in speeds:
            speeds[kind] = _probe_tokens_per_second(shop, training, workload)
        seconds = workload.tokens / speeds[kind]
    weights = _weight_bytes(shop, training)
    return PlannedTraining(
        training,
        workload,
        own,
        teacher,
        memory_bytes=_STATES_IN_TRAINING * weights + _activation_bytes(shop, training),
        disk_bytes=_STATES_ON_DISK * weights,
        seconds=seconds,
    )


def _probe_tokens_per_second(shop: Workshop, training: TrainingStep, workload: Workload) -> float:
    """Time a few optimiser steps on random tokens: speed does not depend on what they say."""
    head, classes = _head(shop, training)
    length = workload.sequence_length
    examples = max(1, min(training.training.batch_size, training.training.micro_batch_tokens // length))
    model = _random_model(shop, training.arm.is_small, head, classes, training.training.dropout).train()
    teacher = _random_model(shop, False, head, classes, None).eval() if training.has_live_teacher else None
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    device = shop.hardware.device
    ids_BS = torch.randint(classes if head == MASKED_TOKENS else 100, (examples, length), device=device)
    inputs = {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}
    targets = max(1, round(workload.target_share * examples * length))
    positions_P = torch.arange(targets, device=device) * (examples * length // targets)
    labels_P = torch.zeros(targets, dtype=torch.long, device=device)
    times = []
    for _ in range(1 + _PROBE_STEPS):
        started = time.monotonic()
        with shop.hardware.autocast():
            soft = None
            if teacher is not None:
                with torch.no_grad():
                    soft = Projected(teacher.features(inputs, positions_P), teacher.weight_VD, teacher.bias_V)
            features_PD = model.features(inputs, positions_P)
            losses = distillation_loss(
                features_PD, model.weight_VD, model.bias_V, labels_P, soft, 0.5 if soft is not None else 0.0
            )
        losses.total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - started)
    return examples * length / min(times[1:])


def _random_model(shop: Workshop, is_small: bool, head: str, classes: int, dropout: float | None) -> HeadedModel:
    config = copy.deepcopy(shop.inputs.student_config if is_small else shop.inputs.teacher_config)
    configure_head(config, head, classes)
    set_dropout(config, dropout)
    with quiet_transformers():
        model = HEADS[head].from_config(config, dtype=torch.float32, attn_implementation=shop.hardware.attention)
    return split_model(model.to(shop.hardware.device), head, classes)


def _config(shop: Workshop, training: TrainingStep) -> Any:
    return shop.inputs.student_config if training.arm.is_small else shop.inputs.teacher_config


def _head(shop: Workshop, training: TrainingStep) -> tuple[str, int]:
    if training.stage == "pre-training":
        return MASKED_TOKENS, shop.inputs.vocabulary_size
    return CLASSES, len(read_labels(training.data)) or 1


def _weight_bytes(shop: Workshop, training: TrainingStep) -> float:
    head, classes = _head(shop, training)
    return _BYTES_A_WEIGHT * count_parameters(_config(shop, training), head, classes).total


def _activation_bytes(shop: Workshop, training: TrainingStep) -> float:
    shape = shape_of(_config(shop, training))
    assert shape.hidden_size is not None
    bytes_a_layer = _ACTIVATION_BYTES_A_LAYER * (1 if shop.hardware.precision == "bf16" else 2)
    return training.training.micro_batch_tokens * shape.layers * shape.hidden_size * bytes_a_layer


def _size_table(plan: Plan) -> Table:
    table = Table("model", "parameters", "of them embeddings", "float32 MB", title="Models", title_justify="left")
    for name, count in plan.parameters.items():
        table.add_row(
            name,
            f"{count.total / 1e6:.1f}M",
            f"{count.embeddings / 1e6:.1f}M",
            f"{count.total * _BYTES_A_WEIGHT / 1e6:.0f}",
        )
    return table


def _step_table(plan: Plan) -> Table:
    table = Table(
        "step",
        "state",
        "optimiser steps",
        "tokens",
        "FLOPs",
        "of the teacher",
        "about",
        title="Steps",
        title_justify="left",
    )
    costs = {item.training.step.fingerprint: item for item in plan.trainings}
    for step in plan.graph.steps:
        item = costs.get(step.fingerprint)
        if item is None:
            table.add_row(step.name, step.state, "", "", "", "", "")
        else:
            load = item.workload
            flops = (f"{value:.1e}" if value else "" for value in (item.training_flops, item.teacher_flops))
            about = _duration(item.seconds) if item.seconds else ""
            table.add_row(step.name, step.state, str(load.steps), f"{load.tokens / 1e6:.2f}M", *flops, about)
    return table


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
