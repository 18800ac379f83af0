"""Cutting a source into parts by the values of a column, without a random state or a list of members."""

import hashlib
import itertools

from lightpaff.recipe_sources import Split

_BITS = 53  # what a float holds exactly, so that the fraction stays below 1


def part_of(value: object, split: Split) -> str:
    """The part into which all rows with this value fall.

    The value and the seed alone decide: the parts do not depend on the other rows or their order, and changing the
    fractions moves only the values between the old and the new bounds.
    """
    position = _uniform_position(value, split.seed)
    for part, bound in zip(split.fractions, itertools.accumulate(split.fractions.values()), strict=True):
        if position < bound:
            return part
    # The fractions may sum to a little less than 1.
    return [part for part, fraction in split.fractions.items() if fraction > 0][-1]


def _uniform_position(value: object, seed: int) -> float:
    """A number in [0, 1) that follows from the value and the seed."""
    digest = hashlib.sha256(f"{seed}:{value}".encode("utf-8", "surrogatepass")).digest()
    return float(int.from_bytes(digest[:8], "big") >> (64 - _BITS)) / float(1 << _BITS)
