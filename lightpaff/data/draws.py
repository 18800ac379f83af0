"""Random choices as a function of (seed, draw, example), never of what was drawn before.

An example is known by its content, not by its place: so a live and a stored teacher see the same masks, also after
text was added, a resumed run needs no replay, and workers and ranks agree. The counter-based generator is Philox
(Salmon et al. 2011), as numpy has it.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

_STREAMS = {"masks": 1, "order": 2, "fragments": 3, "mixture": 4, "soft targets": 5}


def generator(stream: str, seed: int, draw: int, example: int = 0) -> np.random.Generator:
    """The generator of one use (`masks`, `order`, `fragments`, `mixture` or `soft targets`), seed, draw (the epoch) and
    example, which is a row number or a content key."""
    key = np.array([seed, _STREAMS[stream]], dtype=np.uint64)
    counter = np.array([0, 0, draw, example], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def content_key(*parts: Iterable[int] | np.ndarray | int) -> int:
    """64 bits of an example's content, the same wherever it lies: of token ids, places and other whole numbers."""
    digest = blake2b(digest_size=8)
    for part in parts:
        content = np.asarray(part, dtype="<i8").tobytes()
        digest.update(len(content).to_bytes(8, "little") + content)
    return int.from_bytes(digest.digest(), "little")


def content_keys(*columns: Iterable[Iterable[int] | np.ndarray | int]) -> NDArray[np.uint64]:
    """The keys of several examples, from one column or more of their parts."""
    return np.array([content_key(*parts) for parts in zip(*columns, strict=True)], dtype=np.uint64)
