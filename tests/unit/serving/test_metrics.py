"""Figures of one worker and of several."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

WAIT = """
import os
from lightpaff.serving.metrics import Metrics
metrics = Metrics()
metrics.queued.set(5)
print([line for line in metrics.text().decode().splitlines() if line.startswith("lightpaff_queued ")][0])
"""
COUNT = """
import json, sys
from lightpaff.serving.metrics import Metrics
metrics = Metrics()
for same in sys.argv[1]:
    metrics.count_comparison({"0": False, "1": True, "-": None}[same])
print(json.dumps(metrics.agreement()))
"""


def counted(comparisons: str, environment: dict[str, str]) -> dict[str, int]:
    """What a worker says after these comparisons."""
    said: dict[str, int] = json.loads(printed([COUNT, comparisons], environment))
    return said


def printed(program: list[str], environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", *program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return done.stdout


def test_agreement_is_that_of_all_workers(tmp_path: Path) -> None:
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    assert counted("110", shared) == {"same": 2, "seen": 3}
    # Of what the teacher gave no answer to, nobody knows whether it is the same.
    assert counted("10-", shared) == {"same": 3, "seen": 5}
    assert counted("", {}) == {"same": 0, "seen": 0}


def test_what_waited_at_a_dead_worker_waits_no_more(tmp_path: Path) -> None:
    for _ in range(2):
        assert printed([WAIT], {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}) == "lightpaff_queued 5.0\n"
