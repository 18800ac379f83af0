"""What requests have the model do, and the pieces in which a batch of it is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_TOGETHER = 16
"""Inputs of a piece: as many as an export runs at once."""


@dataclass(frozen=True)
class Work:
    """One input's.

    Attributes:
        kind: a whole answer, or text.
        given: the input; to write on, what was written already.
        size: how much it is, in characters; of what is written on, in tokens.
        tokens: of text, to be written now.
        room: of text, that will be written in all.
    """

    kind: Literal["answer", "write"]
    given: Any
    size: int
    tokens: int = 0
    room: int = 0

    @property
    def alike(self) -> tuple[str, int, int]:
        """What is the same in work that is done together."""
        return self.kind, self.tokens, self.room


def cut(works: Sequence[Work], most_size: int) -> list[list[int]]:
    """Pieces of a batch, as numbers: work that is alike, of like size, in none more than 16 inputs or, unless it is a
    single one, more than `most_size`."""
    pieces: list[list[int]] = []
    size = 0
    for number in sorted(range(len(works)), key=lambda number: (works[number].alike, works[number].size)):
        work, last = works[number], pieces[-1] if pieces else []
        size += work.size
        if not last or len(last) == _TOGETHER or size > most_size or works[last[0]].alike != work.alike:
            pieces.append([])
            size = work.size
        pieces[-1].append(number)
    return pieces
