"""Does training text contain examples of the evaluation sets?

Texts are compared as lower-cased words (runs of letters, digits and underscores), so that punctuation, spacing,
capitals, characters that nobody sees (soft hyphens) and contractions that are cut ("does n't") do not hide a leak; in
scripts that put no spaces between words, every letter is a word. The 8-word window follows the n-gram overlap checks
usual for language models.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from lightpaff.data.scripts import plain_words

WINDOW_WORDS = 8
"""From this length on, an example leaks when it appears anywhere in a text; a shorter one only as the whole text."""

_Words = tuple[str, ...]


class LeakIndex:
    """Evaluation examples, findable in any amount of text."""

    def __init__(self, examples: Iterable[str]) -> None:
        """Index `examples` by their first 8 words; one without any word is left out, since it is nowhere."""
        self._short_examples: dict[_Words, str] = {}
        self._long_examples: defaultdict[_Words, dict[_Words, str]] = defaultdict(dict)
        for example in examples:
            words = tuple(plain_words(example))
            if len(words) >= WINDOW_WORDS:
                self._long_examples[words[:WINDOW_WORDS]].setdefault(words, example)
            elif words:
                self._short_examples.setdefault(words, example)

    def find(self, text: str) -> str | None:
        """The evaluation example that `text` contains (the one that starts first), or None."""
        words = plain_words(text)
        if len(words) < WINDOW_WORDS:
            return self._short_examples.get(tuple(words))
        # This line sees all the text, the rest next to none of it: one pass in C over a reused tuple.
        if self._long_examples.keys().isdisjoint(_windows(words)):
            return None
        return self._find_long_example(words)

    def _find_long_example(self, words: list[str]) -> str | None:
        for start, window in enumerate(_windows(words)):
            for candidate, example in self._long_examples.get(window, {}).items():
                if tuple(words[start : start + len(candidate)]) == candidate:
                    return example
        return None


def _windows(words: list[str]) -> Iterator[_Words]:
    return zip(*(words[offset:] for offset in range(WINDOW_WORDS)), strict=False)
