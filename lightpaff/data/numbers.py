"""Numbers as data files write them, so that 1, 1.0 and "1" are one class and one value."""

import re

# [0-9], not \\d or isdigit: they know digits that int and float do not read.
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")


def is_number(text: str) -> bool:
    """Whether a text is a decimal number."""
    return _NUMBER.fullmatch(text) is not None


def canonical_number(value: object) -> str:
    """A value as a string; of a whole number without its decimals: a column with one value missing becomes floats."""
    text = str(value).strip()
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text
