"""Requests put together into batches: a bounded queue, one batch at a time, no batch waits longer than told."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

AnswerAll = Callable[[list[Any]], Sequence[Any]]
Cut = Callable[[list[Any]], list[list[int]]]


class QueueFullError(Exception):
    """There is no room for these inputs now."""


class ClosedError(Exception):
    """The server is stopping."""


class _Waiting:
    """A request: its inputs, and the answers as they come."""

    def __init__(self, inputs: list[Any], timeout_s: float) -> None:
        self.inputs = inputs
        self.answers: list[Any] = [None] * len(inputs)
        self.error: Exception | None = None
        self.future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._deadline = time.monotonic() + timeout_s

    @property
    def is_wanted(self) -> bool:
        """Somebody waits for it still."""
        return not self.future.done() and time.monotonic() < self._deadline


_Place = tuple[_Waiting, int]
"""An input of a request."""


class Batcher:
    """Answers inputs together.

    Args:
        answer: answers a piece of a batch; it is called in a thread of its own, never twice at a time.
        most_together: inputs of a batch; a request of more is a batch of its own.
        wait_s: how long a batch that is not full waits for more, where the one before it held several requests: a lone
            client does not wait for others.
        queue: inputs that may wait; where none does, a request of more is taken all the same.
        cut: a batch's inputs into pieces, as their numbers; left out, one. Between two of them it is seen who
            waits still.
        seen: is told the size of every batch.
        waiting: is told how many inputs wait whenever that changes.
    """

    def __init__(
        self,
        answer: AnswerAll,
        most_together: int,
        wait_s: float,
        queue: int,
        cut: Cut = lambda inputs: [list(range(len(inputs)))],
        seen: Callable[[int], None] = lambda size: None,
        waiting: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._answer, self._cut, self._most_together, self._wait_s = answer, cut, most_together, wait_s
        self._room, self._seen, self._tell_waiting = queue, seen, waiting
        self._waiting: deque[_Waiting] = deque()
        self._has_come = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._is_closed = False
        self._are_several = False
        self.queued = 0
        """Inputs that somebody waits for."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    def submit(self, inputs: list[Any], timeout_s: float) -> "asyncio.Task[list[Any]]":
        """The answers, in order, to be waited for, which raises TimeoutError where they do not come in time.

        Raises:
            QueueFullError: too many wait already. Nothing is begun then: of these there may be very many.
            ClosedError: the server is stopping.
        """
        if self._is_closed:
            raise ClosedError
        if self.queued and self.queued + len(inputs) > self._room:
            raise QueueFullError
        waiting = _Waiting(inputs, timeout_s)
        self._count(len(inputs))
        self._waiting.append(waiting)
        self._has_come.set()
        asked = asyncio.get_running_loop().create_task(asyncio.wait_for(waiting.future, timeout_s))
        asked.add_done_callback(lambda _: self._forget(waiting))
        return asked

    def _forget(self, waiting: _Waiting) -> None:
        """Whoever goes leaves no place behind, and nothing that keeps memory."""
        waiting.future.cancel()
        self._count(-len(waiting.inputs))
        with contextlib.suppress(ValueError):
            self._waiting.remove(waiting)

    async def close(self) -> None:
        """Answer what was accepted, and stop."""
        self._is_closed = True
        while self.queued:
            await asyncio.sleep(0.005)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._thread.shutdown()

    async def _work(self) -> None:
        while True:
            await self._run(await self._collect())

    def _count(self, change: int) -> None:
        self.queued += change
        self._tell_waiting(self.queued)

    async def _collect(self) -> list[_Waiting]:
        while not self._waiting:
            await self._comes_within(None)
        ends = time.monotonic() + self._wait_s
        batch: list[_Waiting] = []
        while not self._fill(batch):
            left = ends - time.monotonic()
            if left <= 0 or not (self._are_several or len(batch) > 1) or not await self._comes_within(left):
                break
        self._are_several = len(batch) > 1
        return batch

    def _fill(self, batch: list[_Waiting]) -> bool:
        """Put those that wait into the batch, as many as it has room for; whether it is full."""
        size = sum(len(one.inputs) for one in batch)
        while self._waiting and (not batch or size + len(self._waiting[0].inputs) <= self._most_together):
            batch.append(self._waiting.popleft())
            size += len(batch[-1].inputs)
        return bool(self._waiting) or size >= self._most_together

    async def _comes_within(self, seconds: float | None) -> bool:
        """Wait for one more request; for ever where that is None."""
        self._has_come.clear()
        try:
            return await asyncio.wait_for(self._has_come.wait(), seconds)
        except TimeoutError:
            return False

    async def _run(self, batch: list[_Waiting]) -> None:
        places = [(one, number) for one in batch if one.is_wanted for number in range(len(one.inputs))]
        if not places:
            return
        self._seen(len(places))
        await asyncio.get_running_loop().run_in_executor(self._thread, self._answer_all, places)
        for one in batch:
            if one.is_wanted and one.error is not None:
                one.future.set_exception(one.error)
            elif one.is_wanted:
                one.future.set_result(one.answers)

    def _answer_all(self, places: list[_Place]) -> None:
        """In the thread, which waits for the event loop between no two pieces: that may be busy refusing others."""
        for piece in self._cut([one.inputs[number] for one, number in places]):
            self._answer_piece([places[place] for place in piece])

    def _answer_piece(self, places: list[_Place]) -> None:
        # Whoever has gone, or waited too long, gets no more work done.
        places = [(one, number) for one, number in places if one.is_wanted and one.error is None]
        if not places:
            return
        try:
            answers = self._answer([one.inputs[number] for one, number in places])
        except Exception as error:  # one bad input must not take the others with it
            requests = dict.fromkeys(one for one, _ in places)
            for request in requests:
                if len(requests) > 1:
                    self._answer_piece([place for place in places if place[0] is request])
                else:
                    request.error = error
            return
        for (one, number), answer in zip(places, answers, strict=True):
            one.answers[number] = answer
