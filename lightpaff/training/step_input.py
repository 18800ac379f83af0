"""What goes through the model in one optimiser step, as a function of the step's number."""

from dataclasses import dataclass, replace

import torch
from torch.utils.data import Dataset

from lightpaff.data.batch_order import BatchOrder
from lightpaff.objectives.batch import NO_GOLD_LABEL, Batch
from lightpaff.objectives.objective import Objective
from lightpaff.recipe_sections import Distillation


@dataclass(frozen=True)
class StepInput:
    """What this rank takes in one optimiser step; counted here, where asking does not wait for the device."""

    step: int
    batches: list[Batch]
    local_num_tokens: int
    local_num_positions: int
    local_num_targets: int

    def to(self, device: torch.device) -> "StepInput":
        return replace(self, batches=[batch.to(device) for batch in self.batches])


class StepInputs(Dataset[StepInput]):
    """The input of each optimiser step, by its number."""

    def __init__(self, data: Objective, order: BatchOrder, distillation: Distillation) -> None:
        self._data, self._order, self._distillation = data, order, distillation

    def __getitem__(self, step: int) -> StepInput:
        epoch, pieces = self._order.micro_batches(step)
        batches = [self._data.batch(ids, draw=epoch) for ids in pieces]
        return StepInput(
            step,
            batches,
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
