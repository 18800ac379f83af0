"""On a machine that others use, times are told with that."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lightpaff import machine
from lightpaff.pipeline import plan


def _use_a_core(until: float) -> None:
    while time.monotonic() < until:
        pass


@pytest.fixture
def busy_machine() -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_use_a_core, args=(time.monotonic() + 20,)) for _ in range(os.cpu_count() or 1)]
    for other in others:
        other.start()
    time.sleep(3)
    yield
    for other in others:
        other.kill()
        other.join()


def test_other_processes_are_noticed(busy_machine: None) -> None:
    assert machine.busy_share() > 0.3


def test_plan_says_that_the_machine_is_busy(
    tiny_recipe: Any, run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "busy_share", lambda: 0.83)
    outcome = run_cli("plan", tiny_recipe.write())
    assert outcome.code == 0
    told = " ".join((outcome.stdout + outcome.stderr).split())
    assert "the machine is busy: other processes use 83% of its cores, and alone it would be quicker" in told
    monkeypatch.setattr(plan, "busy_share", lambda: 0.03)
    outcome = run_cli("plan", tiny_recipe.write())
    assert "busy" not in outcome.stdout + outcome.stderr
