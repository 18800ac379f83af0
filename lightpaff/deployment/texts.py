"""Texts as the models that were trained here read them: checked one by one, and cleaned as in training."""

from collections.abc import Iterable, Mapping, Sequence

from lightpaff.data.cleaning import SURROGATE, clean_text
from lightpaff.errors import UserError

Pair = tuple[str, str]
Texts = str | Pair | Sequence[str] | Sequence[Pair]
"""One text, or texts; for a model of pairs one pair (a tuple), or pairs."""


def read_texts(texts: Texts) -> list[str]:
    """Texts, cleaned.

    Raises:
        UserError: one of them is no text; says which.
    """
    found = _each(texts)
    return [_clean(text, f"texts: number {number}") for number, text in enumerate(found, start=1)]


def read_prompts(prompts: str | Sequence[str]) -> list[str]:
    """Prompts as they stand, without halves of characters: a decoder reads white space too.

    Raises:
        UserError: one of them is no text; says which.
    """
    found = _each(prompts)
    return [
        SURROGATE.sub("", _require_text(prompt, f"prompts: number {number}"))
        for number, prompt in enumerate(found, start=1)
    ]


def read_pairs(texts: Texts) -> list[Pair]:
    """Pairs of texts, cleaned.

    Raises:
        UserError: one of them is no pair of texts; says which.
    """
    is_one_pair = isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(text, str) for text in texts)
    found = [texts] if is_one_pair else _each(texts)
    pairs = []
    for number, pair in enumerate(found, start=1):
        place = f"texts: number {number}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise UserError(f"{place} is {pair!r}, and this model reads pairs; give tuples of two texts")
        first, second = (_clean(text, place) for text in pair)
        pairs.append((first, second))
    return pairs


def _each(given: object) -> list[object]:
    """What is no text and no list of them (None, a number, keys with values) counts as one, so that it is refused."""
    return [given] if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable) else list(given)


def _clean(text: object, place: str) -> str:
    return clean_text(_require_text(text, place))


def _require_text(text: object, place: str) -> str:
    if not isinstance(text, str):
        raise UserError(f"{place} is {text!r}, not text; give a string")
    return text
