"""Runs that share their steps: the teacher of the finished run serves them all."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def step_model(finished_run: Any) -> Callable[[str], Path]:
    """The model directory that a step of the finished run left, by the step's name."""
    steps = json.loads((finished_run.output / "run.json").read_text())["steps"]

    def model_of(step: str) -> Path:
        return Path(finished_run.output.parent / "steps" / steps[step] / "model")

    return model_of


@pytest.fixture
def ready_recipe(finished_run: Any, step_model: Callable[[str], Path], request: pytest.FixtureRequest) -> Any:
    """Fine-tuning only, with the finished run's pre-trained teacher as a ready-made one."""
    content = deepcopy(finished_run.content)
    content["teacher"] = {"source": str(step_model("pre-train the teacher"))}
    content["pretraining"] = None
    content["name"] = request.node.name.replace("[", "-").replace("]", "")
    return type(finished_run)(finished_run.folder, content)
