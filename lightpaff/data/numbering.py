"""Which rows share a value."""

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import NDArray


def numbered(values: Iterable[Hashable]) -> NDArray[np.int64]:
    """The number of each value, counted from 0 as they first occur.

    numpy's `unique` would make every text as wide as the longest, in four bytes a letter.
    """
    numbers: dict[Hashable, int] = {}
    return np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), dtype=np.int64)
