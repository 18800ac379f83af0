"""Where a run and its steps go, and who may write there."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.pipeline import run
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import Export
from tests.conftest import TINY_RECIPE


@pytest.mark.parametrize(
    ("directory", "steps"),
    [
        ("runs/tiny", "runs/steps"),
        ("tiny", "steps"),
        (".", "../steps"),
        ("..", "../../steps"),
        ("runs/..", "../steps"),
        ("/somewhere/tiny", "/somewhere/steps"),
    ],
)
def test_steps_are_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str, steps: str) -> None:
    """Never in it: a run that was stopped before it took its directory would find them there, and refuse it."""
    here = tmp_path / "one" / "two"
    (here / "runs").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert run.steps_beside(Path(directory)).resolve() == (here / steps).resolve()


@pytest.mark.parametrize("directory", ["runs/steps", "steps", "."])
def test_a_run_is_not_where_steps_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    (tmp_path / "steps").mkdir()
    monkeypatch.chdir(tmp_path / "steps")
    with pytest.raises(
        UserError, match=f"{directory}: 'steps' is the name of the folder that runs share; give another"
    ):
        run.steps_beside(Path(directory))


def test_who_asks_whether_a_directory_can_be_written_takes_nothing_away(tmp_path: Path) -> None:
    """Another process that asks the same just now has its files there."""
    (tmp_path / ".write-probe").touch()
    run._make_writable(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".write-probe"]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    """A half-written folder with a half-written file in it too."""
    recipe = Recipe.model_validate(TINY_RECIPE)
    run._claim(tmp_path, recipe)
    folder = tmp_path / "exports" / ".onnx-int8.1234.part"
    folder.mkdir(parents=True)
    (folder / ".manifest.json.5678.part").touch()
    (tmp_path / ".recipe.yaml.9abc.part").touch()
    run._claim(tmp_path, recipe)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["exports", "recipe.yaml", "run.json"]


def test_an_export_that_is_refused_now_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Export(to="onnx", quantise="int8")
    export = SimpleNamespace(request=request, is_delivered=False)
    task = SimpleNamespace(task=SimpleNamespace(name="toy"), exports=[export])
    finished: Any = SimpleNamespace(
        graph=SimpleNamespace(tasks=[task]), exports=SimpleNamespace(exports=[request]), context=None
    )
    monkeypatch.setattr(run, "deliver_student", lambda *_: None)
    (tmp_path / "exports" / request.name).mkdir(parents=True)
    (tmp_path / "exports" / "asked-for-by-hand").mkdir()
    run._deliver_models(finished, tmp_path)
    assert [path.name for path in (tmp_path / "exports").iterdir()] == ["asked-for-by-hand"]
