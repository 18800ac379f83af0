"""From a data file and a model in a folder to the student, in one call."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SMALL = [
    "device=cpu",
    "precision=float32",
    "pretraining.training.steps=2",
    "fine_tuning.training.epochs=1",
    "seeds.fine_tuning=[0]",
]


@pytest.fixture
def teacher(step_model: Callable[[str], Path]) -> Path:
    """A model that is fine-tuned on the rows."""
    return step_model("fine-tune the teacher on toy, seed 0")


def test_new_checks_the_teacher_against_the_labels(
    teacher: Path, finished_run: Any, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    told = run_cli(
        "new", finished_run.folder / "train.jsonl", "--teacher", teacher, "--output", tmp_path / "recipe.yaml"
    )
    assert told.code == 0, told.stderr
    assert "it is fine-tuned already, and used as it is" in told.stdout
    planned = run_cli("plan", tmp_path / "recipe.yaml", "--output", tmp_path / "run")
    assert planned.code == 0, planned.stderr
    three = tmp_path / "three.jsonl"
    rows = [{"sentence": f"word {row} of some", "label": row % 3} for row in range(30)]
    three.write_text("\n".join(map(json.dumps, rows)))
    told = run_cli("new", three, "--teacher", teacher, "--output", tmp_path / "other.yaml")
    assert told.code == 2
    assert "is fine-tuned for 2 classes" in " ".join(told.stderr.split())
    assert not (tmp_path / "other.yaml").exists()


def test_distil_from_the_command_line(
    teacher: Path, finished_run: Any, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    options = [option for one in (*SMALL, "exports=[]") for option in ("--set", one)]
    told = run_cli(
        *("distil", "--train", finished_run.folder / "train.jsonl", "--teacher", teacher),
        *("--output", tmp_path / "run", *options),
    )
    assert told.code == 0, told.stderr
    assert (tmp_path / "run.yaml").exists()
    assert (tmp_path / "run" / "student" / "model.safetensors").exists()


def test_distil_from_python_answers_texts(teacher: Path, finished_run: Any, tmp_path: Path) -> None:
    import lightpaff

    lines = (finished_run.folder / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    small = lightpaff.distil(rows, teacher=teacher, output=tmp_path / "run", overrides=SMALL)
    assert small is not None
    assert small.student.is_dir()
    assert small.export is not None
    assert small.report.exists()
    assert {"teacher", "student", "control"} <= set(small.scores)
    assert 0 <= small.scores["student"]["accuracy"] <= 1
    answer = small(rows[0]["sentence"])
    assert answer
    with pytest.raises(lightpaff.UserError, match="was made for other data"):
        lightpaff.distil(rows[:40], teacher=teacher, output=tmp_path / "run", overrides=SMALL)
    with pytest.raises(lightpaff.UserError, match="holds no rows"):
        lightpaff.distil([], output=tmp_path / "other")
