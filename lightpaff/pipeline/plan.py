"""What a run will do: its steps, what they cost, and how long they may take on this machine."""

import shutil
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from lightpaff.errors import UserError
from lightpaff.machine import busy_share, describe_busyness
from lightpaff.memory import highest_resident_bytes
from lightpaff.models.shapes import ParameterCount, count_parameters, shape_of
from lightpaff.pipeline.build import Graph, TrainingStep
from lightpaff.pipeline.context import RunContext
from lightpaff.pipeline.delivery import ExportPlan
from lightpaff.pipeline.graph import Step
from lightpaff.pipeline.probe import measure_asking, measure_tokens_per_second
from lightpaff.pipeline.workload import (
    Workload,
    captured_tokens,
    config_of,
    flops_of,
    head_of,
    teacher_config_of,
    workload_of,
)
from lightpaff.report.formats import rough_duration
from lightpaff.targets.encodings import Encoding

_BYTES_A_WEIGHT = 4
_IN_TRAINING = (2, 3)
"""All weights as they are and as they were best; of those that are trained, gradients and AdamW's two moments."""
_WHILE_SAVING = (1, 2)
"""A copy of the weights, and the moments as bytes: in the memory of the CPU."""
_ON_DISK = (2, 2)
"""What a checkpoint holds: all but the gradients."""
_SECONDS_ELSEWHERE = 30.0
"""For a prediction, a baseline or a measurement: an order of magnitude."""


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
    """What a run will do. `left` has the seconds of each step that is not done yet, by its fingerprint; `busyness` says
    if others slowed the timing. `memory_bytes` are the GPU's, or on a CPU what the process will hold."""

    graph: Graph
    exports: ExportPlan
    parameters: dict[str, ParameterCount]
    trainings: list[PlannedTraining]
    left: dict[str, float]
    memory_bytes: float
    disk_bytes: float
    busyness: str = ""

    @property
    def seconds(self) -> float:
        """Of all that is not done yet."""
        return sum(self.left.values())


def make_plan(context: RunContext, graph: Graph, exports: ExportPlan, speeds: dict[Any, float] | None = None) -> Plan:
    """Plan a run whose data steps are done; a few training steps of each kind are timed first.

    Args:
        context: the run's.
        graph: its steps.
        exports: those planned.
        speeds: what was timed of the same models before; what is timed now joins it.
    """
    speeds = {} if speeds is None else speeds
    busyness = describe_busyness(busy_share()) if any(one.step.state != "done" for one in graph.trainings) else ""
    planned = [_plan_training(context, training, speeds) for training in graph.trainings]
    unfinished = [item for item in planned if item.training.step.state != "done"]
    left = {step.fingerprint: _SECONDS_ELSEWHERE for step in graph.steps if step.state != "done"}
    left |= {item.training.step.fingerprint: item.seconds for item in unfinished}
    parameters = {
        name: count_parameters(config, context.pretraining_head, context.inputs.vocabulary.size)
        for name, config in (("teacher", context.inputs.teacher_config), ("student", context.inputs.student_config))
    }
    captures = _captures(planned)
    for item, step, encoding in captures:
        left[step.fingerprint] = left.get(step.fingerprint, 0.0) + _capture_seconds(context, item, encoding, speeds)
    results = sum(_weight_bytes(context, item.training) for item in unfinished)
    results += sum(_store_bytes(item, encoding) for item, _, encoding in captures)
    checkpoint = max((item.disk_bytes for item in unfinished), default=0.0)
    memory = max((item.memory_bytes for item in unfinished), default=0.0)
    if context.hardware.device.type == "cpu":
        # Libraries and data besides; and the timed steps are of the planned shapes.
        memory = max(memory, highest_resident_bytes())
    return Plan(graph, exports, parameters, planned, left, memory, results + 2 * checkpoint, busyness)


def require_disk_space(plan: Plan, context: RunContext) -> None:
    """Refuse a run that would fill the disk.

    Raises:
        UserError: says what is needed and what is free.
    """
    free = shutil.disk_usage(context.root).free
    if plan.disk_bytes > free:
        raise UserError(
            f"{context.root}: the run needs about {plan.disk_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "make room or give another --output"
        )


def print_plan(plan: Plan, context: RunContext, console: Console) -> None:
    """Show a plan as tables."""
    console.print(_size_table(plan))
    console.print(_step_table(plan))
    _print_targets(plan, console)
    if plan.exports.note:
        console.print(f"{'Exports' if plan.exports.exports else 'No exports'}: {plan.exports.note}")
    if plan.busyness:
        console.print(f"Warning: {plan.busyness}, and alone it would be quicker than this", style="yellow")
    console.print(
        f"{context.hardware.device.type}, {context.hardware.precision}; "
        f"about {rough_duration(plan.seconds)} of work left, about {plan.memory_bytes / 1e9:.1f} GB of memory, "
        f"{plan.disk_bytes / 1e9:.1f} GB of disk in {context.root}"
    )


def _plan_training(context: RunContext, training: TrainingStep, speeds: dict[Any, float]) -> PlannedTraining:
    workload = workload_of(context, training)
    flops = flops_of(context, training, workload)
    seconds = 0.0
    if training.step.state != "done":
        kind = (
            training.arm.is_small,
            training.stage,
            training.asks_teacher == "live",
            workload.sequence_length,
            training.training.freeze_embeddings,
        )
        if kind not in speeds:
            speeds[kind] = measure_tokens_per_second(context, training)
        seconds = workload.tokens / speeds[kind]
    count = count_parameters(config_of(context, training), *head_of(context, training))
    trained = count.total - (count.embeddings if training.training.freeze_embeddings else 0)
    memory = _state_bytes(count.total, trained, _IN_TRAINING)
    if context.hardware.device.type == "cpu":
        memory += _state_bytes(count.total, trained, _WHILE_SAVING)
    return PlannedTraining(
        training,
        workload,
        flops.own,
        flops.teacher,
        memory_bytes=memory + _activation_bytes(context, training, workload) + _teacher_bytes(context, training),
        disk_bytes=_state_bytes(count.total, trained, _ON_DISK),
        seconds=seconds,
    )


def _captures(planned: list[PlannedTraining]) -> list[tuple[PlannedTraining, Step, Encoding]]:
    """The trainings whose soft targets are still to be captured, where, and how these are written."""
    found = []
    for item in planned:
        captured = item.training.supervision.captured if item.training.supervision else None
        if item.training.asks_teacher == "once" and captured is not None and captured.step.state != "done":
            found.append((item, captured.step, captured.encoding))
    return found


def _capture_seconds(context: RunContext, item: PlannedTraining, encoding: Encoding, speeds: dict[Any, float]) -> float:
    kind = ("asking", item.training.stage, encoding)
    if kind not in speeds:
        speeds[kind] = measure_asking(context, item.training, encoding)
    return captured_tokens(item.training, item.workload) / speeds[kind]


def _store_bytes(item: PlannedTraining, encoding: Encoding) -> float:
    return captured_tokens(item.training, item.workload) * item.workload.target_share * encoding.bytes_a_position


def _print_targets(plan: Plan, console: Console) -> None:
    """Where the soft targets of each stage come from, and why."""
    told = set()
    for item in plan.trainings:
        training = item.training
        if training.supervision is None or training.targets is None:
            continue
        subject = training.stage if training.task is None else training.task.name
        told.add(f"Soft targets of {subject}: {training.targets.kind}; {training.targets.why}")
    for line in sorted(told):
        console.print(line)


def _weight_bytes(context: RunContext, training: TrainingStep) -> float:
    head, classes = head_of(context, training)
    return _BYTES_A_WEIGHT * count_parameters(config_of(context, training), head, classes).total


def _state_bytes(weights: int, trained: int, held: tuple[int, int]) -> float:
    """So many copies of all weights, and so many numbers for each one that is trained."""
    copies, numbers = held
    return _BYTES_A_WEIGHT * (copies * weights + numbers * trained)


def _activation_bytes(context: RunContext, training: TrainingStep, workload: Workload) -> float:
    """Of the student's pass, in 16 bits twice where training is in float32 (Korthikanti et al. 2022, equation 1)."""
    shape = shape_of(config_of(context, training))
    assert shape.hidden_size is not None
    assert shape.heads is not None
    # Plain attention keeps its matrices, the fused one does not.
    matrices = 5 * shape.heads * workload.sequence_length if context.hardware.attention == "eager" else 0
    bytes_a_layer = 34 * shape.hidden_size + matrices
    # A layer at a time, and what goes from one to the next.
    is_again = training.training.activation_checkpointing
    bytes_a_token = bytes_a_layer + 2 * shape.layers * shape.hidden_size if is_again else shape.layers * bytes_a_layer
    at_once = min(training.training.micro_batch_tokens, training.training.batch_size * workload.sequence_length)
    return at_once * bytes_a_token * (1 if context.hardware.precision == "bf16" else 2)


def _teacher_bytes(context: RunContext, training: TrainingStep) -> float:
    if training.asks_teacher != "live":
        return 0.0
    head, classes = head_of(context, training)
    return _BYTES_A_WEIGHT * count_parameters(teacher_config_of(context, training), head, classes).total


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
            about = rough_duration(item.seconds) if item.seconds else ""
            table.add_row(step.name, step.state, str(load.steps), f"{load.tokens / 1e6:.2f}M", *flops, about)
    return table
