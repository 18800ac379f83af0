"""What every runtime offers to whoever measures or checks it: token ids in, numbers or token ids out.

Imports a runtime only when it is asked for. Shapes: B rows, S tokens, V classes.
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightpaff.deployment.card import ExportCard
from lightpaff.runtimes import RUNTIMES, WORKS, Runtime, Work, runtime_of

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


def open_runner(directory: Path, runtime: Runtime, work: Work, threads: int = 0, **options: Any) -> Any:
    """Open a model: a `ClassRunner`, `TokenRunner` or `TextRunner`, as the work says.

    Args:
        directory: of an export, or for PyTorch of a plain transformers model.
        threads: 0 is all cores.
        options: of the runtime; PyTorch has `precision`.

    Raises:
        UserError: the directory holds no such model.
    """
    return find_in_room(RUNTIMES[runtime].runners[work])(directory, threads, **options)


def open_export(card: ExportCard, directory: Path, threads: int = 0) -> Any:
    """Open an export in its runtime, for its work; see `open_runner`."""
    return open_runner(directory, runtime_of(card.format), WORKS[card.kind], threads)


def find_in_room(place: str) -> Any:
    """A class or function of this room, by `module.name`."""
    module, name = place.split(".")
    return getattr(importlib.import_module(f"lightpaff.deployment.{module}"), name)
