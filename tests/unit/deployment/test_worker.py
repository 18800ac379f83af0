import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from transformers import BertConfig, BertForSequenceClassification

from lightpaff.deployment import worker
from lightpaff.deployment.contenders import Contender, find_contenders
from lightpaff.deployment.worker_process import WorkerProcess
from lightpaff.errors import UserError


@pytest.fixture(scope="module")
def contender(tmp_path_factory: pytest.TempPathFactory) -> Contender:
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    return find_contenders({"tiny": folder}, ["pytorch"], threads=1)[0][0]


@pytest.fixture(scope="module")
def process(contender: Contender) -> Iterator[WorkerProcess]:
    started = WorkerProcess(contender)
    assert started.load() > 0
    yield started
    started.close()


def run(process: WorkerProcess, rows: list[list[int]]) -> Any:
    return process.run(rows, new_tokens=4, beams=1, length_penalty=1.0)


def test_it_runs_when_asked_and_stands_still_otherwise(process: WorkerProcess) -> None:
    timing = run(process, [[5, 6, 7], [8, 9]])
    assert 0 < timing.milliseconds < 10_000
    assert timing.tokens == 0
    watched = psutil.Process(process.process_id)
    deadline = time.monotonic() + 5
    while watched.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        time.sleep(0.01)
    assert watched.status() == psutil.STATUS_STOPPED
    assert run(process, [[5]]).milliseconds > 0


def test_memory_is_what_its_process_held(process: WorkerProcess) -> None:
    held = psutil.Process(process.process_id).memory_info().rss
    assert 0.9 * held <= process.peak_bytes() < 20 * held


def test_an_error_is_one_line_and_does_not_end_it(process: WorkerProcess) -> None:
    with pytest.raises(UserError, match=r"^tiny: .*; leave it out") as raised:
        run(process, [[5] * 40])  # It has 32 positions.
    assert "\n" not in str(raised.value)
    assert run(process, [[5]]).milliseconds > 0


def test_a_missing_model_is_told(tmp_path: Path) -> None:
    load = {"ask": "load", "directory": str(tmp_path), "runtime": "pytorch", "work": "classes"}
    out = io.StringIO()
    worker.serve([json.dumps({**load, "quantisation": "none", "threads": 1})], out)
    assert "holds no config.json; give" in json.loads(out.getvalue())["error"]


def test_a_worker_that_dies_is_told(contender: Contender) -> None:
    process = WorkerProcess(contender)
    try:
        os.kill(process.process_id, signal.SIGKILL)
        with pytest.raises(UserError, match=r"tiny: its process ended \(killed"):
            process.load()
    finally:
        process.close()
    assert not psutil.pid_exists(process.process_id)


def test_a_killed_parent_takes_a_stopped_worker_along(contender: Contender) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from lightpaff.deployment.contenders import Contender
        from lightpaff.deployment.worker_process import WorkerProcess
        process = WorkerProcess(Contender("a", Path(sys.argv[1]), "pytorch", 1, 1, "none", "classes", None, 50))
        process.peak_bytes()
        print(process.process_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(contender.directory)]
    finished = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    process_id = int(finished.stdout)
    deadline = time.monotonic() + 10
    while _is_alive(process_id) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_alive(process_id)


def _is_alive(process_id: int) -> bool:
    try:
        return bool(psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_it_loads_no_torch_of_its_own() -> None:
    code = "import sys, lightpaff.deployment.worker; print({'torch', 'transformers'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "set()"


class Recorder:
    """A classifier and an encoder-decoder that keep what they are given."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        made.append(self)

    def logits(self, ids_BS: NDArray[np.int64], mask_BS: NDArray[np.int64]) -> None:
        self.calls.append((ids_BS.tolist(), mask_BS.tolist()))

    def write(self, sources: list[list[int]], **options: Any) -> list[list[int]]:
        self.calls.append((sources, options))
        return [[1, 2], [3]]


made: list[Recorder] = []


def answers_to(work: str, questions: list[dict[str, Any]], patch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    patch.setattr(worker, "open_runner", lambda *arguments: Recorder())
    load = {"ask": "load", "directory": "x", "runtime": "onnx", "work": work, "quantisation": "int8", "threads": 1}
    out = io.StringIO()
    worker.serve([json.dumps(question) for question in [load, *questions]], out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_rows_are_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    questions: list[dict[str, Any]] = [
        {"ask": "run", "rows": [[5, 6], [7]], "new_tokens": 1, "beams": 1, "length_penalty": 1.0},
        {"ask": "quit"},
        {"ask": "memory"},
    ]
    loaded, ran = answers_to("classes", questions, monkeypatch)
    assert loaded["load_seconds"] >= 0
    assert ran["tokens"] == 0
    assert made[-1].calls == [([[5, 6], [7, 0]], [[1, 1], [1, 0]])]


def test_what_is_written_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    question = {"ask": "run", "rows": [[5], [6]], "new_tokens": 9, "beams": 4, "length_penalty": 0.5}
    _, ran = answers_to("target_tokens", [question], monkeypatch)
    assert ran["tokens"] == 3
    assert made[-1].calls == [([[5], [6]], {"beams": 4, "length_penalty": 0.5, "max_tokens": 9})]
