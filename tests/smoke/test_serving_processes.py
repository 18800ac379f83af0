"""Servers as processes: stopped, killed, and started on what is no export."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ask

pytestmark = [pytest.mark.needs("fastapi", "uvicorn", "prometheus_client")]


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


def test_a_signal_answers_what_was_accepted(served_export: Path) -> None:
    body = json.dumps({"inputs": ["a"]}).encode()
    with process(served_export) as (server, port), socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"POST /v1/answers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        client.sendall(f"Content-Length: {len(body)}\r\n\r\n".encode() + body[:3])
        time.sleep(0.3)
        server.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        client.sendall(body[3:])
        assert b" 200 " in client.recv(4096)
        assert server.wait(20) in (0, -signal.SIGTERM)


@pytest.mark.slow
def test_a_killed_worker_is_replaced(served_export: Path) -> None:
    import psutil

    with process(served_export, "--workers", "2") as (server, port):
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
