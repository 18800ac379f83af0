"""Shapes: N examples."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightpaff.data.batch_order import BatchOrder, sequential_batches
from lightpaff.errors import UserError


@dataclass(frozen=True)
class Case:
    """An order to check; `example_ids` are some of the rows that have lengths."""

    lengths_N: np.ndarray
    example_ids: np.ndarray
    batch_size: int
    micro_batch_tokens: int
    seed: int

    def order(self, ranks: int = 1, rank: int = 0) -> BatchOrder:
        return BatchOrder(
            self.lengths_N, self.example_ids, self.batch_size, self.micro_batch_tokens, self.seed, ranks, rank
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    lengths = draw(st.lists(st.integers(1, 40), min_size=2, max_size=60))
    ids = draw(st.lists(st.sampled_from(range(len(lengths))), min_size=2, unique=True))
    sizes = draw(st.tuples(st.integers(2, 20), st.integers(1, 200), st.integers(0, 2**32)))
    return Case(np.array(lengths), np.array(ids), *sizes)


def epoch_of(order: BatchOrder, epoch: int) -> list[list[np.ndarray]]:
    steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
    found = [order.micro_batches(step) for step in steps]
    assert [number for number, _ in found] == [epoch] * len(steps)
    return [pieces for _, pieces in found]


@given(cases())
@settings(deadline=None)
def test_every_example_is_seen_once_an_epoch(case: Case) -> None:
    for epoch in (0, 1):
        steps = epoch_of(case.order(), epoch)
        assert sorted(np.concatenate([np.concatenate(pieces) for pieces in steps])) == sorted(case.example_ids)
        sizes = sorted(sum(len(piece) for piece in pieces) for pieces in steps)
        assert len(steps) == math.ceil(len(case.example_ids) / case.batch_size)
        assert sizes[-1] <= case.batch_size
        assert sizes[-1] - sizes[0] <= 1


@given(cases(), st.integers(1, 2))
@settings(deadline=None)
def test_micro_batches_fit_the_budget(case: Case, ranks: int) -> None:
    assume(len(case.example_ids) // case.order().steps_per_epoch >= ranks)
    for rank in range(ranks):
        for pieces in epoch_of(case.order(ranks, rank), 0):
            for piece in pieces:
                assert len(piece) > 0
                padded = len(piece) * case.lengths_N[piece].max()
                # Ranks that share a batch unevenly: the larger share has as many micro-batches as the smaller.
                is_uneven_pair = ranks > 1 and len(piece) == 2
                assert len(piece) == 1 or padded <= case.micro_batch_tokens or is_uneven_pair


def test_a_budget_between_two_sizes_is_kept() -> None:
    # Five examples of 10 tokens, 25 at once: never three together.
    pieces = BatchOrder(np.full(5, 10), np.arange(5), 5, 25, 0).micro_batches(0)[1]
    assert [len(piece) for piece in pieces] == [2, 2, 1]


@given(cases())
@settings(deadline=None)
def test_no_more_micro_batches_than_the_longest_example_asks_for(case: Case) -> None:
    for pieces in epoch_of(case.order(), 0):
        batch = np.concatenate(pieces)
        at_once = max(1, case.micro_batch_tokens // case.lengths_N[batch].max())
        assert len(pieces) == math.ceil(len(batch) / at_once)


@given(cases(), st.integers(2, 4))
@settings(deadline=None)
def test_ranks_share_each_batch(case: Case, ranks: int) -> None:
    steps = math.ceil(len(case.example_ids) / case.batch_size)
    if len(case.example_ids) // steps < ranks:
        with pytest.raises(UserError, match=f"^batch_size: {case.batch_size} of .* each of {ranks} ranks") as caught:
            case.order(ranks)
        assert "\n" not in str(caught.value)
        return
    # Alone, with everything at once, each step's batch is whole.
    alone = Case(case.lengths_N, case.example_ids, case.batch_size, 10**9, case.seed)
    orders = [case.order(ranks, rank) for rank in range(ranks)]
    assert {order.steps_per_epoch for order in orders} == {steps}
    for epoch in (0, 1):
        ranked = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            shares = [order.micro_batches(step)[1] for order in orders]
            assert len({len(pieces) for pieces in shares}) == 1
            ranked.append(sorted(np.concatenate([piece for pieces in shares for piece in pieces]).tolist()))
        assert ranked == [sorted(pieces[0].tolist()) for pieces in epoch_of(alone.order(), epoch)]


@given(cases(), st.lists(st.integers(0, 100), min_size=1, max_size=5))
@settings(deadline=None)
def test_a_step_is_a_function_of_its_number(case: Case, steps: list[int]) -> None:
    jumping = case.order()
    for step in steps:
        fresh_epoch, fresh = case.order().micro_batches(step)
        epoch, pieces = jumping.micro_batches(step)
        assert epoch == fresh_epoch
        assert [piece.tolist() for piece in pieces] == [piece.tolist() for piece in fresh]


def test_epochs_and_seeds_have_their_own_order() -> None:
    def batches(seed: int, epoch: int) -> list[list[int]]:
        order = BatchOrder(np.full(64, 5), np.arange(64), 8, 1000, seed)
        return [np.concatenate(pieces).tolist() for pieces in epoch_of(order, epoch)]

    assert batches(0, 0) != batches(0, 1)
    assert batches(0, 0) != batches(1, 0)


def test_batches_hold_examples_of_like_length() -> None:
    lengths_N = np.random.default_rng(0).integers(5, 100, size=512)
    grouped = epoch_of(BatchOrder(lengths_N, np.arange(512), 16, 10**6, 0), 0)
    padded = sum(len(piece) * lengths_N[piece].max() for pieces in grouped for piece in pieces)
    assert padded < 1.1 * lengths_N.sum()
    longest = [int(lengths_N[pieces[0]].max()) for pieces in grouped]
    assert longest != sorted(longest)


@given(cases())
@settings(deadline=None)
def test_sequential_batches_are_complete_and_fit(case: Case) -> None:
    batches = sequential_batches(case.lengths_N, case.example_ids, case.micro_batch_tokens)
    assert sorted(np.concatenate(batches)) == sorted(case.example_ids)
    lengths = case.lengths_N[np.concatenate(batches)].tolist()
    assert lengths == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * case.lengths_N[batch].max() <= case.micro_batch_tokens


def test_no_examples_no_batches() -> None:
    assert sequential_batches(np.array([3, 4]), np.zeros(0, np.int64), 10) == []
