"""What a client may do to a connection: heads without end, heads that never come, more connections than there is room.

The application behind it answers what it read of the body; of the path /early before it has read it.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.servers import in_a_thread

pytest.importorskip("uvicorn")
pytest.importorskip("httptools")

SECONDS = 0.4
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", scope["path"] != "/early"
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    told = b"%d bytes" % len(body)
    headers = [(b"content-length", b"%d" % len(told))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": told})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    from lightpaff.serving import connections

    monkeypatch.setattr(connections, "HEAD_SECONDS", SECONDS)
    monkeypatch.setattr(connections.Connection, "most", 4)
    with in_a_thread(application, lifespan="off", log_level="critical", timeout_graceful_shutdown=1) as found:
        yield found


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def is_closed_in_time(client: socket.socket) -> bool:
    """Ended by the server; what it said before is read."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"GET /",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ",
        b"POST /early HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: ",
    ],
    ids=["header", "path", "chunk", "trailer", "trailer after the answer"],
)
def test_no_head_grows_without_end(head: bytes, port: int) -> None:
    sent = 0
    with connect(port) as client:
        client.sendall(head)
        # The server closes in the middle of it.
        with contextlib.suppress(OSError):
            while sent < 64 << 20:
                client.sendall(b"a" * (1 << 16))
                sent += 1 << 16
    assert sent < 32 << 20
    with connect(port) as client:
        client.sendall(GET + b"\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"\r\n", GET + b"\r\n\r\n", GET + b"\r\nGET /", GET])
def test_whoever_sends_no_head_loses_the_connection(sent: bytes, port: int) -> None:
    with connect(port) as client:
        client.settimeout(0.1)
        ends = time.monotonic() + 20 * SECONDS
        client.sendall(sent)
        is_closed = False
        while not is_closed and time.monotonic() < ends:
            try:
                # What comes in crumbs is no head either.
                client.sendall(b"\r\n" if sent.endswith(b"\r\n\r\n") else b"a" if sent else b"")
                is_closed = is_closed_in_time(client)
            except OSError:
                is_closed = True
    assert is_closed, "the connection is still there"


def test_whoever_waits_between_requests_keeps_the_connection(port: int) -> None:
    with connect(port) as client:
        for _ in range(3):
            client.sendall(GET + b"\r\n")
            assert client.recv(1000).endswith(b"0 bytes")
            time.sleep(2 * SECONDS)


def test_a_body_may_be_large_and_take_longer_than_a_head(port: int) -> None:
    with connect(port) as client:
        for head, piece in (
            (b"Content-Length: 400000", b"x" * 100_000),
            (b"Transfer-Encoding: chunked", b"186a0\r\n" + b"x" * 100_000 + b"\r\n"),
        ):
            client.sendall(b"POST / HTTP/1.1\r\n" + head + b"\r\n\r\n")
            for _ in range(4):
                time.sleep(0.4 * SECONDS)
                client.sendall(piece)
            if b"chunked" in head:
                client.sendall(b"0\r\n\r\n")
            assert client.recv(1000).endswith(b"400000 bytes")


def test_one_more_than_there_is_room_for_is_told_so(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightpaff.serving.connections.HEAD_SECONDS", 2.0)
    clients = [connect(port) for _ in range(4)]
    with connect(port) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 503 ")
    # The silent ones are gone when their time is over.
    assert all(is_closed_in_time(one) for one in clients)
    with connect(port) as client:
        client.sendall(GET + b"\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    for one in clients:
        one.close()


@pytest.mark.parametrize(
    ("files", "hard", "most"),
    [(64, 64, 16), (1024, 1024, 960), (1024, 1 << 20, 4096), (1024, 2048, 1984), (1024, -1, 4096), (-1, -1, 4096)],
)
def test_there_are_fewer_connections_than_files(
    files: int, hard: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And as many files as there may be."""
    from lightpaff.serving import connections

    limits = [(files, hard)]
    monkeypatch.setattr(connections.resource, "getrlimit", lambda which: limits[-1])
    monkeypatch.setattr(connections.resource, "setrlimit", lambda which, given: limits.append(given))
    assert connections.most_connections() == most
    assert limits[-1][0] > most or files < 0
