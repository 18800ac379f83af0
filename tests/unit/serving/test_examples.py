"""The examples name files, packages and a command that exist; neither Docker nor systemd runs here."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
IMAGE = (ROOT / "examples" / "Dockerfile").read_text()
INSTRUCTIONS = [
    shlex.split(line) for line in IMAGE.replace("\\\n", " ").splitlines() if line and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SERVE = PROJECT["optional-dependencies"]["serve"]
MODULES = {"pyyaml": "yaml", "scikit-learn": "sklearn"}
BROUGHT_ALONG = {"scikit-learn", "scipy", "huggingface_hub", "packaging"}
"""By seqeval and tokenizers."""
OPEN_ALL = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
import lightpaff.cli, lightpaff.serving
from lightpaff.deployment import classifier, extractor, loading, onnx_runtime, tagger, text_loading
for module in pkgutil.iter_modules(lightpaff.serving.__path__, "lightpaff.serving."):
    importlib.import_module(module.name)
"""


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=]", requirement)[0] for requirement in requirements}


def installed() -> set[str]:
    """What the image has besides the project itself."""
    [packages] = [words[words.index("--constraint") + 2 :] for words in INSTRUCTIONS if "--constraint" in words]
    return set(packages)


def test_what_is_copied_is_there() -> None:
    copied = [words[1:-1] for words in INSTRUCTIONS if words[0] == "COPY" and "--from=build" not in words]
    sources = [source for sources in copied for source in sources if source != "${EXPORT}"]
    assert set(sources) >= {"lightpaff", "pyproject.toml", "requirements.lock"}
    assert all((ROOT / source).exists() for source in sources)
    assert PROJECT["readme"] in sources
    assert set(PROJECT["license-files"]) <= set(sources)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ".git" in ignored
    assert not set(sources) & set(ignored)


def test_what_is_installed_is_the_project_s_and_tested() -> None:
    locked = {line.partition("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert names_of(SERVE) <= installed() <= names_of(SERVE) | names_of(PROJECT["dependencies"])
    assert installed() <= locked


@pytest.mark.needs("fastapi", "uvicorn", "prometheus_client", "onnxruntime")
def test_what_is_not_installed_is_not_needed() -> None:
    absent = names_of(PROJECT["dependencies"]) - installed() - BROUGHT_ALONG
    assert "torch" in absent
    modules = [MODULES.get(name, name) for name in sorted(absent)]
    done = subprocess.run([sys.executable, "-c", OPEN_ALL, *modules], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_commands_are_known() -> None:
    from typer.main import get_command

    from lightpaff.cli import app

    options = {option for one in get_command(app).commands["serve"].params for option in one.opts}  # type: ignore[attr-defined]
    unit = (ROOT / "examples" / "lightpaff.service").read_text()
    given = set(re.findall(r"--[a-z-]+", IMAGE.partition("CMD")[2].partition("\n")[0]))
    given |= set(re.findall(r"--[a-z-]+", unit.partition("ExecStart=")[2].partition("\n")[0]))
    assert given == {"--host", "--workers", "--key-file"}
    assert given <= options
