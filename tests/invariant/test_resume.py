"""A training that is stopped and resumed takes the very steps of one that is not."""

import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from lightpaff import ranks
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.objective import Objective
from lightpaff.training import loop
from lightpaff.training.checkpoint import Progress, weights_of
from lightpaff.training.interruption import StoppedError
from lightpaff.training.loop import TrainingJob, train

BATCH_SIZE = 4


@dataclass
class StoppingData:
    """The same data, with a Ctrl-C while step `last_step` is prepared; each example is a micro-batch."""

    data: Objective
    last_step: int
    head: str
    number_of_classes: int
    lengths_N: np.ndarray
    targets_N: np.ndarray
    gold_targets_N: np.ndarray
    gold_ids: np.ndarray
    calls: int = 0

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        self.calls += 1
        if self.calls == self.last_step * BATCH_SIZE:
            signal.raise_signal(signal.SIGINT)
        return self.data.batch(example_ids, draw)


def small_biases(model: HeadedModel) -> dict[str, float]:
    """A score that is best early: biases start at 0, and training moves them away."""
    biases = [tensor.detach() for name, tensor in model.named_parameters() if name.endswith("bias")]
    return {"score": -sum(float(bias.double().abs().sum()) for bias in biases), "loss": 0.0}


def stopped(job: TrainingJob, taken: int, stop_at: int) -> TrainingJob:
    data = job.data
    stopping = StoppingData(
        data,
        stop_at - taken,
        data.head,
        data.number_of_classes,
        data.lengths_N,
        data.targets_N,
        data.gold_targets_N,
        data.gold_ids,
    )
    return replace(job, data=stopping)


def what_was_done(progress: Progress) -> dict[str, Any]:
    return {name: value for name, value in asdict(progress).items() if name not in ("seconds", "running")}


# Fewer records than steps: sums between two records outlive the stop too.
@pytest.mark.parametrize(("stops", "records_a_run"), [([5], 10), ([2, 3, 9], 3)], ids=str)
@pytest.mark.parametrize("kind", ["mlm", "clm", "mssm", "translate", "classes", "mlm stored", "translate stored"])
def test_ten_steps_equal_five_stop_and_five(
    kind: str,
    stops: list[int],
    records_a_run: int,
    make_job: Callable[..., TrainingJob],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "_RECORDS_A_RUN", records_a_run)
    settings: dict[str, Any] = {"steps": 10, "micro_batch_tokens": 1, "batch_size": BATCH_SIZE, "evaluations": 4}
    settings |= {"weight": 0.5, "dropout": 0.1, "dtype": torch.float32, "validate": small_biases}
    whole = make_job(kind, **settings)
    expected = train(whole)

    taken = 0
    for stop_at in stops:
        job = make_job(kind, **settings, checkpoints="stopped", model_seed=taken + 1)
        with pytest.raises(StoppedError, match=f"stopped and saved at step {stop_at}"):
            train(stopped(job, taken, stop_at))
        assert [path.name for path in job.checkpoints.iterdir()] == [f"step-{stop_at:09d}"]
        taken = stop_at
    # Another model to start from: everything must come from the checkpoint.
    resumed = make_job(kind, **settings, checkpoints="stopped", model_seed=99)
    progress = train(resumed)

    assert what_was_done(progress) == what_was_done(expected)
    assert progress.step == 10
    assert len(progress.history) == (10 if records_a_run == 10 else 4)
    assert len(progress.evaluations) == 4
    assert progress.best_step < 10
    weights, others = weights_of(whole.model), weights_of(resumed.model)
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name


@pytest.mark.parametrize("kind", ["clm", "translate", "classes"])
def test_dropout_was_on(kind: str, make_job: Callable[..., TrainingJob]) -> None:
    with_dropout, without = (
        train(make_job(kind, weight=0.5, dropout=dropout, steps=2)).history for dropout in (0.1, 0.0)
    )
    assert with_dropout != without


def test_a_request_that_comes_after_the_save_was_decided_waits_for_the_next_step(
    make_job: Callable[..., TrainingJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = ranks.any_of

    def decide_then_stop(*conditions: bool) -> tuple[bool, ...]:
        decided = decide(*conditions)
        if conditions == (False, False):
            signal.raise_signal(signal.SIGINT)
        return decided

    job = make_job("classes", weight=0.0, steps=4, checkpoints="stopped")
    monkeypatch.setattr(ranks, "any_of", decide_then_stop)
    with pytest.raises(StoppedError, match="stopped and saved at step 2"):
        train(job)
    assert [path.name for path in job.checkpoints.iterdir()] == ["step-000000002"]


def test_after_a_stop_in_the_last_step_nothing_is_left_to_do(make_job: Callable[..., TrainingJob]) -> None:
    settings: dict[str, Any] = {"weight": 0.0, "steps": 2, "micro_batch_tokens": 1, "batch_size": BATCH_SIZE}
    whole = make_job("classes", **settings)
    job = make_job("classes", **settings, checkpoints="stopped")
    with pytest.raises(StoppedError, match="stopped and saved at step 2"):
        train(stopped(job, taken=0, stop_at=2))
    resumed = make_job("classes", **settings, checkpoints="stopped", model_seed=99)
    assert what_was_done(train(resumed)) == what_was_done(train(whole))
    weights, others = weights_of(whole.model), weights_of(resumed.model)
    assert all(torch.equal(tensor, others[name]) for name, tensor in weights.items())


def test_the_best_weights_are_kept_not_the_last(make_job: Callable[..., TrainingJob]) -> None:
    settings: dict[str, Any] = {"weight": 0.0, "evaluations": 6, "validate": small_biases, "schedule": "wsd"}
    job = make_job("classes", **settings, steps=6)
    progress = train(job)
    scores = [record["score"] for record in progress.evaluations]
    assert progress.best_score == max(scores)
    assert progress.best_step == 1 + int(np.argmax(scores))
    assert small_biases(job.model)["score"] == max(scores)
    assert scores[-1] < max(scores)
