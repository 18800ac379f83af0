"""Exported taggers as functions of text. Imports neither torch nor transformers.

Shapes: S tokens, V classes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lightpaff.data.words import Span, first_pieces, join_words, split_words
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.classifier import TextLogits, softmax
from lightpaff.deployment.runner import ClassRunner
from lightpaff.errors import UserError
from lightpaff.evaluation.tags import entities_of, mark_entities

_SURROGATE = re.compile("[\ud800-\udfff]")

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
        self._labels, self._are_entities = card.labels, mark_entities(card.labels)

    def __call__(self, texts: str | Sequence[Words]) -> list[list[Tagged]]:
        """The entities of each text, in order, or every word where the tags mark no entities. A text longer than the
        model reads at once is read in parts.

        Raises:
            UserError: one of the texts is neither a text nor a list of words.
        """
        given = [texts] if isinstance(texts, str) else texts
        cut = [_cut(text, number) for number, text in enumerate(given, start=1)]
        words: list[list[_Word]] = [[] for _ in cut]
        unread = [(number, 0) for number, (_, spans) in enumerate(cut) if spans]
        while unread:
            rests = [_from_word(*cut[number], first) for number, first in unread]
            found = list(self._logits([text for text, _ in rests]))
            places, unread = unread, []
            for (number, first), (_, rest), (encoding, logits_SV) in zip(places, rests, found, strict=True):
                starts = first_pieces(encoding.offsets, rest)
                read = [word for word, start in enumerate(starts) if start >= 0]
                spans = cut[number][1]
                words[number] += [(spans[first + word], softmax(logits_SV[starts[word]])) for word in read]
                following = first + read[-1] + 1 if read else len(spans)
                if encoding.overflowing and following < len(spans):
                    unread.append((number, following))
        return [self._group(text, own) for (text, _), own in zip(cut, words, strict=True)]

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


def _from_word(text: str, spans: list[Span], word: int) -> tuple[str, list[Span]]:
    """The text from a word on, and its words there."""
    shift = spans[word][0]
    return text[shift:], [(start - shift, end - shift) for start, end in spans[word:]]


def _cut(text: object, number: int) -> tuple[str, list[Span]]:
    if isinstance(text, str):
        # One character for one, so that places stay what they are.
        plain = _SURROGATE.sub("\ufffd", text)
        return plain, split_words(plain)
    if isinstance(text, Sequence) and not isinstance(text, bytes) and all(isinstance(word, str) for word in text):
        return join_words([_SURROGATE.sub("\ufffd", word) for word in text])
    raise UserError(f"texts: number {number} is {text!r}; give a string, or a list of words")
