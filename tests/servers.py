"""Servers in a thread of the test's process, and what asks them."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

JSON = {"Content-Type": "application/json"}
KEY = "a key"


@contextmanager
def in_a_thread(app: Any, **options: Any) -> Iterator[int]:
    """The application behind lightpaff's connections, with uvicorn's options; its port."""
    import uvicorn

    from lightpaff.serving.connections import Connection

    server = uvicorn.Server(uvicorn.Config(app, port=0, http=Connection, **options))
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


@contextmanager
def serving(export: Path, **settings: Any) -> Iterator[int]:
    """An export behind HTTP; its port."""
    from lightpaff.serving.app import create_app
    from lightpaff.serving.settings import ServeSettings

    app = create_app(ServeSettings(str(export), **settings))
    with in_a_thread(app, log_level="error", timeout_graceful_shutdown=5) as port:
        yield port


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
