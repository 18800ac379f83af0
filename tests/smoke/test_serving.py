"""An export behind HTTP: answers, refusals, limits and who hangs up."""

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightpaff.deployment import load
from tests.servers import JSON, KEY, ask, serving

pytestmark = [pytest.mark.needs("fastapi", "uvicorn", "prometheus_client")]


SMALL = {
    "most_bytes": 20_000,
    "most_inputs": 8,
    "most_characters": 500,
    "most_characters_in_all": 2_000,
    "body_timeout_s": 0.5,
}


@pytest.fixture(scope="module")
def port(served_export: Path) -> Iterator[int]:
    with serving(served_export, **SMALL) as found:
        yield found


def test_answers_are_those_of_the_export(port: int, served_export: Path) -> None:
    texts = ["kind and warm", "cold", "a film that is neither"]
    status, said, _ = ask(port, body={"inputs": texts})
    assert status == 200
    expected = load(served_export)(texts)
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
        (gzip.compress(b'{"inputs": ["a"]}', mtime=0), {**JSON, "Content-Encoding": "gzip"}, 415, "is packed"),
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


def test_whoever_hangs_up_leaves_the_queue(served_export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with serving(served_export, queue=64) as port:
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


def test_a_key_is_asked_for(served_export: Path) -> None:
    body = {"inputs": ["a"]}
    with serving(served_export, api_key=KEY) as port:
        wrong = "Bearer wrong", f"Bearer {KEY}x", KEY, f"Basic {KEY}", "Bearer"
        for headers in ({}, *({"Authorization": one} for one in wrong)):
            assert ask(port, body=body, headers={**JSON, **headers})[0] == 401
        for scheme in ("Bearer", "bearer", "BEARER"):
            assert ask(port, body=body, headers={**JSON, "Authorization": f"{scheme} {KEY}"})[0] == 200
        assert ask(port, body=body, headers={**JSON, "X-API-Key": KEY})[0] == 200
        assert ask(port, "/health", method="GET")[0] == 200
        assert ask(port, "/metrics", method="GET")[0] == 401


def test_too_many_are_refused_and_the_accepted_are_answered(served_export: Path) -> None:
    statuses: list[int] = []
    retry: list[str | None] = []

    def client() -> None:
        status, _, headers = ask(port, body={"inputs": ["some words of a text"] * 4})
        statuses.append(status)
        retry.append({name.lower(): value for name, value in headers.items()}.get("retry-after"))

    with serving(served_export, queue=8, most_together=4, wait_ms=50) as port:
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
