"""How fast this machine trains, from a few optimiser steps on random tokens: speed does not depend on what they say."""

import time

import torch

from lightpaff.models.encoder import CLASSES, MASKED_TOKENS, split_model
from lightpaff.models.headed import HeadedModel
from lightpaff.models.initialisation import create_student
from lightpaff.objectives.batch import Batch
from lightpaff.pipeline.build import TrainingStep
from lightpaff.pipeline.training_steps import Workshop
from lightpaff.pipeline.workload import Workload, head_of
from lightpaff.recipe import Distillation
from lightpaff.targets.teacher import LiveTeacher, NoTeacher, Teacher
from lightpaff.training.loop import LossModule
from lightpaff.training.optimiser import create_optimiser

_STEPS = 2


def measure_tokens_per_second(shop: Workshop, training: TrainingStep, workload: Workload) -> float:
    """Train random models of the planned shapes for a moment, after one step to warm up; the best step counts."""
    settings = training.training
    examples = max(1, min(settings.batch_size, settings.micro_batch_tokens // workload.sequence_length))
    model = _random_model(shop, training, training.arm.is_small)
    teacher: Teacher = NoTeacher()
    if training.asks_teacher == "live":
        teacher = LiveTeacher(_random_model(shop, training, is_small=False))
    module = LossModule(model).train()
    optimiser = create_optimiser(module, settings)
    batch = _random_batch(shop, training, workload, examples)
    distillation = Distillation(weight=0.5 if training.asks_teacher == "live" else 0.0)
    times = []
    for _ in range(1 + _STEPS):
        started = time.monotonic()
        with shop.hardware.autocast():
            losses = module(batch, teacher.targets(batch), distillation)
        losses.total.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if shop.hardware.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.monotonic() - started)
    return examples * workload.sequence_length / min(times[1:])


def _random_model(shop: Workshop, training: TrainingStep, is_small: bool) -> HeadedModel:
    head, classes = head_of(shop, training)
    model = create_student(
        shop.inputs.student_config if is_small else shop.inputs.teacher_config,
        head,
        classes,
        initialisation="random",
        teacher_path=None,
        seed=0,
        attention=shop.hardware.attention,
        dropout=training.training.dropout,
    )
    return split_model(model.to(shop.hardware.device), head, classes)


def _random_batch(shop: Workshop, training: TrainingStep, workload: Workload, examples: int) -> Batch:
    head, classes = head_of(shop, training)
    tokens = examples * workload.sequence_length
    targets = examples if head == CLASSES else max(1, round(workload.target_share * tokens))
    ids_BS = torch.randint(shop.inputs.vocabulary_size, (examples, workload.sequence_length))
    is_score = classes == 1 and head != MASKED_TOKENS
    return Batch(
        inputs={"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)},
        positions_P=torch.arange(targets) * (tokens // targets),
        labels_P=torch.zeros(targets, dtype=torch.float32 if is_score else torch.long),
        example_ids_B=torch.arange(examples),
        draw=0,
    ).to(shop.hardware.device)
