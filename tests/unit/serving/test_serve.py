"""What stands before serving: the key, the place to listen, and an export that opens."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightpaff.errors import UserError
from lightpaff.serving.listening import address_of, bind, is_reached_from_elsewhere
from lightpaff.serving.serve import read_key
from lightpaff.serving.settings import KEY_ENVIRONMENT


@pytest.fixture
def broken_export(tmp_path: Path) -> Path:
    """Its card is well, its model is none."""
    card = {"format": "onnx", "quantisation": "none", "kind": "classes", "labels": ["a", "b"]}
    card |= {"max_length": 16, "longest_input": 16, "source_sha256": ""}
    (tmp_path / "export.json").write_text(json.dumps(card))
    (tmp_path / "model.onnx").write_bytes(b"no model")
    return tmp_path


@pytest.mark.needs("fastapi", "uvicorn", "prometheus_client", "onnxruntime")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_cannot_be_opened_is_a_line_however_many_workers(workers: str, broken_export: Path) -> None:
    command = [sys.executable, "-m", "lightpaff", "serve", str(broken_export), "--port", "0", "--workers", workers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    [line] = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith(f"lightpaff: {broken_export / 'model.onnx'}: cannot be read")


@pytest.mark.needs("fastapi", "uvicorn", "prometheus_client", "onnxruntime")
def test_a_worker_that_cannot_open_it_later_ends_in_a_line(broken_export: Path) -> None:
    code = """
import sys
from lightpaff.serving.serve import open_in_worker
from lightpaff.serving.settings import ServeSettings
ServeSettings(sys.argv[1]).to_environment()
open_in_worker()
"""
    done = subprocess.run([sys.executable, "-c", code, str(broken_export)], capture_output=True, text=True, timeout=120)
    [line] = done.stderr.splitlines()
    # uvicorn starts no other in the place of one that ends so.
    assert done.returncode == 3
    assert line.startswith("lightpaff: ")


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        yield bound


def test_the_address_is_the_one_that_answers(taken: socket.socket) -> None:
    assert address_of(taken) == f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert not is_reached_from_elsewhere(taken)
    with pytest.raises(UserError, match=r"cannot be had \(Address already in use\); give another --port"):
        bind("127.0.0.1", taken.getsockname()[1])
    with bind("0.0.0.0", 0) as everywhere:
        assert is_reached_from_elsewhere(everywhere)
    with bind("localhost", 0) as named:
        assert not is_reached_from_elsewhere(named)


def test_an_address_of_version_six_has_brackets() -> None:
    try:
        bound = bind("::1", 0)
    except UserError:
        pytest.skip("this machine has no IPv6")
    with bound:
        assert address_of(bound) == f"http://[::1]:{bound.getsockname()[1]}"
        assert not is_reached_from_elsewhere(bound)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 80 + ".invalid"])
def test_no_host_is_a_line(host: str) -> None:
    with pytest.raises(UserError, match="give another --port or --host"):
        bind(host, 0)


def test_a_key_has_no_white_space_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("from a file\n")
    assert read_key(tmp_path / "key") == "from a file"
    monkeypatch.setenv(KEY_ENVIRONMENT, "of the environment\r\n")
    assert read_key(None) == "of the environment"
    monkeypatch.setenv(KEY_ENVIRONMENT, "\n")
    with pytest.raises(UserError, match=f"{KEY_ENVIRONMENT}: is empty"):
        read_key(None)
    monkeypatch.delenv(KEY_ENVIRONMENT)
    assert read_key(None) == ""
