"""Progress of long work: a bar in a terminal, a line now and then in a log."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_LOG_WIDTH = 140

# Intervals, paths and the names of arms have brackets.
console = Console(stderr=True, highlight=False, markup=False, width=None if sys.stderr.isatty() else _LOG_WIDTH)
"""Where lightpaff talks to the person at the terminal; results go to standard output."""

_SECONDS_BETWEEN_LOG_LINES = 15.0


def results_console() -> Console:
    """Standard output, for what a person asked for."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _LOG_WIDTH)


@contextlib.contextmanager
def each_line_once() -> Iterator[None]:
    """Inside, what was said before is not said again: of runs that have most in common."""
    said: set[str] = set()
    say = console.print

    def say_once(*what: Any, **how: Any) -> None:
        line = " ".join(map(str, what))
        if line not in said:
            said.add(line)
            say(*what, **how)

    console.print = say_once  # type: ignore[method-assign]
    try:
        yield
    finally:
        console.print = say  # type: ignore[method-assign]


Advance = Callable[..., None]
"""advance(amount, note=""): so much more is done."""


@contextlib.contextmanager
def progress_bar(description: str, total: int | None, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show the progress of `total` units (None: not known), of which `done` were done before."""
    if console.is_terminal:
        with _bar(unit) as bar:
            task = bar.add_task(description, total=total, completed=done, note="", rate="")
            counter = _Counter(done)

            def advance(amount: int, note: str = "") -> None:
                counter.add(amount)
                bar.update(task, advance=amount, note=note, rate=f"{counter.rate:.3g} {unit}/s")

            yield advance
    else:
        yield _log_lines(description, total, unit, done)


class _Counter:
    def __init__(self, done: int) -> None:
        self.done, self._before, self._start = done, done, time.monotonic()

    def add(self, amount: int) -> None:
        self.done += amount

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)


def _bar(unit: str) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit + "  {task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )


def _log_lines(description: str, total: int | None, unit: str, done: int) -> Advance:
    counter = _Counter(done)
    last = time.monotonic()

    def advance(amount: int, note: str = "") -> None:
        nonlocal last
        counter.add(amount)
        if time.monotonic() - last >= _SECONDS_BETWEEN_LOG_LINES:
            last = time.monotonic()
            left = f", {(total - counter.done) / counter.rate:.0f} s left" if total and counter.rate else ""
            of = f"/{total}" if total else ""
            told = f"{description}: {counter.done}{of} {unit}, {counter.rate:.3g} a second{left}  {note}"
            console.print(told)

    return advance
