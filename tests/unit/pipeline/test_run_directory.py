"""Where a run and its steps go, and who may write there."""

from pathlib import Path

import pytest

from lightpaff.errors import UserError
from lightpaff.pipeline import run


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
