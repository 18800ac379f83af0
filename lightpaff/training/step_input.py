"""What goes through the model in one optimiser step, as a function of the step's number."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightpaff.data.batch_order import BatchOrder
from lightpaff.machine import count_cores
from lightpaff.objectives.batch import NO_GOLD_LABEL, Batch
from lightpaff.objectives.objective import Objective
from lightpaff.recipe_training import Distillation
from lightpaff.targets.soft_targets import Stored
from lightpaff.targets.teacher import StoredTeacher
from lightpaff.training.device import Hardware

_MOST_WORKERS = 4
_STEPS_AHEAD = 4
"""Of every worker."""


@dataclass(frozen=True)
class StepInput:
    """What this rank takes in one optimiser step; counted here, where asking does not wait for the device."""

    step: int
    batches: list[tuple[Batch, Stored | None]]
    local_num_tokens: int
    local_num_positions: int
    local_num_targets: int

    def map(self, change: Callable[[Tensor], Tensor]) -> "StepInput":
        """The same with every tensor changed."""
        batches = [(batch.map(change), stored.map(change) if stored else None) for batch, stored in self.batches]
        return replace(self, batches=batches)

    def to(self, device: torch.device) -> "StepInput":
        """The same on `device`, copied while the host goes on where its memory is pinned."""
        return self.map(partial(Tensor.to, device=device, non_blocking=True))

    def pin_memory(self) -> "StepInput":
        """The same in memory that a GPU can read by itself; called by the data loader."""
        return self.map(Tensor.pin_memory)


class StepInputs(Dataset[StepInput]):
    """The input of each optimiser step, by its number.

    Args:
        data: the objective over its data set.
        order: which examples go into which step.
        distillation: whether the teacher is heard.
        draws: how many maskings an example has, before they come again; None: another one in every epoch.
        stored: where its soft targets are read from, so that the step need not wait for them; None where it is asked at
            every batch, or nobody is.
    """

    def __init__(
        self,
        data: Objective,
        order: BatchOrder,
        distillation: Distillation,
        draws: int | None = None,
        stored: StoredTeacher | None = None,
    ) -> None:
        self._data, self._order, self._distillation = data, order, distillation
        self._draws, self._stored = draws, stored

    def __getitem__(self, step: int) -> StepInput:
        epoch, pieces = self._order.micro_batches(step)
        batches = [self._data.batch(ids, draw=epoch % self._draws if self._draws else epoch) for ids in pieces]
        return StepInput(
            step,
            [(batch, self._stored.targets(batch) if self._stored else None) for batch in batches],
            local_num_tokens=sum(int(self._data.lengths_N[ids].sum()) for ids in pieces),
            local_num_positions=sum(len(batch.positions_P) for batch in batches),
            local_num_targets=sum(_count_targets(batch, self._distillation) for batch in batches),
        )


def _count_targets(batch: Batch, distillation: Distillation) -> int:
    """Positions that the loss speaks about: with a teacher all of them, else those with a gold label."""
    if distillation.weight > 0:
        return len(batch.positions_P)
    if batch.labels_P.is_floating_point():
        return int((~batch.labels_P.isnan()).sum())
    return int(batch.labels_P.ne(NO_GOLD_LABEL).sum())


def load(inputs: StepInputs, steps: range, hardware: Hardware) -> DataLoader[StepInput]:
    """The inputs of these steps, in order; for a GPU they are made ahead by processes of their own."""
    if hardware.device.type != "cuda":
        return DataLoader(inputs, batch_size=None, sampler=steps)
    return DataLoader(
        inputs,
        batch_size=None,
        sampler=steps,
        num_workers=min(_MOST_WORKERS, max(count_cores() - 1, 1)),
        prefetch_factor=_STEPS_AHEAD,
        pin_memory=True,
        worker_init_fn=_leave_stopping_to_the_loop,
        # Memory-mapped tables cannot be sent to another process, as from Python 3.14 on they would be.
        multiprocessing_context="fork",
    )


def _leave_stopping_to_the_loop(worker: int) -> None:
    # A terminal sends Ctrl-C to all processes.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
