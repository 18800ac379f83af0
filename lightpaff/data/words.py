"""Words in a text and the tokens that they begin with: the same in training and where a delivered model is used.

A sequence of words is read as a text, one space between two of them, so that every tokenizer cuts it as it cuts texts.
Spans are (start, end) in characters.
"""

import re
from collections.abc import Iterator, Sequence

Span = tuple[int, int]

_WORD = re.compile(r"[@#]?\w+(?:[^\w\s]+\w+)*|[^\w\s]")
"""Letters and digits, with what is not white space between them (don't, U.S, a web address); a mark by itself."""


def join_words(words: Sequence[str]) -> tuple[str, list[Span]]:
    """The text of the words and where each is in it."""
    spans, start = [], 0
    for word in words:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), spans


def split_words(text: str) -> list[Span]:
    """Where the words of a text are: cut at white space, and punctuation at a word's ends is a word of its own."""
    return [match.span() for match in _WORD.finditer(text)]


def first_pieces(offsets: Sequence[Span], words: Sequence[Span]) -> list[int]:
    """The number of the first token of each word; -1 for a word without any (cut off, or no character is left).

    Args:
        offsets: of each token, in the text; special tokens are empty.
        words: in the same text, in order.
    """
    tokens = [(number, start, end) for number, (start, end) in enumerate(offsets) if end > start]
    return list(_first_pieces(tokens, words))


def _first_pieces(tokens: list[tuple[int, int, int]], words: Sequence[Span]) -> Iterator[int]:
    place = 0
    for word_start, word_end in words:
        while place < len(tokens) and tokens[place][2] <= word_start:
            place += 1
        is_inside = place < len(tokens) and tokens[place][1] < word_end
        yield tokens[place][0] if is_inside else -1
