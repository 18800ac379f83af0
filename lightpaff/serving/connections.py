"""A connection: what uvicorn bounds in no way. Heads of requests may not grow without end, have to come in time, and
there are never more connections than the process has files for."""

import asyncio
import resource

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 << 10
MOST_CONNECTIONS = 4096
HEAD_SECONDS = 10.0
_OTHER_FILES = 64
"""That a process needs besides its connections."""


def most_connections() -> int:
    """Of this process, for which it takes as many files as it may: the usual 1,024 are soon used up."""
    files, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + _OTHER_FILES
    if 0 < files < wanted:
        files = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    return min(MOST_CONNECTIONS, max(files - _OTHER_FILES, files // 4)) if files > 0 else MOST_CONNECTIONS


class Connection(HttpToolsProtocol):
    """uvicorn's own, with these limits.

    httptools copies all it has of a header whenever more of it comes. So everything that comes and is no body is
    counted until its request is whole: heads, the frames of chunks and what may follow them.
    """

    most = most_connections()
    _unfinished = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One more, if there is room."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self._end(b"503 Service Unavailable\r\nretry-after: 1")
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Read it, and see what it left unfinished."""
        self._unfinished += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unfinished > MOST_HEAD_BYTES:
            self._end(b"431 Request Header Fields Too Large")
        # While a request is answered its body has limits of its own, and the next head has time.
        elif self._unfinished and (self.cycle is None or self.cycle.response_complete):
            self._wait_for_head()

    def on_headers_complete(self) -> None:
        """What comes next is a body, or nothing."""
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A body is no head."""
        self._unfinished -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A whole request."""
        self._unfinished = 0
        self._stop_waiting()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self, status: bytes) -> None:
        self.transport.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()
