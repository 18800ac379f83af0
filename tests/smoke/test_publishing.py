"""An export goes to a Hub and comes back; the Hub is a server on this machine that keeps what it is given."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

COMMIT = "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub's protocol as one commit and one download take."""

    files: dict[str, bytes]

    def do_POST(self) -> None:
        body = self._body()
        if self.path.endswith("/repos/create"):
            self._say({"url": f"http://{self.headers['Host']}/owner/{json.loads(body)['name']}"})
        elif "/preupload/" in self.path:
            files = [{"path": one["path"], "uploadMode": "regular"} for one in json.loads(body)["files"]]
            self._say({"files": [{**one, "shouldIgnore": False, "oid": None} for one in files]})
        elif "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    type(self).files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._say(
                {
                    "success": True,
                    "commitOid": COMMIT,
                    "commitUrl": f"http://{self.headers['Host']}/owner/small/commit/{COMMIT}",
                }
            )
        elif self.path == "/api/validate-yaml":
            self._say({"errors": [], "warnings": []})
        elif "paths-info" in self.path:
            self._say([])
        else:
            self.send_error(404)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        self._give(with_body=True)

    def do_HEAD(self) -> None:
        self._give(with_body=False)

    def _give(self, *, with_body: bool) -> None:
        if "/resolve/" in self.path:
            content = type(self).files.get(self.path.split("/resolve/")[1].partition("/")[2])
            if content is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body:
                self.wfile.write(content)
        elif self.path.startswith("/api/models/") and "/tree/" in self.path:
            sizes = [(name, len(content)) for name, content in type(self).files.items()]
            self._say([{"type": "file", "path": name, "size": size, "oid": "0" * 40} for name, size in sizes])
        elif self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in type(self).files]
            self._say({"id": "owner/small", "modelId": "owner/small", "sha": COMMIT, "siblings": siblings, "tags": []})
        else:
            self.send_error(404)

    def _say(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """What the Hub holds."""
    from huggingface_hub import constants

    handler = type("OwnHub", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_a_token")
    yield handler.files
    server.shutdown()
    server.server_close()


@pytest.fixture
def export(finished_run: Any, run_cli: Callable[..., Any], tmp_path: Path) -> Path:
    told = run_cli("export", finished_run.output, "--to", "onnx", "--output", tmp_path / "export")
    assert told.code == 0, told.stderr
    return tmp_path / "export"


def test_an_export_goes_to_the_hub_and_comes_back(
    export: Path, hub: dict[str, bytes], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    from lightpaff.deployment import load

    told = run_cli("push", export, "owner/small", "--licence", "mit")
    assert told.code == 0, told.stderr
    assert set(hub) == {str(path.relative_to(export)) for path in export.rglob("*") if path.is_file()}
    hub["evil.py"] = hub["pytorch_model.bin"] = b"print('hello')"
    hub["model.bin"] = b"weights of another runtime"
    told = run_cli("pull", "owner/small", "--output", tmp_path / "back")
    assert told.code == 0, told.stderr
    assert not (tmp_path / "back" / "evil.py").exists()
    assert not (tmp_path / "back" / "pytorch_model.bin").exists()
    assert (tmp_path / "back" / "model.bin").exists()
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


@pytest.mark.parametrize(("name", "told"), [("small", "write OWNER/NAME"), ("owner/other", "cannot be had")])
def test_what_is_not_there_is_told(
    name: str, told: str, hub: dict[str, bytes], tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    hub.clear()
    outcome = run_cli("pull", name, "--output", tmp_path / "back")
    assert outcome.code == 2
    assert told in " ".join(outcome.stderr.split()) or "holds neither" in outcome.stderr
