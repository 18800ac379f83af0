"""What a request may be, checked before anything of it is read further: size, time, key. And what is told of it:
counts, times and a line of log, its texts never."""

import asyncio
import contextlib
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import JSONResponse

from lightpaff.serving.metrics import Metrics
from lightpaff.serving.settings import ServeSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
_LOG = logging.getLogger("lightpaff.serving")
OPEN = ("/health", "/ready", "/", "/page.css", "/page.js")
"""Paths that need no key: the page asks for it."""
_DRAINED_SECONDS = 1.0
"""That a refused client may go on sending: to whom is cut off in the middle of it, the refusal is lost."""


class Limits:
    """Around the whole application: 401 without the key, 413 beyond the size, 415 for what is packed, 408 where a body
    does not come."""

    def __init__(self, app: App, settings: ServeSettings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._paths = {route.path for route in getattr(app, "routes", ())}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._limited(scope, receive, observed)
        finally:
            seconds = time.perf_counter() - started
            # Of a path that is none of ours, only that: anybody can ask for any path.
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.observe(seconds)
            if scope["path"].startswith("/v1/"):
                _LOG.info(json.dumps({"path": path, "status": status, "ms": round(1000 * seconds, 2)}))

    async def _limited(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if refused := self._refused_by(scope["path"], headers):
            if b"expect" not in headers:
                await self._drain(receive)
            await self._refuse(*refused, scope, receive, send)
            return
        body = bytearray()
        if scope["method"] == "POST":
            try:
                last = await asyncio.wait_for(self._read(receive, body), self._settings.body_timeout_s)
            except TimeoutError:
                await self._refuse(408, "slow", "the body did not come in time", scope, receive, send)
                return
            if last["type"] == "http.disconnect":
                return
            if len(body) > self._settings.most_bytes:
                if last.get("more_body", False):
                    await self._drain(receive)
                await self._refuse(413, "size", self._too_large, scope, receive, send)
                return
        sent = False

        async def read_again() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": bytes(body), "more_body": False}
            return await receive()

        await self._app(scope, read_again if scope["method"] == "POST" else receive, send)

    @property
    def _too_large(self) -> str:
        return f"the body is larger than {self._settings.most_bytes:,} bytes"

    def _refused_by(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        """What the head alone is refused for."""
        if not self._may(path, headers):
            return 401, "key", "give the key: Authorization: Bearer KEY"
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._settings.most_bytes:
            return 413, "size", self._too_large
        if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            return 415, "type", "the body is packed (Content-Encoding); send it as it is"
        return None

    def _may(self, path: str, headers: dict[bytes, bytes]) -> bool:
        key = self._settings.api_key.encode()
        if not key or path in OPEN:
            return True
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        bearer = given.strip() if scheme.lower() == b"bearer" else b""
        return hmac.compare_digest(bearer or headers.get(b"x-api-key", b""), key)

    async def _read(self, receive: Receive, body: bytearray) -> Message:
        """Into `body`, until it is whole or too large, or the client has gone; what came last."""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False) or len(body) > self._settings.most_bytes:
                return message

    async def _drain(self, receive: Receive) -> None:
        """What comes at once of a body that nobody will read."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAINED_SECONDS):
                while (message := await receive())["type"] != "http.disconnect" and message.get("more_body", False):
                    pass

    async def _refuse(
        self, status: int, reason: str, told: str, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        self._metrics.refused.labels(reason).inc()
        # What is left of the body is not read: the connection cannot be used again.
        response = JSONResponse({"error": {"message": told, "type": reason}}, status, headers={"Connection": "close"})
        await response(scope, receive, send)
