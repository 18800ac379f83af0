"""What every runtime offers to whoever measures or checks it: token ids in, numbers or token ids out.

Imports neither torch nor transformers. Shapes: B rows, S tokens, V classes.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class ClassRunner(Protocol):
    """A loaded classifier, scorer or tagger; of a tagger, the logits are B x S x V."""

    def logits(self, ids_BS: Ids, mask_BS: Ids, segments_BS: Ids | None = None) -> NDArray[np.float32]:
        """logits_BV; `mask_BS` is 1 where there is a token, padding is on the right."""
        ...


class TokenRunner(Protocol):
    """A loaded decoder."""

    def continue_prompts(self, prompts: list[list[int]], new_tokens: int) -> list[list[int]]:
        """Exactly `new_tokens` more tokens for every prompt, greedily; the end token does not stop it.

        No prompt is empty, and none is longer, with the new tokens, than the model's positions reach.
        """
        ...

    def nll(self, rows: list[list[int]]) -> list[NDArray[np.float32]]:
        """-log P of every token of a row after its first, given those before it, in nats."""
        ...


def continue_by_length(
    prompts: list[list[int]], continue_rows: Callable[[list[list[int]]], list[list[int]]]
) -> list[list[int]]:
    """Continue the prompts of one length together, for runtimes that do not pad; what follows each, in their order."""
    continued: list[list[int]] = [[] for _ in prompts]
    for length in sorted({len(prompt) for prompt in prompts}):
        places = [place for place, prompt in enumerate(prompts) if len(prompt) == length]
        for place, row in zip(places, continue_rows([prompts[place] for place in places]), strict=True):
            continued[place] = row
    return continued


class TextRunner(Protocol):
    """A loaded encoder-decoder."""

    def write(self, sources: list[list[int]], *, beams: int, length_penalty: float, max_tokens: int) -> list[list[int]]:
        """What it writes for each source by beam search, without the start token and the end token."""
        ...
