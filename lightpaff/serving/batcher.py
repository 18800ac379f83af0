"""Requests put together into batches: a bounded queue, one batch at a time, no batch waits longer than told."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

AnswerAll = Callable[[list[Any]], Sequence[Any]]


class QueueFullError(Exception):
    """There is no room for these inputs now."""


class ClosedError(Exception):
    """The server is stopping."""


@dataclass(frozen=True)
class _Waiting:
    inputs: list[Any]
    future: "asyncio.Future[list[Any]]"
    deadline: float


class Batcher:
    """Answers inputs together.

    Args:
        answer: answers a list of inputs; it is called in a thread of its own, never twice at a time.
        most_together: inputs of a batch; a request of more is a batch of its own.
        wait_s: how long a batch that is not full waits for more, where the one before it held several requests: a lone
            client does not wait for others.
        queue: inputs that may wait; where none does, a request of more is taken all the same.
        seen: is told the size of every batch.
        waiting: is told how many inputs wait whenever that changes.
    """

    def __init__(
        self,
        answer: AnswerAll,
        most_together: int,
        wait_s: float,
        queue: int,
        seen: Callable[[int], None] = lambda size: None,
        waiting: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._answer, self._most_together, self._wait_s = answer, most_together, wait_s
        self._room, self._seen, self._tell_waiting = queue, seen, waiting
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="answers")
        self._is_closed = False
        self._are_several = False
        self._kept: _Waiting | None = None
        self.queued = 0
        """Inputs that wait."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def submit(self, inputs: list[Any], timeout_s: float) -> list[Any]:
        """The answers, in order.

        Raises:
            QueueFullError: too many wait already.
            ClosedError: the server is stopping.
            TimeoutError: they did not come in time.
        """
        if self._is_closed:
            raise ClosedError
        if self.queued and self.queued + len(inputs) > self._room:
            raise QueueFullError
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._count(len(inputs))
        self._waiting.put_nowait(_Waiting(inputs, future, time.monotonic() + timeout_s))
        return await asyncio.wait_for(future, timeout_s)

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
            batch = await self._collect()
            # Whoever has gone, or waited too long, gets no work done.
            alive = [one for one in batch if not one.future.done() and time.monotonic() < one.deadline]
            if alive:
                await self._run(alive)
            self._count(-sum(len(one.inputs) for one in batch))

    def _count(self, change: int) -> None:
        self.queued += change
        self._tell_waiting(self.queued)

    async def _collect(self) -> list[_Waiting]:
        batch = [self._kept or await self._waiting.get()]
        self._kept = None
        ends = time.monotonic() + self._wait_s
        while (size := sum(len(one.inputs) for one in batch)) < self._most_together and self._kept is None:
            try:
                self._add(batch, size, self._waiting.get_nowait())
            except asyncio.QueueEmpty:
                left = ends - time.monotonic()
                if left <= 0 or not (self._are_several or len(batch) > 1):
                    break
                try:
                    self._add(batch, size, await asyncio.wait_for(self._waiting.get(), left))
                except TimeoutError:
                    break
        self._are_several = len(batch) > 1
        return batch

    def _add(self, batch: list[_Waiting], size: int, one: _Waiting) -> None:
        """To the batch, or to the next one where it would be too large."""
        if size + len(one.inputs) > self._most_together:
            self._kept = one
        else:
            batch.append(one)

    async def _run(self, batch: list[_Waiting]) -> None:
        inputs = [one for waiting in batch for one in waiting.inputs]
        self._seen(len(inputs))
        try:
            answers = list(await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, inputs))
        except Exception as error:  # one bad input must not take the others with it
            if len(batch) > 1:
                for one in batch:
                    await self._run([one])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for one in batch:
            own, answers = answers[: len(one.inputs)], answers[len(one.inputs) :]
            if not one.future.done():
                one.future.set_result(own)
