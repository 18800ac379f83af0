"""A batch gives the same step however it is cut into micro-batches."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightpaff.data.batch_order import BatchOrder
from lightpaff.training.checkpoint import weights_of
from lightpaff.training.loop import TrainingJob, train

AT_ONCE, ONE_BY_ONE = 8 * 34, 1
"""Tokens of a micro-batch: enough for the whole batch, and so few that each example stands alone."""
TOKENS = ("mlm", "clm", "mssm", "translate", "mlm stored", "clm stored", "mssm stored", "translate stored")
OTHERS = ("classes", "partly labelled", "partly tagged", "scores", "partly scored")
JOBS = [(kind, weight) for kind in (*TOKENS, *OTHERS) for weight in (0.0, 0.5)]


def micro_batches_of(job: TrainingJob) -> list[int]:
    settings = job.settings
    order = BatchOrder(job.data.lengths_N, job.example_ids, settings.batch_size, settings.micro_batch_tokens, job.seed)
    return [len(order.micro_batches(step)[1]) for step in range(3)]


@pytest.mark.parametrize(("kind", "weight"), JOBS)
def test_1x8_equals_8x1(
    kind: str, weight: float, make_job: Callable[..., TrainingJob], largest_difference: Callable[..., float]
) -> None:
    whole = make_job(kind, weight=weight, steps=3, micro_batch_tokens=AT_ONCE)
    cut = make_job(kind, weight=weight, steps=3, micro_batch_tokens=ONE_BY_ONE)
    assert micro_batches_of(whole) == [1] * 3
    assert micro_batches_of(cut) == [8] * 3
    start = weights_of(whole.model)
    progress, other = train(whole), train(cut)
    assert largest_difference(weights_of(whole.model), start) > 1e-3
    assert largest_difference(weights_of(whole.model), weights_of(cut.model)) < 1e-8
    assert len(progress.history) == 3
    for record, other_record in zip(progress.history, other.history, strict=True):
        assert other_record == pytest.approx(record, rel=1e-8)
    assert (progress.tokens, progress.targets) == (other.tokens, other.targets)


@pytest.mark.parametrize("kind", ["mlm", "clm", "mssm", "translate", "classes"])
def test_activations_computed_again_are_the_same(
    kind: str, make_job: Callable[..., TrainingJob], largest_difference: Callable[..., float]
) -> None:
    kept, again = (
        make_job(kind, weight=0.5, steps=3, dropout=0.1, activation_checkpointing=answer) for answer in (False, True)
    )
    passes: dict[bool, int] = {}
    for job in (kept, again):
        layers = [module for module in job.model.modules() if isinstance(module, torch.nn.LayerNorm)]
        calls: list[int] = []
        for layer in layers:
            layer.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        train(job)
        passes[job.settings.activation_checkpointing] = len(calls)
    assert passes[True] > passes[False] > 0
    assert largest_difference(weights_of(kept.model), weights_of(again.model)) < 1e-10


@pytest.mark.parametrize("kind", ["partly labelled", "partly tagged", "partly scored"])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_each_term_is_a_mean_over_what_it_speaks_about(
    kind: str, weight: float, make_job: Callable[..., TrainingJob]
) -> None:
    """How many rows or words have no label changes nothing about how much the labels weigh beside the teacher."""
    record = train(make_job(kind, weight=weight, steps=1, batch_size=24, micro_batch_tokens=50)).history[0]
    # Six of 24 rows, or about a quarter of each row's words, have no label. T² = 4 belongs to classes; for scores there
    # is no temperature.
    factor = 1.0 if kind == "partly scored" else 4.0
    expected = (1 - weight) * record["nll"] + weight * factor * record["divergence"]
    assert record["loss"] == pytest.approx(expected, rel=1e-8)
    assert record["divergence"] > 0.01


def test_rows_without_labels_teach_nothing_without_a_teacher(
    make_job: Callable[..., TrainingJob], largest_difference: Callable[..., float]
) -> None:
    everything = make_job("partly labelled", weight=0.0, steps=1, batch_size=24)
    labelled = make_job("partly labelled", weight=0.0, steps=1, batch_size=18)
    labelled = replace(labelled, example_ids=np.flatnonzero(np.arange(24) % 4 != 1))
    norms = [train(job).history[0]["gradient_norm"] for job in (everything, labelled)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-8)
    assert largest_difference(weights_of(everything.model), weights_of(labelled.model)) < 1e-8


@pytest.mark.parametrize(
    ("losses", "best"),
    [((0.6, 0.5, 0.7), 2), ((0.5, 0.5, 0.5), 3), ((0.7, 0.6, 0.5), 3)],
    ids=["lower loss", "all equal", "ever lower"],
)
def test_equal_scores_are_decided_by_the_loss_and_then_by_the_later_step(
    losses: tuple[float, ...], best: int, make_job: Callable[..., TrainingJob]
) -> None:
    told = iter(losses)
    job = make_job(
        "classes",
        weight=0.0,
        steps=3,
        evaluations=3,
        validate=lambda model: {"score": 0.0, "loss": next(told), "matthews": 0.0},
    )
    assert train(job).best_step == best
