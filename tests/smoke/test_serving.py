"""An export behind HTTP: answers, refusals, completions, the page, and processes that are stopped and killed."""

import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lightpaff.deployment import load

pytestmark = [pytest.mark.needs("fastapi", "uvicorn", "prometheus_client")]
JSON = {"Content-Type": "application/json"}
KEY = "a key"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=\"document.title='stolen'\"><script>document.title='stolen'</script> warm"


@pytest.fixture(scope="session")
def export(finished_run: Any, run_cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier in ONNX."""
    folder = tmp_path_factory.mktemp("exports")
    told = run_cli("export", finished_run.output, "--to", "onnx", "--output", folder / "toy")
    assert told.code == 0, told.stderr
    return folder / "toy"


@pytest.fixture(scope="session")
def writing_export(
    finished_decoder_run: Any, run_cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    told = run_cli("export", finished_decoder_run.output, "--to", "onnx", "--output", folder / "toy")
    assert told.code == 0, told.stderr
    return folder / "toy"


@contextmanager
def serving(export: Path, **settings: Any) -> Iterator[int]:
    """A server in a thread of this process; its port."""
    import uvicorn

    from lightpaff.serving.app import create_app
    from lightpaff.serving.connections import Connection
    from lightpaff.serving.settings import ServeSettings

    app = create_app(ServeSettings(str(export), **settings))
    options: dict[str, Any] = {"http": Connection, "log_level": "error", "timeout_graceful_shutdown": 5}
    server = uvicorn.Server(uvicorn.Config(app, port=0, **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)


SMALL = {
    "most_bytes": 20_000,
    "most_inputs": 8,
    "most_characters": 500,
    "most_characters_in_all": 2_000,
    "body_timeout_s": 0.5,
}


@pytest.fixture(scope="module")
def port(export: Path) -> Iterator[int]:
    with serving(export, **SMALL) as found:
        yield found


def ask(
    port: int, path: str = "/v1/answers", body: Any = None, headers: dict[str, str] = JSON, method: str = "POST"
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    content = body if isinstance(body, bytes | str) else None if body is None else json.dumps(body)
    connection.request(method, path, content, headers)
    response = connection.getresponse()
    said = response.read()
    connection.close()
    kind = response.headers.get("Content-Type", "")
    return response.status, json.loads(said) if "json" in kind else said.decode(), dict(response.headers)


def test_answers_are_those_of_the_export(port: int, export: Path) -> None:
    texts = ["kind and warm", "cold", "a film that is neither"]
    status, said, _ = ask(port, body={"inputs": texts})
    assert status == 200
    expected = load(export)(texts)
    assert [one["label"] for one in said["answers"]] == [one.label for one in expected]
    for one, other in zip(said["answers"], expected, strict=True):
        assert one["probability"] == pytest.approx(other.probability, abs=1e-5)
        assert sum(one["probabilities"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("body", "headers", "status", "told"),
    [
        ({"inputs": []}, JSON, 422, "has 0; give 1 to 8"),
        ({"inputs": ["a"] * 9}, JSON, 422, "has 9"),
        ({"inputs": [3]}, JSON, 422, "inputs.0: give a text"),
        ({"inputs": [["a", "b"]]}, JSON, 422, "inputs.0: give a text"),
        ({"inputs": ["x" * 501]}, JSON, 422, "has 501 characters; 500 are the most"),
        ({"inputs": ["x" * 400] * 6}, JSON, 422, "inputs: have 2,400 characters in all; 2,000 are the most"),
        ({"inputs": [" "]}, JSON, 422, "inputs.0: is empty"),
        ({"inputs": ["a", "\x00 \x1b\u200b"]}, JSON, 422, "inputs.1: is empty"),
        ({"inputs": ["\ud800"]}, JSON, 422, "half of a character"),
        ({"inputs": "text"}, JSON, 422, "give a list"),
        ([], JSON, 422, "is no object"),
        ("{", JSON, 400, "is no JSON"),
        ("[" * 9000 + "]" * 9000, JSON, 400, "is no JSON"),
        (b"\xff\xfe", JSON, 400, "is no JSON"),
        ({"inputs": ["a"]}, {"Content-Type": "text/plain"}, 415, "not application/json"),
        (gzip.compress(b'{"inputs": ["a"]}'), {**JSON, "Content-Encoding": "gzip"}, 415, "is packed"),
        ("x" * 20_001, JSON, 413, "larger than 20,000 bytes"),
        (b"x" * 8_000_000, JSON, 413, "larger than 20,000 bytes"),
    ],
)
def test_what_cannot_be_answered_is_told(body: Any, headers: dict[str, str], status: int, told: str, port: int) -> None:
    found, said, _ = ask(port, body=body, headers=headers)
    assert (found, told in said["error"]["message"]) == (status, True), said
    assert ask(port, body={"inputs": ["still here"]})[0] == 200


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/../../app.py", "/v1"])
def test_no_other_file_is_sent(path: str, port: int) -> None:
    assert ask(port, path, method="GET")[0] == 404


def test_a_body_in_pieces_is_counted_too(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST /v1/answers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        client.sendall(b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            client.sendall(b"1388\r\n" + b"x" * 5000 + b"\r\n")
        assert b" 413 " in client.recv(4096)


def test_a_slow_client_does_not_keep_its_place(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST /v1/answers HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in client.recv(4096)


def test_a_client_that_asks_first_is_refused_before_it_sends(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"POST /v1/answers HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_refusal_is_counted_under_its_path(port: int) -> None:
    assert ask(port, body=b"x" * 20_001)[0] == 413
    assert ask(port, "/v1/anything", method="GET")[0] == 404
    figures = ask(port, "/metrics", method="GET")[1]
    assert 'lightpaff_requests_total{path="/v1/answers",status="413"}' in figures
    assert 'lightpaff_requests_total{path="other",status="404"}' in figures
    assert "/v1/anything" not in figures


def test_nobody_is_sent_to_where_the_client_says(port: int) -> None:
    status, _, headers = ask(port, "/v1/answers/", {"inputs": ["a"]}, {**JSON, "Host": "elsewhere.example"})
    assert (status, "location" in headers) == (404, False)


def test_a_client_that_hangs_up_ends_nothing(port: int) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(b"POST /v1/answers HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert ask(port, body={"inputs": ["still here"]})[0] == 200


def test_whoever_hangs_up_leaves_the_queue(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightpaff.serving.answering import Served

    may, done, do = threading.Event(), [], Served.do

    def wait_and_do(served: Served, works: list[Any]) -> list[Any]:
        may.wait(20)
        done.append(len(works))
        return do(served, works)

    monkeypatch.setattr(Served, "do", wait_and_do)
    body = json.dumps({"inputs": ["some words"] * 20}).encode()
    head = (
        f"POST /v1/answers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with serving(export, queue=64) as port:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                client.sendall(head.encode() + body)
                wait_for_figure(port, "lightpaff_queued 20.0")
            wait_for_figure(port, "lightpaff_queued 0.0")
        may.set()
        assert ask(port, body={"inputs": ["still here"]})[0] == 200
        assert 'path="/v1/answers",status="499"} 3.0' in ask(port, "/metrics", method="GET")[1]
    # Of the first, a piece was being worked on; of the others, nothing.
    assert done == [16, 1]


def wait_for_figure(port: int, line: str) -> None:
    deadline = time.monotonic() + 20
    while line not in ask(port, "/metrics", method="GET")[1]:
        assert time.monotonic() < deadline, f"{line} did not come"
        time.sleep(0.01)


def test_of_a_long_text_it_is_told_that_it_was_cut(port: int) -> None:
    short, long = ask(port, body={"inputs": ["warm", "warm and kind " * 30]})[1]["answers"]
    assert long["truncated"] is True
    assert "truncated" not in short


def test_a_decoder_of_little_room_answers(writing_export: Path) -> None:
    with serving(writing_export) as port:
        status, said, _ = ask(port, body={"inputs": ["good day", "good day " * 40]})
        assert status == 200, said
        assert [one.get("truncated") for one in said["answers"]] == [None, True]
        choice = ask(port, "/v1/completions", {"prompt": "good day " * 40, "max_tokens": 4})[1]["choices"][0]
        assert choice["truncated"] is True


def test_a_stream_goes_on_from_what_it_said(writing_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightpaff.deployment.onnx_runtime import OnnxTokenRunner

    real, read = OnnxTokenRunner.continue_prompts, []

    def otherwise_each_time(runner: Any, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """As answers of 8 bits are, where neighbours change them."""
        read.append(len(prompts[0]))
        return [[id_ + len(read) for id_ in row] for row in real(runner, prompts, new_tokens)]

    monkeypatch.setattr(OnnxTokenRunner, "continue_prompts", otherwise_each_time)
    body = {"prompt": "good", "max_tokens": 20, "stream": True, "stream_options": {"include_usage": True}}
    with serving(writing_export) as port:
        said = ask(port, "/v1/completions", body)[1]
    assert said.endswith("data: [DONE]\n\n"), said
    assert '"completion_tokens": 20' in said
    assert [after - read[0] for after in read] == [0, 8, 16]


def test_a_key_is_asked_for(export: Path) -> None:
    body = {"inputs": ["a"]}
    with serving(export, api_key=KEY) as port:
        wrong = "Bearer wrong", f"Bearer {KEY}x", KEY, f"Basic {KEY}", "Bearer"
        for headers in ({}, *({"Authorization": one} for one in wrong)):
            assert ask(port, body=body, headers={**JSON, **headers})[0] == 401
        for scheme in ("Bearer", "bearer", "BEARER"):
            assert ask(port, body=body, headers={**JSON, "Authorization": f"{scheme} {KEY}"})[0] == 200
        assert ask(port, body=body, headers={**JSON, "X-API-Key": KEY})[0] == 200
        assert ask(port, "/health", method="GET")[0] == 200
        assert ask(port, "/metrics", method="GET")[0] == 401


def test_too_many_are_refused_and_the_accepted_are_answered(export: Path) -> None:
    statuses: list[int] = []
    retry: list[str | None] = []

    def client() -> None:
        status, _, headers = ask(port, body={"inputs": ["some words of a text"] * 4})
        statuses.append(status)
        retry.append({name.lower(): value for name, value in headers.items()}.get("retry-after"))

    with serving(export, queue=8, most_together=4, wait_ms=50) as port:
        threads = [threading.Thread(target=client) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        figures = ask(port, "/metrics", method="GET")[1]
        assert ask(port, body={"inputs": ["later"]})[0] == 200
    assert len(statuses) == 40
    assert set(statuses) == {200, 503}
    assert all((wait == "1") == (status == 503) for status, wait in zip(statuses, retry, strict=True))
    refused = statuses.count(503)
    assert f'lightpaff_refused_total{{reason="full"}} {float(refused)}' in figures
    assert f"lightpaff_inputs_total {float(4 * (40 - refused))}" in figures


def test_health_and_the_page(port: int) -> None:
    assert ask(port, "/health", method="GET")[1] == {"status": "ok"}
    assert ask(port, "/ready", method="GET")[1] == {"status": "ready"}
    status, page, headers = ask(port, "/", method="GET")
    assert status == 200
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "://" not in page, "nothing from elsewhere"
    assert "innerHTML" not in ask(port, "/page.js", method="GET")[1]
    assert set(ask(port, "/openapi.json", method="GET")[1]["paths"]) >= {"/v1/answers", "/v1/compare", "/health"}


def test_the_teacher_in_the_shadow(export: Path, finished_run: Any) -> None:
    with serving(export, shadow=str(finished_run.output), shadow_share=1.0) as port:
        status, said, _ = ask(port, "/v1/compare", {"inputs": ["kind and warm"]})
        assert status == 200
        assert set(said["teacher"]["answers"][0]["probabilities"]) == set(
            said["student"]["answers"][0]["probabilities"]
        )
        assert said["agreement"]["seen"] == 1
        for _ in range(3):
            assert ask(port, body={"inputs": ["cold"]})[0] == 200
        deadline = time.monotonic() + 20
        while compared(port) < 4:
            assert time.monotonic() < deadline, "the requests were not compared"
            time.sleep(0.05)


def test_a_teacher_that_calls_its_classes_otherwise_agrees_by_their_order(
    export: Path, finished_run: Any, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(finished_run.output.parent, runs)
    content = json.loads((runs / "tiny" / "run.json").read_text())
    models = [role for role in content["roles"] if role["kind"] == "model"]
    [teacher] = {role["folder"] for role in models if role["arm"] == "teacher"}
    config = runs / "steps" / teacher / "config.json"
    names = {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}
    config.write_text(json.dumps({**json.loads(config.read_text()), **names}))
    with serving(export, shadow=str(runs / "tiny")) as port:
        said = ask(port, "/v1/compare", {"inputs": ["bright and warm", "dull and weak", "superb", "awful"]})[1]
    student, other = (
        [max(one["probabilities"], key=one["probabilities"].get) for one in said[name]["answers"]]
        for name in ("student", "teacher")
    )
    assert said["agreement"] == {"same": sum(map(str.__eq__, student, other)), "seen": 4}
    assert set(said["teacher"]["answers"][0]["probabilities"]) == set(said["student"]["answers"][0]["probabilities"])


def test_a_teacher_that_fails_is_no_fault_of_the_student(
    export: Path, finished_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lightpaff.serving.shadow.Shadow.answer", fail)
    with serving(export, shadow=str(finished_run.output), shadow_share=0.0) as port:
        status, said, _ = ask(port, "/v1/compare", {"inputs": ["warm"]})
        assert (status, said["error"]["message"]) == (503, "the teacher gave no answer")
        assert ask(port, body={"inputs": ["warm"]})[0] == 200


def compared(port: int) -> float:
    lines = ask(port, "/metrics", method="GET")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("lightpaff_shadow_total{"))


@pytest.mark.needs("openai")
def test_openai_s_client_reads_completions(writing_export: Path) -> None:
    import openai

    with serving(writing_export, api_key=KEY) as port:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0)
        whole = client.completions.create(model="toy", prompt="good day", max_tokens=12)
        expected = load(writing_export)(["good day"], new_tokens=12)
        [written] = load(writing_export).write(["good day"], 12)
        assert whole.choices[0].text == expected[0]
        assert whole.choices[0].finish_reason == ("stop" if written.is_ended else "length")
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (written.read, written.tokens)
        stop = expected[0][3:5]
        cut = client.completions.create(model="toy", prompt="good day", max_tokens=12, stop=stop)
        assert (cut.choices[0].text, cut.choices[0].finish_reason) == (expected[0].partition(stop)[0], "stop")
        stream = client.completions.create(model="toy", prompt="good day", max_tokens=12, stream=True)
        assert "".join(event.choices[0].text for event in stream) == expected[0]
        assert [model.id for model in client.models.list()] == ["toy"]
        with pytest.raises(openai.UnprocessableEntityError, match="max_tokens"):
            client.completions.create(model="toy", prompt="good day", max_tokens=0)


@pytest.mark.needs("ctranslate2")
def test_an_encoder_decoder_writes(
    finished_encoder_decoder_run: Any, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    told = run_cli("export", finished_encoder_decoder_run.output, "--to", "ctranslate2", "--output", tmp_path / "toy")
    assert told.code == 0, told.stderr
    expected = load(tmp_path / "toy")(["good day"])[0]
    with serving(tmp_path / "toy") as port:
        assert ask(port, body={"inputs": ["good day"]})[1]["answers"] == [{"text": expected}]
        body = {"prompt": "good day"}
        assert ask(port, "/v1/completions", body)[1]["choices"][0]["text"] == expected
        said = ask(port, "/v1/completions", {**body, "max_tokens": 2})[1]
        assert said["usage"]["completion_tokens"] <= 2
        # However long the sources are that it reads.
        assert ask(port, "/v1/completions", {**body, "max_tokens": 500})[1]["choices"][0]["text"] == expected
        said = ask(port, "/v1/completions", {**body, "stream": True})[1]
        assert said.endswith("data: [DONE]\n\n")
        events = [json.loads(line.removeprefix("data: ")) for line in said.split("\n\n")[:-2]]
        assert "".join(event["choices"][0]["text"] for event in events) == expected


WORDS = ["bright", "clever", "bada", "kenor"]
OTHER_TASKS: dict[str, tuple[str, str, Any]] = {
    "tag": ("conll", "bright\tB-praise\nbada\tO\n\n" * 12, "bright bada"),
    "regress": (
        "jsonl",
        "".join(json.dumps({"sentence": WORDS[row % 4], "label": row % 4}) + "\n" for row in range(24)),
        "bright",
    ),
    "answer": (
        "json",
        json.dumps(
            {
                "data": [
                    {
                        "title": "t",
                        "paragraphs": [
                            {
                                "context": "bada bright kenor",
                                "qas": [
                                    {
                                        "id": str(row),
                                        "question": f"kenor {row}?",
                                        "answers": [{"text": "bright", "answer_start": 5}],
                                    }
                                ],
                            }
                            for row in range(24)
                        ],
                    }
                ]
            }
        ),
        ["kenor?", "bada bright kenor"],
    ),
}


@pytest.mark.parametrize("objective", ["tag", pytest.param("regress", marks=pytest.mark.slow), "answer"])
def test_other_kinds_of_answers(
    objective: str, ready_recipe: Any, run_recipe: Callable[[Any], dict[str, Any]], run_cli: Callable[..., Any]
) -> None:
    ending, content, asked = OTHER_TASKS[objective]
    path = f"{objective}.{ending}"
    (ready_recipe.folder / path).write_text(content)
    ready_recipe.set(
        "tasks", [{"name": "toy", "objective": objective, "train": path, "validation": path, "max_length": 24}]
    )
    ready_recipe.set("control", False)
    run_recipe(ready_recipe)
    output = ready_recipe.folder / "runs" / ready_recipe.content["name"]
    told = run_cli("export", output, "--to", "onnx", "--tolerance", "100")
    assert told.code == 0, told.stderr
    export = output / "exports" / "onnx"
    with serving(export) as port:
        status, said, _ = ask(port, body={"inputs": [asked, asked]})
    assert status == 200, said
    first, second = said["answers"]
    assert first == second
    loaded: Any = load(export)
    [expected] = loaded([tuple(asked) if isinstance(asked, list) else asked])
    if objective == "tag":
        assert [dict(span) for span in first["spans"]] == [pytest.approx(asdict(span), abs=1e-4) for span in expected]
    elif objective == "answer":
        assert first == pytest.approx(
            {name: value for name, value in asdict(expected).items() if name != "is_cut"}, abs=1e-4
        )
    else:
        assert first == {"score": pytest.approx(expected, abs=1e-5)}


@contextmanager
def process(export: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "lightpaff", "serve", str(export), "--port", "0", *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert server.stderr is not None
        address = server.stderr.readline()
        assert address.startswith("http://127.0.0.1:"), address
        port = int(address.rpartition(":")[2])
        deadline = time.monotonic() + 60
        while True:
            assert server.poll() is None, server.communicate()[1]
            try:
                ask(port, "/health", method="GET")
                break
            except OSError:
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.1)
        yield server, port
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def test_a_signal_answers_what_was_accepted(export: Path) -> None:
    body = json.dumps({"inputs": ["a"]}).encode()
    with process(export) as (server, port), socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"POST /v1/answers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        client.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:3])
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        client.sendall(body[3:])
        assert b" 200 " in client.recv(4096)
        assert server.wait(20) in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_a_killed_worker_is_replaced(export: Path) -> None:
    import psutil

    with process(export, "--workers", "2") as (server, port):
        assert ask(port, body={"inputs": ["a"]})[0] == 200
        workers = [one for one in psutil.Process(server.pid).children() if "spawn_main" in " ".join(one.cmdline())]
        workers[0].kill()
        deadline = time.monotonic() + 60
        answered = 0
        while answered < 20:
            assert time.monotonic() < deadline, "nobody answers"
            try:
                answered += ask(port, body={"inputs": ["a"]})[0] == 200
            except OSError:
                time.sleep(0.2)


def test_what_is_no_export_is_told_in_a_line(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    told = run_cli("serve", tmp_path)
    assert told.code == 2
    assert str(tmp_path) in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.needs("playwright")
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [1280, 400])
def test_both_answer_what_is_typed(width: int, export: Path, finished_run: Any, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with serving(export, shadow=str(finished_run.output)) as port, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_function("document.activeElement.id === 'text'")
        page.keyboard.type(HOSTILE)
        assert page.input_value("#text") == HOSTILE
        page.keyboard.press("Enter")
        for who in ("student", "teacher"):
            page.wait_for_selector(f"#{who} .row.best")
            assert page.inner_text(f"#{who} .time").endswith(" ms")
            assert len(page.query_selector_all(f"#{who} .row")) == 2
        assert page.inner_text("#agreement").startswith("Same answer in ")
        assert page.title() == "lightpaff: teacher and student"
        assert page.query_selector("main img") is None
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in asked)
        page.screenshot(path=str(tmp_path / f"page-{width}.png"))
        browser.close()
