"""Which examples go into which optimiser step, as a function of the seed and the step alone.

Shapes: N examples.
"""

import math

import numpy as np

from lightpaff.data.draws import generator
from lightpaff.errors import UserError

_BATCHES_SORTED_TOGETHER = 64
"""Examples of this many batches are sorted by length together: little padding, and batches still differ by epoch."""


class BatchOrder:
    """Length-grouped batches of `batch_size` examples, cut into micro-batches that fit a token budget.

    Where the examples do not fill them, an epoch's batches are all a little smaller, and differ by one example at most:
    none is so small that its few examples weigh much, or that a rank has no part. They do not depend on the ranks.

    Args:
        lengths_N: tokens of each example.
        example_ids: the examples to visit; each epoch visits each once.
        batch_size: examples an optimiser step, over accumulation and ranks.
        micro_batch_tokens: the most tokens, padding included, of a micro-batch (one example may exceed it, and two
            where ranks share a batch unevenly).
        seed: of the order.
        ranks: processes that share each batch.
        rank: this process.

    Raises:
        UserError: when a batch has fewer examples than there are ranks.
    """

    def __init__(
        self,
        lengths_N: np.ndarray,
        example_ids: np.ndarray,
        batch_size: int,
        micro_batch_tokens: int,
        seed: int,
        ranks: int = 1,
        rank: int = 0,
    ) -> None:
        assert len(example_ids) > 0
        self.steps_per_epoch = -(-len(example_ids) // batch_size)
        """Optimiser steps in which each example is visited once."""
        if len(example_ids) // self.steps_per_epoch < ranks:
            raise UserError(
                f"batch_size: {batch_size} of {len(example_ids)} examples do not give each of {ranks} ranks one; "
                "start fewer ranks, raise batch_size or add examples"
            )
        self._lengths_N, self._example_ids = lengths_N, example_ids
        self._micro_batch_tokens, self._seed = micro_batch_tokens, seed
        self._ranks, self._rank = ranks, rank
        self._epoch, self._batches = -1, [example_ids[:0]]

    def micro_batches(self, step: int) -> tuple[int, list[np.ndarray]]:
        """The epoch of a step (from 0), and the example ids of each of this rank's micro-batches.

        Every rank has the same number of micro-batches, and none is empty.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, self._order(epoch)
        return epoch, self._cut(self._batches[place])

    def _order(self, epoch: int) -> list[np.ndarray]:
        random = generator("order", self._seed, epoch)
        ids = random.permutation(self._example_ids)
        ends = [len(ids) * (number + 1) // self.steps_per_epoch for number in range(self.steps_per_epoch)]
        pools = np.split(ids, ends[_BATCHES_SORTED_TOGETHER - 1 : -1 : _BATCHES_SORTED_TOGETHER])
        ids = np.concatenate([part[np.argsort(self._lengths_N[part], kind="stable")] for part in pools])
        batches = np.split(ids, ends[:-1])
        return [batches[i] for i in random.permutation(len(batches))]

    def _cut(self, batch: np.ndarray) -> list[np.ndarray]:
        batch = batch[np.argsort(self._lengths_N[batch], kind="stable")]
        shares = [batch[rank :: self._ranks] for rank in range(self._ranks)]
        longest = max(int(self._lengths_N[batch].max()), 1)
        at_once = max(self._micro_batch_tokens // longest, 1)
        pieces = min(math.ceil(len(shares[0]) / at_once), len(shares[-1]))
        return list(np.array_split(shares[self._rank], pieces))


def sequential_batches(lengths_N: np.ndarray, example_ids: np.ndarray, micro_batch_tokens: int) -> list[np.ndarray]:
    """Every example once, shortest first, in batches of at most `micro_batch_tokens` tokens with padding."""
    batches: list[np.ndarray] = []
    ids = example_ids[np.argsort(lengths_N[example_ids], kind="stable")]
    start = 0
    for stop in range(1, len(ids) + 1):
        is_last = stop == len(ids)
        if is_last or (stop + 1 - start) * lengths_N[ids[stop]] > micro_batch_tokens:
            batches.append(ids[start:stop])
            start = stop
    return batches
