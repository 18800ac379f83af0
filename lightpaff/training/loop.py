"""The one training loop: pre-training and fine-tuning, teacher, student and control.

What differs between them is the objective, the teacher and the starting model. Everything random is a function of the
seed and the step, so that a resumed run takes the very steps that an uninterrupted one takes.

Shapes: P target positions, N examples.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightpaff import ranks
from lightpaff.data.batch_order import BatchOrder
from lightpaff.errors import UserError
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.objective import Objective
from lightpaff.progress import progress_bar
from lightpaff.recipe_training import Distillation, Training
from lightpaff.targets.teacher import StoredTeacher, Teacher
from lightpaff.training.checkpoint import (
    Progress,
    load_checkpoint,
    load_weights,
    optimiser_tensors,
    save_checkpoint,
    weights_of,
)
from lightpaff.training.device import Hardware
from lightpaff.training.interruption import StoppedError, StopRequest
from lightpaff.training.optimiser_step import SUMS, OptimiserStep, create_accelerator
from lightpaff.training.sharding import gathered, make_whole
from lightpaff.training.step_input import StepInput, StepInputs, load

_RECORDS_A_RUN = 200

Validate = Callable[[HeadedModel], dict[str, float]]
"""Evaluates a model on the validation set: `score`, higher is better, chooses the best checkpoint; of equal scores the
lower `loss` decides, then the later step."""


@dataclass(frozen=True)
class TrainingJob:
    """One run of the loop.

    Attributes:
        description: for the person who waits.
        model: what is trained, on its device.
        data: the objective over its data set.
        example_ids: the examples to train on.
        teacher: who gives the soft targets.
        settings: budget, learning rate and the like.
        draws: how many maskings an example has, before they come again; None: another one in every epoch.
        distillation: λ and temperature; λ = 0 with `NoTeacher` is ordinary training.
        seed: of the order of examples and of dropout.
        validate: how the best checkpoint is chosen.
        checkpoints: the folder for checkpoints.
        fingerprint: of everything above; a checkpoint with another one is refused.
        hardware: device and precision.
    """

    description: str
    model: HeadedModel
    data: Objective
    example_ids: np.ndarray
    teacher: Teacher
    settings: Training
    distillation: Distillation
    draws: int | None
    seed: int
    validate: Validate
    checkpoints: Path
    fingerprint: str
    hardware: Hardware


def train(job: TrainingJob) -> Progress:
    """Train `job.model` in place, resuming from its newest checkpoint; it ends with the best weights.

    Raises:
        UserError: when the loss or a gradient is not finite, or a checkpoint does not fit.
        StoppedError: after Ctrl-C or SIGTERM, once a checkpoint is written.
    """
    accelerator = create_accelerator(job.hardware)
    order = BatchOrder(
        job.data.lengths_N,
        job.example_ids,
        job.settings.batch_size,
        job.settings.micro_batch_tokens,
        job.seed,
        ranks=accelerator.num_processes,
        rank=accelerator.process_index,
    )
    total_steps = count_steps(job.settings, job.data.lengths_N[job.example_ids], order.steps_per_epoch)
    taker = OptimiserStep(
        job.model,
        job.teacher,
        job.settings,
        job.distillation,
        job.seed,
        job.hardware,
        accelerator,
        total_steps,
        targets_for_one_gold_label(job),
    )
    restored = load_checkpoint(job.checkpoints, job.fingerprint, job.model, taker.optimiser)
    progress, best = restored or (Progress(), {})
    loop = _Loop(job, taker, progress, best, total_steps)
    stored = job.teacher if isinstance(job.teacher, StoredTeacher) else None
    inputs = StepInputs(job.data, order, job.distillation, job.draws, stored)
    loop.run(load(inputs, range(progress.step, total_steps), job.hardware))
    make_whole(job.model)
    load_weights(job.model, loop.best)
    return progress


def count_steps(settings: Training, lengths_N: np.ndarray, steps_per_epoch: int) -> int:
    """Optimiser steps of a budget in steps, tokens or epochs."""
    if settings.steps is not None:
        return settings.steps
    if settings.tokens is not None:
        return max(1, math.ceil(settings.tokens * steps_per_epoch / float(lengths_N.sum())))
    assert settings.epochs is not None
    return max(1, round(settings.epochs * steps_per_epoch))


def targets_for_one_gold_label(job: TrainingJob) -> float:
    """Targets that the loss speaks about, over those of them with a gold label; 1 where every one has a label.

    The gold term times this, divided by all targets, is its mean over the labels: how much it weighs beside the
    teacher's term does not depend on how many examples have none. It is a constant of the data, not of a batch, so that
    every labelled example counts the same.
    """
    if job.distillation.weight == 0:
        return 1.0
    targets = job.data.targets_N[job.example_ids].sum()
    gold = job.data.gold_targets_N[job.example_ids].sum()
    return float(targets / gold) if gold else 1.0


@dataclass
class _Loop:
    job: TrainingJob
    taker: OptimiserStep
    progress: Progress
    best: dict[str, Tensor]
    total_steps: int

    def run(self, inputs: DataLoader[StepInput]) -> None:
        job, progress, settings = self.job, self.progress, self.job.settings
        record_every = max(1, self.total_steps // _RECORDS_A_RUN)
        evaluation_steps = _evenly_spread(self.total_steps, settings.evaluations)
        seconds_before, started = progress.seconds, time.monotonic()
        last_saved = started
        sums = _Sums(progress.running, job.hardware.device)
        with (
            StopRequest() as stop,
            progress_bar(job.description, self.total_steps, "steps", progress.step) as advance,
        ):
            for step_input in inputs:
                with ranks.told_of_the_others() if ranks.count() > 1 else nullcontext():
                    sums.add(self.taker.take(step_input.to(job.hardware.device)))
                progress.step = step_input.step + 1
                progress.seconds = seconds_before + time.monotonic() - started
                if progress.step % record_every == 0 or progress.step == self.total_steps:
                    self._record(sums)
                if progress.step in evaluation_steps:
                    self._evaluate()
                advance(1, self._note())
                # No rank's own clock decides: what is split over them is saved together.
                is_time, shall_stop = ranks.any_of(
                    time.monotonic() - last_saved >= settings.checkpoint_seconds, stop.received
                )
                is_saved = (is_time and progress.step < self.total_steps) or shall_stop
                if is_saved:
                    self._save(sums)
                    last_saved = time.monotonic()
                # Alone, what was asked for while it was saved counts too.
                if shall_stop or (is_saved and stop.received and ranks.count() == 1):
                    # A launcher kills the others when one of them ends, also one that writes.
                    ranks.wait()
                    raise StoppedError(f"{job.description}: stopped and saved at step {progress.step}")

    def _record(self, sums: "_Sums") -> None:
        values = sums.take()
        self._require_finite(values)
        self.progress.tokens += int(values["tokens"])
        self.progress.targets += int(values["positions"])
        count, gold, steps = max(values["count"], 1.0), max(values["gold_count"], 1.0), values["steps"]
        self.progress.history.append(
            {
                "step": self.progress.step,
                # What each step divides by: without the teacher's term, the positions with a gold label.
                "loss": values["total"] / (count if self.job.distillation.weight > 0 else gold),
                "nll": values["nll"] / gold,
                "divergence": values["divergence"] / count,
                "gradient_norm": values["gradient_norm"] / steps,
                "learning_rate": float(self.taker.optimiser.param_groups[0]["lr"]),
            }
        )

    def _require_finite(self, values: dict[str, float]) -> None:
        if all(math.isfinite(value) for value in values.values()):
            return
        raise UserError(
            f"{self.job.description}: a loss, gradient or score is not finite (NaN or infinite) by step "
            f"{self.progress.step}; lower the learning rate (now {self.job.settings.learning_rate:g}) or set precision "
            "to float32; earlier checkpoints are kept"
        )

    def _evaluate(self) -> None:
        self.job.model.eval()
        with gathered(self.taker.module):
            values = ranks.shared(self.job.validate(self.job.model))
        self._require_finite(values)
        self.progress.evaluations.append({"step": self.progress.step, **values})
        score, loss = values["score"], values["loss"]
        if (score, -loss) >= (self.progress.best_score, -self.progress.best_loss):
            self.progress.best_score, self.progress.best_loss = score, loss
            self.progress.best_step = self.progress.step
            self.best = weights_of(self.job.model)

    def _save(self, sums: "_Sums") -> None:
        self.progress.running = sums.values()
        self._require_finite(self.progress.running)
        is_first = self.taker.accelerator.is_main_process
        if is_first or self.taker.is_sharded:
            # Of a model that is split, all ranks give their part.
            weights = weights_of(self.job.model)
            optimiser = optimiser_tensors(self.job.model, self.taker.optimiser)
        if is_first:
            save_checkpoint(self.job.checkpoints, self.job.fingerprint, weights, optimiser, self.best, self.progress)

    def _note(self) -> str:
        parts = [f"loss {self.progress.history[-1]['loss']:.3f}"] if self.progress.history else []
        parts += [f"best {self.progress.best_score:.4f}"] if self.progress.best_step else []
        return "  ".join(parts)


class _Sums:
    """Sums over steps, kept on the device until somebody asks: no wait for the device in every step."""

    def __init__(self, running: dict[str, float], device: torch.device) -> None:
        self._sums = torch.tensor([running.get(name, 0.0) for name in SUMS], dtype=torch.float64, device=device)

    def add(self, sums: Tensor) -> None:
        self._sums += sums

    def values(self) -> dict[str, float]:
        return dict(zip(SUMS, self._sums.tolist(), strict=True))

    def take(self) -> dict[str, float]:
        values = self.values()
        self._sums.zero_()
        return values


def _evenly_spread(total: int, count: int) -> set[int]:
    return {math.ceil(total * (i + 1) / count) for i in range(count)}
