"""The other end of `worker`: starts it, asks it, lets it run only while it is asked, and kills it at the end."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightpaff.deployment.contenders import Contender
from lightpaff.errors import UserError


@dataclass(frozen=True)
class Timing:
    """One run: how long it took, and how many tokens were written (0 by a classifier)."""

    milliseconds: float
    tokens: int


class WorkerProcess:
    """A contender in its own process, stopped (SIGSTOP) unless it is asked something.

    Runtimes let their threads spin for a while after a run (OpenMP's for up to 200 ms), in case there is more to do:
    stopped, they take no time from the contender whose turn is next.
    """

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._folder = tempfile.TemporaryDirectory()
        # A file, since a pipe that nobody reads fills up.
        self._complaints = Path(self._folder.name) / "complaints.txt"
        with self._complaints.open("wb") as complaints:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lightpaff.deployment.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**os.environ, **_environment(contender.threads)},
                text=True,
                encoding="utf-8",
                # Ctrl-C is for the process that measures: it kills the workers itself.
                start_new_session=True,
            )

    @property
    def process_id(self) -> int:
        """Of the worker."""
        return self._process.pid

    def load(self) -> float:
        """Import the runtime and open the model; the seconds that this took.

        Raises:
            UserError: here and in the other methods: what went wrong in the worker.
        """
        contender = self._contender
        question = {
            "ask": "load",
            "directory": str(contender.directory),
            "runtime": contender.runtime,
            "work": contender.work,
            "quantisation": contender.quantisation,
            "threads": contender.threads,
        }
        return float(self._ask(question)["load_seconds"])

    def run(self, rows: list[list[int]], *, new_tokens: int, beams: int, length_penalty: float) -> Timing:
        """Run the model once on the token ids and time it."""
        options = {"new_tokens": new_tokens, "beams": beams, "length_penalty": length_penalty}
        return Timing(**self._ask({"ask": "run", "rows": rows, **options}))

    def peak_bytes(self) -> int:
        """The most memory that the worker has held so far."""
        return int(self._ask({"ask": "memory"})["peak_bytes"])

    def close(self) -> None:
        """Kill the worker."""
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        # A question that it did not live to read.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._folder.cleanup()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._signal(signal.SIGCONT)
        try:
            print(json.dumps(question), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise UserError(self._describe_end())
        self._signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(f"{self._contender.name}: {answer['error']}")
        return answer

    def _signal(self, number: signal.Signals) -> None:
        # Popen.send_signal sends nothing to a process that has ended.
        self._process.send_signal(number)

    def _describe_end(self) -> str:
        code = self._process.wait()
        complaints = self._complaints.read_text(encoding="utf-8", errors="replace").strip()
        last = (complaints.splitlines() or ["it said nothing"])[-1][:200]
        why = "killed, as a rule for want of memory" if code == -signal.SIGKILL else f"exit code {code}: {last}"
        return f"{self._contender.name}: its process ended ({why}); leave it out, or measure smaller batches"


def _environment(threads: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
