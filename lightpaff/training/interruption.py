"""Stopping at a step's end: Ctrl-C asks, the loop saves and then stops."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.05


class StoppedError(Exception):
    """The work was stopped on request; what it had done is saved."""


@contextlib.contextmanager
def swallowed_stops_come_again() -> Iterator[None]:
    """A Ctrl-C that comes while Python clears something away, where no error can be raised, comes again a moment
    later."""
    before = sys.unraisablehook

    def tell_or_stop_again(found: "sys.UnraisableHookArgs") -> None:
        if not issubclass(found.exc_type, KeyboardInterrupt):
            before(found)
            return
        again = threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = tell_or_stop_again
    try:
        yield
    finally:
        sys.unraisablehook = before


class StopRequest:
    """While entered, the first Ctrl-C (or SIGTERM) sets `received`; the second acts as it does elsewhere."""

    def __init__(self) -> None:
        self.received = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Only the main thread may set handlers; elsewhere a stop is the caller's matter.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
