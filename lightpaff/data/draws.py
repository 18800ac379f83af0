"""Random choices as a function of (seed, draw, example), never of what was drawn before.

So a live and a stored teacher see the same masks, a resumed run needs no replay, and workers and ranks agree. The
counter-based generator is Philox (Salmon et al. 2011), as numpy has it.
"""

import numpy as np

_STREAMS = {"masks": 1, "order": 2, "fragments": 3, "mixture": 4}


def generator(stream: str, seed: int, draw: int, example: int = 0) -> np.random.Generator:
    """The generator of one use (`masks`, `order`, `fragments` or `mixture`), seed, draw (the epoch) and example."""
    key = np.array([seed, _STREAMS[stream]], dtype=np.uint64)
    counter = np.array([0, 0, draw, example], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
