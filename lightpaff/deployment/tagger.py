"""Exported taggers as functions of text. Imports neither torch nor transformers.

Shapes: S tokens, V classes, W words of a text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from lightpaff.data.cleaning import clean_text, plain_text
from lightpaff.data.words import Span, first_pieces, join_words, split_words
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.classifier import TextLogits, softmax
from lightpaff.deployment.runner import ClassRunner
from lightpaff.errors import UserError
from lightpaff.evaluation.tags import entities_of, mark_entities

Words = str | Sequence[str]
"""A text, or its words where they are cut already."""


@dataclass(frozen=True)
class Tagged:
    """An entity, or a word with its tag.

    Attributes:
        label: its type, or the tag.
        text: the characters from `start` to `end`.
        start, end: in the text as it was given; of words, in the text with one space between them.
        probability: that the model gives the tags of its words, 0 to 1: their mean.
    """

    label: str
    text: str
    start: int
    end: int
    probability: float


class Tagger:
    """Finds entities in texts, or tags their words, with an exported tagger.

    Args:
        runner: of the model.
        tokenizer: of the model; its truncation is set here.
        card: of the export: its tags, and how many tokens are read.
    """

    def __init__(self, runner: ClassRunner, tokenizer: Tokenizer, card: ExportCard) -> None:
        # What does not fit is read as the next part, so it is always the end that is cut off.
        self._logits = TextLogits(runner, tokenizer, replace(card, truncation_side="right"))
        self._most_tokens = card.max_length
        self._labels, self._are_entities = card.labels, mark_entities(card.labels)

    def __call__(self, texts: str | Sequence[Words]) -> list[list[Tagged]]:
        """The entities of each text, in order, or every word where the tags mark no entities. A text longer than the
        model reads at once is read in parts.

        Raises:
            UserError: one of the texts is neither a text nor a list of words.
        """
        given = [texts] if isinstance(texts, str) else texts
        readings = [_Reading(*_cut(text, number), self._most_tokens) for number, text in enumerate(given, start=1)]
        while unread := [reading for reading in readings if reading.is_unread]:
            found = self._logits([reading.part for reading in unread])
            for reading, (encoding, logits_SV) in zip(unread, found, strict=True):
                reading.read(encoding, logits_SV)
        return [self._group(reading.text, reading.words) for reading in readings]

    def _group(self, text: str, words: list["_Word"]) -> list[Tagged]:
        tags = [self._labels[int(probability_V.argmax())] for _, probability_V in words]
        groups = entities_of(tags) if self._are_entities else [(tag, word, word) for word, tag in enumerate(tags)]
        tagged = []
        for label, first, last in groups:
            start, end = words[first][0][0], words[last][0][1]
            probability = float(np.mean([probability_V.max() for _, probability_V in words[first : last + 1]]))
            tagged.append(Tagged(label, text[start:end], start, end, probability))
        return tagged


_Word = tuple[Span, NDArray[np.float64]]
"""Where it is, and the probability of each tag."""


class _Reading:
    """A text that is read part by part, as in training: its words cleaned, one space between two of them. Each part
    begins with a word and is cut into tokens by itself, as far as the model may read it: a text takes no more than a
    few times the work of cutting it once.

    Args:
        text: as it was given.
        spans: of its words.
        most_tokens: that the model reads at once.
    """

    def __init__(self, text: str, spans: list[Span], most_tokens: int) -> None:
        self.text, self._spans, self._most_tokens = text, spans, most_tokens
        self._read, self._places = join_words([clean_text(text[start:end]) for start, end in spans])
        self.words: list[_Word] = []
        self._first, self._last = 0, len(spans)
        self._tokens_before_W: NDArray[np.int64] | None = None

    @property
    def is_unread(self) -> bool:
        """There are words left."""
        return self._first < len(self._spans)

    @property
    def part(self) -> str:
        """What is to be read next."""
        end = self._places[self._last][0] if self._last < len(self._places) else len(self._read)
        return self._read[self._places[self._first][0] : end]

    def read(self, encoding: Encoding, logits_SV: NDArray[np.float32]) -> None:
        """Take what the model gives for that part, and go on."""
        spans, places = self._spans[self._first : self._last], self._places[self._first : self._last]
        shifted = [(start - places[0][0], end - places[0][0]) for start, end in places]
        if self._tokens_before_W is None:
            self._tokens_before_W = _tokens_before(encoding, shifted)
        starts = first_pieces(encoding.offsets, shifted)
        inside = [word for word, start in enumerate(starts) if start >= 0]
        self.words += [(spans[word], softmax(logits_SV[starts[word]])) for word in inside]
        is_cut = encoding.overflowing or self._last < len(self._spans)
        self._first = self._first + inside[-1] + 1 if inside and is_cut else len(self._spans)
        if self.is_unread:
            # Twice: by itself a part may be cut into other tokens than within its text.
            enough = self._tokens_before_W[self._first] + 2 * self._most_tokens
            self._last = int(np.searchsorted(self._tokens_before_W, enough))


def _tokens_before(whole: Encoding, spans: list[Span]) -> NDArray[np.int64]:
    """How many tokens of its text stand before each word."""
    offsets = [offset for part in (whole, *whole.overflowing) for offset in part.offsets]
    return np.maximum.accumulate(np.array(first_pieces(offsets, spans), dtype=np.int64))


def _cut(text: object, number: int) -> tuple[str, list[Span]]:
    if isinstance(text, str):
        plain = plain_text(text)
        return plain, split_words(plain)
    if isinstance(text, Sequence) and not isinstance(text, bytes) and all(isinstance(word, str) for word in text):
        return join_words([plain_text(word) for word in text])
    raise UserError(f"texts: number {number} is {text!r}; give a string, or a list of words")
