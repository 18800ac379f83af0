"""With λ = 0 the loop is ordinary training: transformers' own loss, torch's own AdamW, the same batches.

Shapes: B examples, S tokens.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from lightpaff.data.batch_order import BatchOrder
from lightpaff.models.headed import token_tables
from lightpaff.objectives.batch import Batch
from lightpaff.targets.teacher import NoTeacher
from lightpaff.training.checkpoint import weights_of
from lightpaff.training.loop import TrainingJob, train
from lightpaff.training.schedule import learning_rate

STEPS = 4
SETTINGS = {"steps": STEPS, "micro_batch_tokens": 50, "weight_decay": 0.1, "max_gradient_norm": 0.5, "warmup": 0.25}


def train_plainly(job: TrainingJob, model: PreTrainedModel) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step, with whole batches."""
    settings = job.settings
    decayed = [parameter for name, parameter in model.named_parameters() if not is_vector(name)]
    others = [parameter for name, parameter in model.named_parameters() if is_vector(name)]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=1.0, weight_decay=settings.weight_decay)
    order = BatchOrder(job.data.lengths_N, job.example_ids, settings.batch_size, 10_000, job.seed)
    model.train()
    records = []
    for step in range(STEPS):
        epoch, pieces = order.micro_batches(step)
        batch = job.data.batch(pieces[0], draw=epoch)
        assert len(pieces) == 1
        loss = model(**plain_inputs(batch, job.data.head)).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step, STEPS)
        optimiser.step()
        optimiser.zero_grad()
        records.append((float(loss.detach()), float(norm)))
    return records


def is_vector(name: str) -> bool:
    """A bias, or a norm as BERT, GPT-2 and BART call theirs."""
    return name.endswith("bias") or any(norm in name for norm in ("LayerNorm", "ln_", "layer_norm", "layernorm"))


def plain_inputs(batch: Batch, head: str) -> dict[str, Any]:
    """What a transformers model takes, with its labels."""
    if head == "classes":
        # transformers compares scores and labels in one type.
        labels_B = batch.labels_P.double() if batch.labels_P.is_floating_point() else batch.labels_P
        return {**batch.inputs, "labels": labels_B}
    read_BS = batch.inputs["decoder_input_ids" if head == "target_tokens" else "input_ids"]
    labels_BS = torch.full_like(read_BS, -100)
    labels_BS.view(-1)[batch.positions_P] = batch.labels_P
    if head == "next_tokens":
        # transformers' own shift would lose the last target, which is no input; a cache would join the documents.
        return {**batch.inputs, "labels": labels_BS, "shift_labels": labels_BS, "use_cache": False}
    return {**batch.inputs, "labels": labels_BS}


@pytest.mark.parametrize("kind", ["mlm", "clm", "translate", "classes"])
def test_a_frozen_table_of_tokens_stays_and_the_rest_is_trained(
    kind: str, make_job: Callable[..., TrainingJob]
) -> None:
    """Also where the output layer is tied to it."""
    job = make_job(kind, weight=0.5, **SETTINGS, freeze_embeddings=True)
    before = weights_of(job.model)
    train(job)
    after = weights_of(job.model)
    tables = token_tables(job.model.model)
    for name, parameter in job.model.named_parameters():
        assert torch.equal(after[name], before[name]) is any(parameter is table for table in tables), name


@pytest.mark.parametrize("kind", ["mlm", "clm", "translate", "classes", "scores"])
@pytest.mark.parametrize("asks_the_teacher", [False, True])
def test_lambda_zero_is_plain_training(
    kind: str,
    asks_the_teacher: bool,
    make_job: Callable[..., TrainingJob],
    largest_difference: Callable[..., float],
) -> None:
    job = make_job(kind, weight=0.0, **SETTINGS)
    if not asks_the_teacher:
        job = replace(job, teacher=NoTeacher())
    plain = make_job(kind, weight=0.0, **SETTINGS).model.model
    expected = train_plainly(job, plain)
    history = train(job).history
    assert [record["loss"] for record in history] == pytest.approx([loss for loss, _ in expected], rel=1e-6)
    assert [record["nll"] for record in history] == pytest.approx([loss for loss, _ in expected], rel=1e-6)
    assert [record["gradient_norm"] for record in history] == pytest.approx([norm for _, norm in expected], rel=1e-6)
    weights = {name.removeprefix("model."): tensor for name, tensor in weights_of(job.model).items()}
    assert largest_difference(weights, weights_of(plain)) < 1e-5
    assert expected[0][0] != pytest.approx(expected[-1][0], rel=1e-2)
