"""`lightpaff benchmark` over finished runs: thread counts, and the task's own inputs."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from lightpaff.deployment.measuring import Measurement
from lightpaff.pipeline.benchmark_run import Benchmark, print_benchmark

QUICK = ("--batch", 1, "--seconds", 0, "--new-tokens", 2, "--beams", 2)


def lengths_of(path: Path) -> list[int]:
    return [len(ids) for ids in pa.ipc.open_file(path).read_all()["input_ids"].to_pylist()]


@pytest.mark.slow
def test_every_number_of_threads_is_measured_by_itself(finished_run: Any, run_cli: Callable[..., Any]) -> None:
    options = (*QUICK, "--length", 8, "--own", "--threads", 2, "--threads", 1, "--threads", 2)
    outcome = run_cli("benchmark", finished_run.output, *options, "--json")
    assert outcome.code == 0, outcome.stderr
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    contenders = len({row["contender"] for row in rows})
    assert {(row["threads"], row["length"]) for row in rows} == {(2, 8), (2, None), (1, 8), (1, None)}
    assert [row["threads"] for row in rows] == [2] * 2 * contenders + [1] * 2 * contenders
    assert {row["ratio"] for row in rows if row["contender"] == "teacher"} == {1.0}
    console = Console(width=140, file=io.StringIO(), record=True)
    print_benchmark(Benchmark([Measurement(**row) for row in rows], ["a note"]), console)
    text = " ".join(console.export_text().split())
    assert text.index("; 2 threads;") < text.index("; 1 thread;") < text.index("a note")


def test_a_run_alone_is_measured_on_its_own_inputs_too(
    finished_encoder_decoder_run: Any, run_cli: Callable[..., Any], step_directory: Callable[[Path, str], Path]
) -> None:
    output = finished_encoder_decoder_run.output
    outcome = run_cli("benchmark", output, *QUICK, "--threads", 1, "--json")
    assert outcome.code == 0, outcome.stderr
    rows = [json.loads(line) for line in outcome.stdout.splitlines()]
    # The models read 64 tokens.
    assert {row["length"] for row in rows} == {32, None}
    task = json.loads((output / "run.json").read_text())["recipe"]["tasks"][0]
    lengths = lengths_of(step_directory(output, f"prepare the rows of {task['name']}") / "validation.arrow")
    own = {row["mean_length"] for row in rows if row["length"] is None}
    assert len(own) == 1
    assert min(lengths) < own.pop() < max(lengths)


def test_a_model_alone_has_no_inputs_of_its_own(finished_run: Any, run_cli: Callable[..., Any]) -> None:
    outcome = run_cli("benchmark", finished_run.output / "student", *QUICK, "--own")
    assert outcome.code == 2
    assert "--own: none of the paths is a run" in outcome.message
