"""Run the command line and die on the way: python run_and_die.py '{"how": ..., "where": ..., "at": ...}' run ...

Every checkpoint is told on standard output, as `saved STEP of TRAINING`.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from lightpaff import cli
from lightpaff.pipeline import data_steps, measuring_steps, training_steps
from lightpaff.training import checkpoint, loop

DEATH: dict[str, Any] = json.loads(sys.argv.pop(1))
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
        if DEATH.get("where") in (None, place["training"]) and DEATH.get("at") in (None, place["step"]):
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
    "killed in a checkpoint": lambda: wrap(checkpoint, "write_whole", then=at_its_place(kill)),
    "killed in the result": lambda: wrap(training_steps, "write_json_whole", first=at_its_place(kill)),
    "interrupted after a checkpoint": lambda: wrap(loop, "save_checkpoint", then=at_its_place(interrupt)),
    "interrupted in an evaluation": lambda: wrap(training_steps, "validate_task", first=at_its_place(interrupt)),
    "killed in the delivery": lambda: wrap(shutil, "copytree", then=kill),
    "lives": lambda: None,
}

measuring_steps._SECONDS = 0.2
wrap(training_steps, "train", first=enter_training)
wrap(loop, "save_checkpoint", first=enter_checkpoint, then=tell_checkpoint)
DEATHS[DEATH["how"]]()
cli.main()
