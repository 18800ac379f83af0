"""Steps that are done once and kept: each has a fingerprint of its settings, its inputs and their content.

A done step is a directory `KIND-FINGERPRINT` with a manifest, whole or absent; any run that needs the same step reuses
it. While a step works, its checkpoints are beside it in `.KIND-FINGERPRINT.work`.
"""

import contextlib
import fcntl
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lightpaff import ranks
from lightpaff.errors import UserError
from lightpaff.files import MANIFEST, alone_with, read_manifest, whole_directory
from lightpaff.recipe import fingerprint_of

VERSIONS = {
    "tokenizer": 4,
    "corpus": 5,
    "task": 8,
    "initial": 4,
    "pretrain": 7,
    "finetune": 10,
    "capture": 6,
    "sequences": 2,
    "predict": 5,
    "baseline": 1,
    "latency": 2,
    "choose": 2,
    "export": 7,
    "check": 4,
    "online": 3,
    "noise": 2,
}
"""Raise a kind's number when its work changes: what was done the old way is then not reused."""

_TOGETHER = ("pretrain", "finetune", "capture")
"""The kinds that all ranks work on."""


@dataclass(frozen=True)
class StepFolders:
    """Where a step works.

    Attributes:
        result: an empty directory; what is in it when the work ends is the step's result.
        checkpoints: a directory that outlives a kill, until the step is done.
    """

    result: Path
    checkpoints: Path


@dataclass(frozen=True)
class Step:
    """One step of a run.

    Attributes:
        name: for people.
        kind: one of the kinds above.
        settings: everything besides the inputs that the result depends on, JSON-like.
        inputs: the steps whose results it reads.
        root: the folder of all steps.
        work: fills `StepFolders.result` and returns facts for the manifest.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    inputs: tuple["Step", ...]
    root: Path
    work: Callable[["Step", StepFolders], dict[str, Any]] = field(repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """Of the kind and its version, the settings and the inputs' fingerprints."""
        return fingerprint_of(
            {
                "kind": self.kind,
                "version": VERSIONS[self.kind],
                "settings": self.settings,
                "inputs": [step.fingerprint for step in self.inputs],
            }
        )

    @property
    def directory(self) -> Path:
        """Where the result is, once done."""
        return self.root / f"{self.kind}-{self.fingerprint[:20]}"

    @property
    def checkpoints(self) -> Path:
        """Where unfinished work is kept."""
        return self.root / f".{self.directory.name}.work"

    @property
    def state(self) -> str:
        """`done`, `started` (it will resume) or `to do`."""
        if (self.directory / MANIFEST).exists():
            return "done"
        return "started" if self.checkpoints.exists() and any(self.checkpoints.glob("step-*")) else "to do"


@dataclass(frozen=True)
class DoneStep:
    """A step's result: its facts, how long it took when it was done, and whether that was in an earlier run."""

    step: Step
    facts: dict[str, Any]
    seconds: float
    reused: bool


def run_step(step: Step) -> DoneStep:
    """Do a step whose inputs are done, or read what was done before.

    Raises:
        UserError: when a done step does not match its manifest, or has another fingerprint.
    """
    with _only_here(step):
        return _done(step)


def try_step(step: Step) -> DoneStep | None:
    """The same; None where another process is doing it just now."""
    step.root.mkdir(parents=True, exist_ok=True)
    with open(_lock_path(step), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return _done(step)


def _done(step: Step) -> DoneStep:
    reused = step.state == "done"
    if not reused:
        _do(step)
    facts = read_manifest(step.directory)
    if facts.get("fingerprint") != step.fingerprint:
        raise UserError(f"{step.directory}: is the result of another step; delete it and run again")
    return DoneStep(step, facts, float(facts["seconds"]), reused)


def share_out(steps: list[Step]) -> None:
    """Where several ranks run, let each do every n-th of these steps, whose inputs are done, and wait for all.

    Raises:
        UserError: as `run_step`; another rank ended.
    """
    if ranks.count() == 1 or len(steps) < 2:
        return
    for step in steps[ranks.number() :: ranks.count()]:
        run_step(step)
    ranks.wait()


def run_step_with_ranks(step: Step) -> DoneStep:
    """The same where several ranks run: they train and capture together, and for the rest wait for the first.

    Raises:
        UserError: as `run_step`; another rank ended.
    """
    if ranks.count() == 1:
        return run_step(step)
    if step.kind not in _TOGETHER:
        with ranks.first_before_others():
            return run_step(step)
    with _only_here(step) if ranks.is_first() else contextlib.nullcontext():
        if not ranks.shared(step.state == "done"):
            if ranks.is_first():
                _do(step)
            else:
                with tempfile.TemporaryDirectory() as unread:
                    step.work(step, StepFolders(Path(unread), step.checkpoints))
        ranks.wait()
    return run_step(step)


def _do(step: Step) -> None:
    started = time.monotonic()
    _remove_leftovers(step)
    step.checkpoints.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"fingerprint": step.fingerprint, "name": step.name}
    with whole_directory(step.directory, facts) as result:
        facts.update(step.work(step, StepFolders(result, step.checkpoints)))
        # A resumed training knows its own time over all interruptions.
        facts.setdefault("seconds", round(time.monotonic() - started, 2))
    shutil.rmtree(step.checkpoints, ignore_errors=True)


def _remove_leftovers(step: Step) -> None:
    # A killed process leaves its half-written result under a temporary name.
    for path in step.root.glob(f".{step.directory.name}.*.part"):
        shutil.rmtree(path, ignore_errors=True)


def _lock_path(step: Step) -> Path:
    return step.root / f".{step.directory.name}.lock"


def _only_here(step: Step) -> AbstractContextManager[None]:
    """Two runs that share a step do not do it at the same time: the second waits, then reuses it."""
    return alone_with(_lock_path(step), f"{step.name}: another run is doing this step; waiting for it")
