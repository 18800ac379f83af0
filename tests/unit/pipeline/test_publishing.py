"""Cards that cannot be made, and places that a download cannot go to; the Hub's own part is in the smoke tests."""

from pathlib import Path
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.pipeline.publishing import model_card, pull


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "student"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def _hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, local_dir: Path, **_: Any) -> None:
        local_dir.mkdir()
        (local_dir / "config.json").write_text("{}")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)


@pytest.mark.parametrize(
    ("readme", "told"),
    [
        (b"---\nlicense: [\n---\ntext", "correct what is between its ---"),
        (b"---\nonly words\n---\ntext", "are no keys with values"),
        (b"---\n- one\n---\ntext", "are no keys with values"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_card_that_cannot_be_read_is_told(readme: bytes, told: str, student: Path) -> None:
    (student / "README.md").write_bytes(readme)
    with pytest.raises(UserError, match=rf"README\.md: .*{told}"):
        model_card(student, "mit")


def test_a_card_is_kept_or_made(student: Path) -> None:
    assert "\n# student\n" in model_card(student, "mit")
    (student / "README.md").write_text("---\nlanguage: en\n---\n# Mine\n")
    card = model_card(student, "mit")
    assert "language: en" in card
    assert card.endswith("license: mit\n---\n# Mine\n")


def test_a_run_without_results_is_told(student: Path) -> None:
    (student.parent / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"report_data\.json: is missing; run the recipe to its end"):
        model_card(student, "mit")


@pytest.mark.parametrize("results", ["{", "[]", "{}"])
def test_results_that_cannot_be_read_are_told(results: str, student: Path) -> None:
    (student.parent / "run.json").write_text("{}")
    (student.parent / "report").mkdir()
    (student.parent / "report" / "report_data.json").write_text(results)
    with pytest.raises(UserError, match=r"its recipe or results cannot be read \(.*run it again"):
        model_card(student, "mit")


@pytest.mark.usefixtures("_hub")
def test_a_download_may_go_into_the_folder_that_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert pull("owner/small", Path(".")) == Path(".")
    assert (tmp_path / "empty" / "config.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.usefixtures("_hub")
def test_a_download_does_not_go_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file; give another --output"):
        pull("owner/small", tmp_path / "file")
    with pytest.raises(UserError, match="is not empty"):
        pull("owner/small", tmp_path)
    assert (tmp_path / "file").read_text() == "mine"
