"""Batches: put together, bounded, on time, and one bad input alone."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lightpaff.serving.batcher import Batcher, ClosedError, QueueFullError


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(work(), 20)

    return asyncio.run(bounded())


class Counting:
    """Doubles numbers, and remembers the batches; refuses 13; waits where it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may = threading.Event()
        self.may.set()

    def __call__(self, inputs: list[int]) -> list[int]:
        self.may.wait(10)
        self.batches.append(inputs)
        if 13 in inputs:
            raise ValueError("13")
        return [2 * one for one in inputs]


def test_what_comes_together_is_answered_together() -> None:
    answer = Counting()

    async def work() -> list[list[int]]:
        batcher = Batcher(answer, most_together=8, wait_s=0.2, queue=100)
        found = await asyncio.gather(*(batcher.submit([n, n + 100], 5) for n in range(4)))
        await batcher.close()
        return list(found)

    assert run(work) == [[2 * n, 2 * n + 200] for n in range(4)]
    assert [len(batch) for batch in answer.batches] == [8]


def test_only_where_there_are_several_one_waits_for_more() -> None:
    async def work() -> tuple[float, float, float]:
        batcher = Batcher(Counting(), most_together=8, wait_s=0.3, queue=100)
        waited = []
        for together in (1, 2, 1, 1):
            started = time.monotonic()
            await asyncio.gather(*(batcher.submit([n], 5) for n in range(together)))
            waited.append(time.monotonic() - started)
        await batcher.close()
        return waited[0], waited[2], waited[3]

    lone, after_several, lone_again = run(work)
    assert after_several > 0.25
    assert lone < 0.2 > lone_again


def test_one_bad_input_does_not_take_the_others_with_it() -> None:
    async def work() -> list[Any]:
        batcher = Batcher(Counting(), most_together=8, wait_s=0.2, queue=100)
        found = await asyncio.gather(*(batcher.submit([n], 5) for n in (1, 13, 2)), return_exceptions=True)
        await batcher.close()
        return list(found)

    first, bad, last = run(work)
    assert (first, last) == ([2], [4])
    assert isinstance(bad, ValueError)


def test_a_full_queue_refuses_and_has_room_again() -> None:
    answer = Counting()
    answer.may.clear()

    async def work() -> list[Any]:
        batcher = Batcher(answer, most_together=2, wait_s=0.0, queue=4)
        waiting = [asyncio.ensure_future(batcher.submit([n], 10)) for n in range(4)]
        await asyncio.sleep(0.1)
        with pytest.raises(QueueFullError):
            await batcher.submit([9], 10)
        answer.may.set()
        found = await asyncio.gather(*waiting)
        found.append(await batcher.submit([5], 10))
        await batcher.close()
        return list(found)

    assert run(work) == [[0], [2], [4], [6], [10]]


def test_a_request_larger_than_the_queue_is_taken_when_nobody_waits() -> None:
    told: list[int] = []

    async def work() -> list[int]:
        batcher = Batcher(Counting(), most_together=2, wait_s=0, queue=2, waiting=told.append)
        found = await batcher.submit([1, 2, 3], 5)
        await batcher.close()
        return list(found)

    assert run(work) == [2, 4, 6]
    assert told == [3, 0]


def test_no_batch_is_larger_than_told_unless_one_request_is() -> None:
    answer = Counting()

    async def work() -> None:
        batcher = Batcher(answer, most_together=4, wait_s=0.2, queue=100)
        sizes = (3, 3, 6, 1)
        found = await asyncio.gather(*(batcher.submit(list(range(size)), 5) for size in sizes))
        assert [len(one) for one in found] == list(sizes)
        assert batcher.queued == 0
        await batcher.close()

    run(work)
    assert [len(batch) for batch in answer.batches] == [3, 3, 6, 1]


def test_what_nobody_waits_for_any_more_is_not_worked_on() -> None:
    answer = Counting()
    answer.may.clear()

    async def work() -> None:
        batcher = Batcher(answer, most_together=1, wait_s=0.0, queue=10)
        first = asyncio.ensure_future(batcher.submit([1], 10))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await batcher.submit([2], 0.05)
        gone = asyncio.ensure_future(batcher.submit([3], 10))
        await asyncio.sleep(0.02)
        gone.cancel()
        answer.may.set()
        await first
        await batcher.submit([4], 10)
        assert batcher.queued == 0
        await batcher.close()

    run(work)
    assert answer.batches == [[1], [4]]


def test_what_was_accepted_is_answered_before_the_end() -> None:
    answer = Counting()
    answer.may.clear()

    async def work() -> list[int]:
        batcher = Batcher(answer, most_together=2, wait_s=0.0, queue=10)
        accepted = asyncio.ensure_future(batcher.submit([7], 10))
        await asyncio.sleep(0.05)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0.05)
        with pytest.raises(ClosedError):
            await batcher.submit([8], 10)
        answer.may.set()
        await closing
        return await accepted

    assert run(work) == [14]


def in_pairs(inputs: list[int]) -> list[list[int]]:
    return [list(range(first, min(first + 2, len(inputs)))) for first in range(0, len(inputs), 2)]


@pytest.mark.parametrize("timeout_s", [0.1, 10])
def test_a_running_batch_stops_where_nobody_waits_for_it_any_more(timeout_s: float) -> None:
    answer = Counting()
    answer.may.clear()

    async def work() -> None:
        batcher = Batcher(answer, most_together=8, wait_s=0.0, queue=10, cut=in_pairs)
        asked = asyncio.ensure_future(batcher.submit([1, 2, 3, 4, 5, 6], timeout_s))
        await asyncio.sleep(0.05 if timeout_s == 10 else 0.15)
        asked.cancel()
        await asyncio.wait([asked])
        answer.may.set()
        assert await batcher.submit([7], 10) == [14]
        await batcher.close()

    run(work)
    assert answer.batches == [[1, 2], [7]]


def test_answers_of_pieces_go_to_their_requests() -> None:
    answer = Counting()

    async def work() -> list[Any]:
        batcher = Batcher(answer, most_together=8, wait_s=0.2, queue=100, cut=in_pairs)
        requests = ([1, 2, 3], [13, 4], [5, 6])
        found = await asyncio.gather(*(batcher.submit(one, 5) for one in requests), return_exceptions=True)
        await batcher.close()
        return list(found)

    first, bad, last = run(work)
    assert (first, last) == ([2, 4, 6], [10, 12])
    assert isinstance(bad, ValueError)
    assert answer.batches == [[1, 2], [3, 13], [3], [13], [5], [6]]


def test_whoever_goes_leaves_no_place_behind() -> None:
    answer = Counting()
    answer.may.clear()

    async def work() -> None:
        batcher = Batcher(answer, most_together=2, wait_s=0.0, queue=4)
        first = asyncio.ensure_future(batcher.submit([1, 2], 10))
        await asyncio.sleep(0.05)
        gone = asyncio.ensure_future(batcher.submit([3, 4], 10))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.wait([gone])
        assert batcher.queued == 2
        second = asyncio.ensure_future(batcher.submit([5, 6], 10))
        await asyncio.sleep(0.01)
        answer.may.set()
        assert [await first, await second] == [[2, 4], [10, 12]]
        await batcher.close()

    run(work)
    assert answer.batches == [[1, 2], [5, 6]]
