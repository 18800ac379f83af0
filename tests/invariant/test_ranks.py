"""Two ranks train as one does.

Run as a program (`python test_ranks.py FOLDER`, with torch.distributed's environment) this file is one of the ranks.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightpaff.training.checkpoint import weights_of
from lightpaff.training.loop import TrainingJob, train

KINDS = ["mlm", "clm", "mssm", "translate", "partly labelled", "scores", "mlm stored", "translate stored"]
SETTINGS: dict[str, Any] = {"weight": 0.5, "steps": 3, "batch_size": 6, "micro_batch_tokens": 20, "evaluations": 2}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each of two ranks holds after training every kind of job."""
    folder = tmp_path_factory.mktemp("ranks")
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
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
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_equal_one(
    kind: str, trained_by_two: Path, make_job: Callable[..., TrainingJob], largest_difference: Callable[..., float]
) -> None:
    job = make_job(kind, **SETTINGS)
    progress = train(job)
    for rank in range(2):
        weights = load_file(trained_by_two / f"{kind} {rank}.safetensors")
        assert largest_difference(weights_of(job.model), weights) < 1e-8
        found = json.loads((trained_by_two / f"{kind} {rank}.json").read_text())
        assert (found["tokens"], found["targets"]) == (progress.tokens, progress.targets)
        assert found["best_step"] == progress.best_step
        assert len(found["history"]) == 3
        for record, expected in zip(found["history"], progress.history, strict=True):
            assert record == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ranks_hold_the_same_bits(kind: str, trained_by_two: Path) -> None:
    first, second = (load_file(trained_by_two / f"{kind} {rank}.safetensors") for rank in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def run_rank(folder: Path) -> None:
    from conftest import JobMaker  # beside this file, which is a program now

    torch.set_num_threads(1)
    rank = os.environ["RANK"]
    own = folder / f"rank {rank}"
    own.mkdir()
    for kind in KINDS:
        job = JobMaker(own)(kind, **SETTINGS)
        progress = train(job)
        save_file(weights_of(job.model), folder / f"{kind} {rank}.safetensors")
        (folder / f"{kind} {rank}.json").write_text(json.dumps(asdict(progress)))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]))
