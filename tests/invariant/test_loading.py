"""What goes through the model is the same whether it is made ahead by other processes or not."""

from collections.abc import Callable

import pytest
import torch
from torch.utils.data import DataLoader

from lightpaff.data.batch_order import BatchOrder
from lightpaff.targets.soft_targets import Sparse
from lightpaff.targets.teacher import StoredTeacher
from lightpaff.training.device import Hardware
from lightpaff.training.loop import TrainingJob
from lightpaff.training.step_input import StepInput, StepInputs, load

STEPS = range(2, 9)


def inputs_of(job: TrainingJob) -> StepInputs:
    order = BatchOrder(job.data.lengths_N, job.example_ids, job.settings.batch_size, 30, job.seed)
    stored = job.teacher if isinstance(job.teacher, StoredTeacher) else None
    return StepInputs(job.data, order, job.distillation, job.draws, stored)


def tensors_of(step_input: StepInput) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for batch, stored in step_input.batches:
        found += [*batch.inputs.values(), batch.positions_P, batch.labels_P]
        if isinstance(stored, Sparse):
            found += [stored.ids_PK, stored.weights_PK, stored.entropy_P]
    return found


@pytest.mark.parametrize("kind", ["mlm", "clm", "mssm stored", "translate stored"])
def test_workers_make_the_same_inputs_in_the_same_order(kind: str, make_job: Callable[..., TrainingJob]) -> None:
    job = make_job(kind, weight=0.5, steps=10)
    alone = list(load(inputs_of(job), STEPS, job.hardware))
    ahead = list(DataLoader(inputs_of(job), batch_size=None, sampler=STEPS, num_workers=2, prefetch_factor=2))
    assert [one.step for one in alone] == [one.step for one in ahead] == list(STEPS)
    for one, other in zip(alone, ahead, strict=True):
        assert (one.local_num_tokens, one.local_num_positions) == (other.local_num_tokens, other.local_num_positions)
        pairs = list(zip(tensors_of(one), tensors_of(other), strict=True))
        assert pairs
        assert all(torch.equal(tensor, found) for tensor, found in pairs)


def test_a_gpu_gets_workers_and_a_cpu_none(make_job: Callable[..., TrainingJob]) -> None:
    inputs = inputs_of(make_job("mlm", weight=0.5, steps=10))
    assert load(inputs, STEPS, Hardware(torch.device("cpu"), "float32")).num_workers == 0
    loader = load(inputs, STEPS, Hardware(torch.device("cuda"), "bf16"))
    assert loader.num_workers > 0
    assert loader.pin_memory


def test_maskings_come_again(make_job: Callable[..., TrainingJob]) -> None:
    """Of two maskings, the third epoch has the first one's."""
    job = make_job("mlm stored", weight=0.5, steps=10)
    assert job.draws == 2
    steps_per_epoch = BatchOrder(job.data.lengths_N, job.example_ids, 8, 30, job.seed).steps_per_epoch
    drawn = [{batch.draw for batch, _ in inputs_of(job)[epoch * steps_per_epoch].batches} for epoch in range(4)]
    assert drawn == [{0}, {1}, {0}, {1}]
