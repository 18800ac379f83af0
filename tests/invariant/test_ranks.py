"""Two ranks train as one does, also where one began and one ends.

Run as a program (`python test_ranks.py FOLDER`, with torch.distributed's environment) this file is one of the ranks.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightpaff.models.headed import HeadedModel
from lightpaff.training.checkpoint import weights_of
from lightpaff.training.interruption import StoppedError
from lightpaff.training.loop import TrainingJob, train

KINDS = ["mlm", "clm", "mssm", "translate", "partly labelled", "scores", "mlm stored", "translate stored"]
SHARDED = ["mlm", "clm", "translate stored"]
"""Those that are also trained with the model split over the ranks."""
SETTINGS: dict[str, Any] = {"weight": 0.5, "steps": 3, "batch_size": 6, "micro_batch_tokens": 20, "evaluations": 2}
LONGER = {**SETTINGS, "steps": 8, "evaluations": 8}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def train_with_two(folder: Path, way: str) -> None:
    """Let two ranks train as `run_rank` says, in `folder`."""
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder), way],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=240)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each of two ranks holds after training every kind of job."""
    folder = tmp_path_factory.mktemp("ranks")
    train_with_two(folder, "whole")
    return folder


@pytest.mark.parametrize(("kind", "way"), [*((kind, "") for kind in KINDS), *((kind, "sharded ") for kind in SHARDED)])
def test_two_ranks_equal_one(
    kind: str,
    way: str,
    trained_by_two: Path,
    make_job: Callable[..., TrainingJob],
    largest_difference: Callable[..., float],
) -> None:
    job = make_job(kind, **SETTINGS)
    progress = train(job)
    for rank in range(2):
        weights = load_file(trained_by_two / f"{way}{kind} {rank}.safetensors")
        assert largest_difference(weights_of(job.model), weights) < 1e-8
        found = json.loads((trained_by_two / f"{way}{kind} {rank}.json").read_text())
        assert (found["tokens"], found["targets"]) == (progress.tokens, progress.targets)
        assert found["best_step"] == progress.best_step
        assert len(found["history"]) == 3
        for record, expected in zip(found["history"], progress.history, strict=True):
            assert record == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ranks_hold_the_same_bits(kind: str, trained_by_two: Path) -> None:
    first, second = (load_file(trained_by_two / f"{kind} {rank}.safetensors") for rank in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("kind", ["mlm", "translate stored", "sharded mlm"])
def test_one_two_and_one_ranks_equal_one(
    kind: str, tmp_path: Path, make_job: Callable[..., TrainingJob], largest_difference: Callable[..., float]
) -> None:
    way, kind = kind, kind.removeprefix("sharded ")
    whole = make_job(kind, **LONGER, validate=StoppingScore(None))
    expected = train(whole)
    checkpoints = tmp_path / "shared checkpoints"
    with pytest.raises(StoppedError):
        train(replace(make_job(kind, **LONGER, validate=StoppingScore(2)), checkpoints=checkpoints))
    train_with_two(tmp_path, way)
    last = replace(make_job(kind, **LONGER, validate=StoppingScore(None)), checkpoints=checkpoints)
    assert [json.loads(path.read_text())["step"] for path in checkpoints.glob("step-*/state.json")] == [5]
    progress = train(last)
    assert largest_difference(weights_of(last.model), weights_of(whole.model)) < 1e-8
    assert [record["loss"] for record in progress.history] == pytest.approx(
        [record["loss"] for record in expected.history], rel=1e-8
    )


class StoppingScore:
    """Validates, and asks for a stop at the n-th call."""

    def __init__(self, stop_at: int | None) -> None:
        self.left = stop_at

    def __call__(self, model: HeadedModel) -> dict[str, float]:
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
        return {"score": 0.0, "loss": 0.0}


def run_rank(folder: Path, way: str) -> None:
    from conftest import JobMaker  # beside this file, which is a program now

    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    own = folder / f"rank {rank}"
    own.mkdir()
    if way == "whole":
        train_all(folder, JobMaker(own))
    else:
        kind = way.removeprefix("sharded ")
        job = JobMaker(own)(kind, **LONGER, sharded=kind != way, checkpoint_seconds=0, validate=StoppingScore(3))
        with pytest.raises(StoppedError):
            train(replace(job, checkpoints=folder / "shared checkpoints"))
    torch.distributed.destroy_process_group()


def train_all(folder: Path, make_job: Callable[..., TrainingJob]) -> None:
    rank = os.environ["RANK"]
    for way, kinds in {"": KINDS, "sharded ": SHARDED}.items():
        for kind in kinds:
            job = make_job(kind, **SETTINGS, sharded=bool(way))
            progress = train(job)
            save_file(weights_of(job.model), folder / f"{way}{kind} {rank}.safetensors")
            (folder / f"{way}{kind} {rank}.json").write_text(json.dumps(asdict(progress)))


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]), sys.argv[2])
