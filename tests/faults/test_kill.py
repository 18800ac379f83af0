"""A run that is killed again and again ends with the same bits as one that is left in peace."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

DRIVER = Path(__file__).with_name("run_and_die.py")
SAVED_AT_EVERY_STEP = ("teacher.pretraining", "pretraining.training", "fine_tuning.training")
KILLED, STOPPED, WELL = -signal.SIGKILL, 130, 0
# Of the report, what does not depend on the clock or on where the run lies.
LASTING = (
    "rows",
    "curves",
    "disagreements",
    "samples",
    "data_cards",
    "comparisons",
    "agreement",
    "compute",
    "tasks",
    "summary",
)
TIMINGS = ("median_ms", "p95_ms", "throughput", "command")

TEACHER, STUDENT, CONTROL = (f"pre-train the {arm}" for arm in ("teacher", "student", "control"))
FINE_TEACHER, FINE_STUDENT, FINE_CONTROL = (
    f"fine-tune the {arm} on toy, seed 0" for arm in ("teacher", "student", "control")
)


@dataclass(frozen=True)
class Death:
    """How a process ends, in which training, at which step, and which checkpoints it leaves behind it."""

    how: str
    where: str | None
    at: int | None
    code: int
    saved: tuple[tuple[str, tuple[int, ...]], ...] = ()


# Pre-training takes 4 steps, fine-tuning 5; the last one is not followed by a checkpoint.
DEATHS = [
    Death("interrupted in the data", None, None, STOPPED),
    Death("killed after a checkpoint", TEACHER, 2, KILLED, ((TEACHER, (1, 2)),)),
    Death("killed after a checkpoint", FINE_TEACHER, 1, KILLED, ((TEACHER, (3,)), (FINE_TEACHER, (1,)))),
    Death("killed in the result", FINE_TEACHER, None, KILLED, ((FINE_TEACHER, (2, 3, 4)),)),
    Death("killed in a checkpoint", STUDENT, 2, KILLED, ((STUDENT, (1,)),)),
    Death("killed after a checkpoint", FINE_STUDENT, 3, KILLED, ((STUDENT, (2, 3)), (FINE_STUDENT, (1, 2, 3)))),
    Death("killed after a checkpoint", CONTROL, 1, KILLED, ((FINE_STUDENT, (4,)), (CONTROL, (1,)))),
    Death("killed after a checkpoint", FINE_CONTROL, 2, KILLED, ((CONTROL, (2, 3)), (FINE_CONTROL, (1, 2)))),
    Death("interrupted after a checkpoint", FINE_CONTROL, 3, STOPPED, ((FINE_CONTROL, (3,)),)),
    # At the last step the stop must not get lost: it is saved too.
    Death("interrupted in an evaluation", FINE_CONTROL, 4, STOPPED, ((FINE_CONTROL, (4, 5)),)),
    Death("killed in the delivery", None, None, KILLED),
    Death("lives", None, None, WELL),
]

# A decoder asks its teacher live in fine-tuning too; so does an encoder-decoder, whose teacher also writes targets.
DECODER_DEATHS = [
    Death(
        "killed after a checkpoint",
        STUDENT,
        2,
        KILLED,
        ((TEACHER, (1, 2, 3)), (FINE_TEACHER, (1, 2, 3, 4)), (STUDENT, (1, 2))),
    ),
    Death("killed after a checkpoint", FINE_STUDENT, 3, KILLED, ((STUDENT, (3,)), (FINE_STUDENT, (1, 2, 3)))),
    Death(
        "interrupted in an evaluation",
        FINE_CONTROL,
        4,
        STOPPED,
        ((FINE_STUDENT, (4,)), (CONTROL, (1, 2, 3)), (FINE_CONTROL, (1, 2, 3, 4, 5))),
    ),
    Death("lives", None, None, WELL),
]
ENCODER_DECODER_DEATHS = [
    Death(
        "killed after a checkpoint",
        STUDENT,
        2,
        KILLED,
        ((TEACHER, (1, 2, 3)), (FINE_TEACHER, (1, 2, 3, 4)), (STUDENT, (1, 2))),
    ),
    Death("killed in the teacher's texts", None, None, KILLED, ((STUDENT, (3,)),)),
    Death("killed after a checkpoint", FINE_STUDENT, 3, KILLED, ((FINE_STUDENT, (1, 2, 3)),)),
    Death("lives", None, None, WELL, ((FINE_STUDENT, (4,)), (CONTROL, (1, 2, 3)), (FINE_CONTROL, (1, 2, 3, 4)))),
]


class Processes:
    """The processes of tests/faults/run_and_die.py, one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = subprocess.Popen(
            [sys.executable, DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(self, death: Death, recipe: Path, output: Path) -> tuple[int, str, str]:
        """The return code, standard output and standard error of a process."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        options = [f"--set={key}.checkpoint_seconds=0" for key in SAVED_AT_EVERY_STEP]
        arguments = ["run", str(recipe), "--output", str(output), *options]
        printed = self._folder / "printed"
        print(
            json.dumps({**asdict(death), "arguments": arguments, "output": str(printed)}),
            file=self._server.stdin,
            flush=True,
        )
        code = int(self._server.stdout.readline())
        return code, printed.with_suffix(".stdout").read_text(), printed.with_suffix(".stderr").read_text()

    def stop(self) -> None:
        self._server.communicate()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    server = Processes(tmp_path)
    yield server
    server.stop()


def saved_checkpoints(stdout: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    steps: dict[str, list[int]] = {}
    for line in stdout.splitlines():
        if line.startswith("saved "):
            step, training = line.removeprefix("saved ").split(" of ", 1)
            steps.setdefault(training, []).append(int(step))
    return tuple((training, tuple(found)) for training, found in steps.items())


def lasting_report(output: Path) -> dict[str, Any]:
    report = json.loads((output / "report" / "report_data.json").read_text())
    rows = [{key: value for key, value in row.items() if key not in TIMINGS} for row in report["rows"]]
    return {name: report[name] for name in LASTING} | {"rows": rows}


def results_by_step(output: Path) -> dict[tuple[str, str], bytes]:
    """Weights, soft targets, likelihoods, tokens and texts, by step and name of the file."""
    steps = json.loads((output / "run.json").read_text())["steps"]
    return {
        (step, file.name): file.read_bytes()
        for step, directory in steps.items()
        for file in (output.parent / "steps" / directory).rglob("*")
        if file.suffix in (".safetensors", ".arrow", ".jsonl")
    }


def student_files(output: Path) -> dict[str, bytes]:
    # The manifest says where the student was copied from.
    files = (file for file in (output / "student").rglob("*") if file.is_file() and file.name != "manifest.json")
    return {str(file.relative_to(output / "student")): file.read_bytes() for file in files}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("finished", "deaths"),
    [
        ("finished_run", DEATHS),
        ("finished_decoder_run", DECODER_DEATHS),
        pytest.param("finished_encoder_decoder_run", ENCODER_DECODER_DEATHS, marks=pytest.mark.slow),
    ],
    ids=["encoder", "decoder", "encoder-decoder"],
)
def test_kill_at_every_training(
    finished: str,
    deaths: list[Death],
    processes: Processes,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    undisturbed = request.getfixturevalue(finished)
    recipe, output = undisturbed.folder / "recipe.yaml", tmp_path / "runs" / "killed"
    for death in deaths:
        code, stdout, stderr = processes.run(death, recipe, output)
        assert code == death.code, f"{death}:\n{stderr}"
        # Resumed where it was killed: no step of a training is taken twice, and none is left out.
        assert saved_checkpoints(stdout) == death.saved, death
        if death.code == STOPPED:
            check_stop(death, stderr)
    assert lasting_report(output) == lasting_report(undisturbed.output)
    results = results_by_step(output)
    trained = {step for step, file in results if file == "model.safetensors"}
    assert {TEACHER, FINE_TEACHER, STUDENT, FINE_STUDENT, CONTROL, FINE_CONTROL} < trained
    expected = results_by_step(undisturbed.output)
    assert results.keys() == expected.keys()
    assert [name for name, content in results.items() if content != expected[name]] == []
    student = student_files(output)
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= student.keys()
    assert student == student_files(undisturbed.output)
    assert not [path for path in tmp_path.rglob(".*") if path.suffix in (".part", ".old", ".work")]


def check_stop(death: Death, stderr: str) -> None:
    """Ctrl-C ends in one line that says how to go on."""
    assert "Traceback" not in stderr
    [message] = [line for line in stderr.splitlines() if line.startswith("lightpaff: ")]
    step = death.saved[-1][1][-1] if death.saved else None
    stopped = f"{death.where}: stopped and saved at step {step}. " if death.where else "Stopped. "
    assert message.startswith(f"lightpaff: {stopped}Go on with: lightpaff run ")
    assert "--set=pretraining.training.checkpoint_seconds=0" in message
