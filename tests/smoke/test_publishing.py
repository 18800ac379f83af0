"""An export goes to a Hub and comes back; the Hub is a server on this machine that keeps what it is given."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.smoke.local_hub import serve_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What the Hub holds."""
    from huggingface_hub import constants

    with serve_hub() as (address, files):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_a_token")
        yield files


@pytest.fixture
def export(finished_run: Any, run_cli: Callable[..., Any], tmp_path: Path) -> Path:
    told = run_cli("export", finished_run.output, "--to", "onnx", "--output", tmp_path / "export")
    assert told.code == 0, told.stderr
    return tmp_path / "export"


def test_an_export_goes_to_the_hub_and_comes_back(
    export: Path, hub: dict[str, bytes], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    from lightpaff.deployment import load

    its_own = {str(path.relative_to(export)) for path in export.rglob("*") if path.is_file()}
    (export / ".cache").mkdir()
    for name in (".cache/notes.lock", "training_args.bin", "modeling_evil.py"):
        (export / name).write_text("not for others")
    told = run_cli("push", export, "owner/small", "--licence", "mit")
    assert told.code == 0, told.stderr
    assert set(hub) == its_own
    hub["evil.py"] = hub["pytorch_model.bin"] = b"print('hello')"
    hub["model.bin"] = b"weights of another runtime"
    told = run_cli("pull", "owner/small", "--output", tmp_path / "back")
    assert told.code == 0, told.stderr
    assert not (tmp_path / "back" / "evil.py").exists()
    assert not (tmp_path / "back" / "pytorch_model.bin").exists()
    assert (tmp_path / "back" / "model.bin").exists()
    assert not (tmp_path / "back" / ".cache").exists()
    assert load(tmp_path / "back")("kind and warm") == load(export)("kind and warm")
    assert "license: mit" in (tmp_path / "back" / "README.md").read_text()


def test_a_student_s_card_has_its_results(
    finished_run: Any, hub: dict[str, bytes], run_cli: Callable[..., Any]
) -> None:
    student = finished_run.output / "student"
    told = run_cli("push", student, "owner/small")
    assert told.code == 2
    assert "licence is not known here; give --licence" in " ".join(told.stderr.split())
    assert not hub
    assert run_cli("push", student, "owner/small", "--licence", "apache-2.0").code == 0
    metadata = yaml.safe_load(hub["README.md"].decode().split("---\n")[1])
    assert metadata["license"] == "apache-2.0"
    [result] = metadata["model-index"][0]["results"]
    assert {one["type"] for one in result["metrics"]} == {"accuracy", "f1"}
    assert "model.safetensors" in hub


def test_a_broken_download_leaves_nothing_and_may_be_tried_again(
    export: Path, hub: dict[str, bytes], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    assert run_cli("push", export, "owner/small", "--licence", "mit").code == 0
    card = hub.pop("export.json")
    assert run_cli("pull", "owner/small", "--output", tmp_path / "back").code == 2
    assert list(tmp_path.iterdir()) == [export]
    hub["export.json"] = card
    assert run_cli("pull", "owner/small", "--output", tmp_path / "back", "--revision", "main").code == 0


@pytest.mark.parametrize(("name", "told"), [("small", "write OWNER/NAME"), ("owner/other", "cannot be had")])
def test_what_is_not_there_is_told(
    name: str, told: str, hub: dict[str, bytes], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    hub.clear()
    outcome = run_cli("pull", name, "--output", tmp_path / "back")
    assert outcome.code == 2
    assert told in " ".join(outcome.stderr.split()) or "holds neither" in outcome.stderr
