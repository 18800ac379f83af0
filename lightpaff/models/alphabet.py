"""The characters of a corpus, counted before a tokenizer is trained: which of them become tokens is settled here, so
that no hash table of the training library has to decide it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO

from lightpaff.errors import UserError

MOST_CHARACTERS = 1000
"""The most characters that become tokens of their own."""

EMPTY_CORPUS = "pretraining.corpus: holds no text to train a tokenizer on; name a corpus with text"

# The trainers cut a text on one processor and hold all its pieces: a book of a million lines must not come whole.
_LONGEST_TEXT = 100_000


def copy_lines(texts: Iterator[str], copy: IO[str]) -> Counter[str]:
    """Write the texts to `copy`, one a line, and count their characters, the ends of lines left out."""
    counts: Counter[str] = Counter()
    for text in texts:
        line = " ".join(text.splitlines())
        counts.update(line)
        copy.write(line + "\n")
    return counts


def normalize_counts(raw: Counter[str], normalize: Callable[[str], str]) -> Counter[str]:
    """Count what is left of the characters after a normaliser that works character by character; spaces are left out.

    Raises:
        UserError: nothing is left.
    """
    counts: Counter[str] = Counter()
    for character, count in raw.items():
        for normalized in "".join(normalize(character).split()):
            counts[normalized] += count
    if not counts:
        raise UserError(EMPTY_CORPUS)
    return counts


def choose_alphabet(counts: Counter[str], room: int) -> list[str]:
    """The most frequent characters, at most `room` of them, in the order of their code points."""
    by_count = sorted(counts, key=lambda character: (-counts[character], character))
    return sorted(by_count[: min(room, MOST_CHARACTERS)])


def cut_texts(texts: Iterator[str]) -> Iterator[str]:
    """The texts in parts of at most 100,000 characters that UTF-8 can hold.

    Raises:
        UserError: there is nothing but space in them.
    """
    is_empty = True
    for text in texts:
        valid = text.encode("utf-8", errors="replace").decode("utf-8")
        is_empty = is_empty and not valid.strip()
        yield from (valid[start : start + _LONGEST_TEXT] for start in range(0, len(valid), _LONGEST_TEXT))
    if is_empty:
        raise UserError(EMPTY_CORPUS)
