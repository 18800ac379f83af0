"""A whole run by two ranks, from start to report; stopped and killed in the middle."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TIMEOUT = 150


@pytest.fixture
def recipe(tiny_recipe: Any) -> Any:
    """With stored soft targets, so that capturing is shared too; small batches, so that every rank has a part."""
    tiny_recipe.set("pretraining.distillation", {"targets": {"kind": "sampled", "epochs": 2}})
    return tiny_recipe


def command_of(recipe: Any) -> list[str]:
    return ["-m", "lightpaff", "run", str(recipe.write()), "--output", str(recipe.output)]


def run_alone(recipe: Any) -> subprocess.CompletedProcess[str]:
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *command_of(recipe)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, env=one_thread)


@contextmanager
def two_ranks(recipe: Any) -> Iterator[list[subprocess.Popen[str]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, *command_of(recipe)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


def wait_for_training(steps: Path, kind: str) -> None:
    """Until the first checkpoint of such a step."""
    deadline = time.monotonic() + TIMEOUT
    while not list(steps.glob(f".{kind}-*.work/step-*/manifest.json")):
        assert time.monotonic() < deadline, "no training began"
        time.sleep(0.05)


@pytest.fixture
def long_recipe(recipe: Any) -> Any:
    """A student's pre-training that takes a while, and saves after every step."""
    recipe.set("pretraining.training.steps", 100)
    recipe.set("pretraining.training.checkpoint_seconds", 0)
    return recipe


def test_torchrun_from_start_to_report(recipe: Any, read_report: Callable[[Path], dict[str, Any]]) -> None:
    recipe.set("fine_tuning.training.sharded", True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    told = subprocess.run(
        [*launch, *command_of(recipe)], capture_output=True, text=True, timeout=TIMEOUT, env={**os.environ}
    )
    assert told.returncode == 0, told.stderr
    report = read_report(recipe.output)
    assert {row["arm"] for row in report["rows"]} == {"teacher", "student", "control", "tfidf"}
    # One of them speaks.
    assert (told.stdout + told.stderr).count("Fetching and checking the inputs") == 1
    assert told.stderr.count("Done: ") == 1
    again = run_alone(recipe)
    assert again.returncode == 0, again.stderr
    assert read_report(recipe.output)["rows"] == report["rows"], "what ranks did serves one process"


@pytest.mark.parametrize("stopped", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_signal_to_any_rank_stops_all_and_one_goes_on(long_recipe: Any, stopped: int) -> None:
    steps = long_recipe.output.parent / "steps"
    with two_ranks(long_recipe) as ranks:
        wait_for_training(steps, "pretrain")
        ranks[stopped].send_signal(signal.SIGTERM)
        told = [rank.communicate(timeout=TIMEOUT)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [130, 130], told
    assert len(list(steps.glob(".pretrain-*.work/step-*"))) == 1
    again = run_alone(long_recipe)
    assert again.returncode == 0, again.stderr
    assert "started" in again.stderr


def test_a_killed_rank_ends_the_run(long_recipe: Any) -> None:
    with two_ranks(long_recipe) as ranks:
        wait_for_training(long_recipe.output.parent / "steps", "pretrain")
        ranks[1].kill()
        told = ranks[0].communicate(timeout=TIMEOUT)[0]
        assert ranks[0].returncode == 2, told
    assert "lightpaff: rank 0 of 2: another rank ended (" in told
    assert "Traceback" not in told
    with two_ranks(long_recipe) as ranks:
        outcomes = [(rank.communicate(timeout=TIMEOUT)[0], rank.returncode) for rank in ranks]
    assert [code for _, code in outcomes] == [0, 0], outcomes
