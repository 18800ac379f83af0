"""Run the command line in processes of their own that die on the way.

Every line on standard input is a process: {"how": ..., "where": ..., "at": ..., "arguments": ..., "output": ...}.
It is forked, which spares it the seconds of the imports; what it prints goes to OUTPUT.stdout and OUTPUT.stderr, and
its return code, negative for a signal, to standard output. Every checkpoint is told as `saved STEP of TRAINING`.
"""

import importlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from lightpaff import cli
from lightpaff.objectives import clm
from lightpaff.pipeline import asking_steps, data_steps, measuring_steps, training_steps
from lightpaff.training import checkpoint, loop

death: dict[str, Any] = {}
place: dict[str, Any] = {"training": None, "step": 0}


def kill() -> None:
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def enter_training(job: loop.TrainingJob) -> None:
    place["training"] = job.description


def enter_checkpoint(*arguments: Any) -> None:
    place["step"] = arguments[-1].step


def tell_checkpoint() -> None:
    print(f"saved {place['step']} of {place['training']}")


def at_its_place(act: Callable[[], None]) -> Callable[..., None]:
    def act_or_not(*arguments: Any, **options: Any) -> None:
        if death["where"] in (None, place["training"]) and death["at"] in (None, place["step"]):
            act()

    return act_or_not


def wrap(
    module: ModuleType, name: str, *, first: Callable[..., None] | None = None, then: Callable[[], None] | None = None
) -> None:
    """Have a function of a module do something more before, with its arguments, and after."""
    real = getattr(module, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if first is not None:
            first(*arguments, **options)
        result = real(*arguments, **options)
        if then is not None:
            then()
        return result

    setattr(module, name, wrapped)


DEATHS: dict[str, Callable[[], None]] = {
    "interrupted in the data": lambda: wrap(data_steps, "prepare_corpus", first=at_its_place(interrupt)),
    "killed after a checkpoint": lambda: wrap(loop, "save_checkpoint", then=at_its_place(kill)),
    "killed in a checkpoint": lambda: wrap(checkpoint, "save_file", then=at_its_place(kill)),
    "killed in the result": lambda: wrap(training_steps, "write_json_whole", first=at_its_place(kill)),
    "interrupted after a checkpoint": lambda: wrap(loop, "save_checkpoint", then=at_its_place(interrupt)),
    "interrupted in an evaluation": lambda: wrap(training_steps, "validate_task", first=at_its_place(interrupt)),
    "killed in the teacher's texts": lambda: wrap(asking_steps, "write_targets", first=at_its_place(kill)),
    "killed in the delivery": lambda: wrap(shutil, "copytree", then=kill),
    "lives": lambda: None,
}


def live_and_die() -> int:
    """The life of a forked process; the return code, if it gets that far."""
    for number, ending in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(f"{death['output']}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    # A shell that starts the tests in the background has Ctrl-C ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wrap(training_steps, "train", first=enter_training)
    wrap(loop, "save_checkpoint", first=enter_checkpoint, then=tell_checkpoint)
    DEATHS[death["how"]]()
    sys.argv = ["lightpaff", *death["arguments"]]
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    return 1


importlib.import_module("lightpaff.pipeline.run")  # With all that it needs, before the first process is forked.
# As in tests/conftest.py.
measuring_steps._SECONDS = 0.2
measuring_steps.measure_latency = partial(measuring_steps.measure_latency, least_rounds=4)  # type: ignore[assignment]
clm._NEW_TOKENS = 4
for line in sys.stdin:
    death = json.loads(line)
    if (child := os.fork()) == 0:
        code = live_and_die()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
