"""An export as a function from checked inputs to what goes into JSON."""

import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightpaff.data.cleaning import SURROGATE
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.classifier import Classifier, Scorer
from lightpaff.deployment.loading import load
from lightpaff.deployment.text_loading import Written
from lightpaff.errors import UserError
from lightpaff.serving.work import Work

Input = str | tuple[str, str]
_WRITES = ("next_tokens", "target_tokens")
_READS_ALL = ("token_classes", "spans")
_CHARACTERS_TOGETHER = 20_000
_UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")
"""Unicode's categories of what is cleaned away, or cannot be seen: an answer would be one to nothing."""


class Served:
    """An opened export.

    Args:
        directory: of the export.
        threads: that work on one batch.

    Raises:
        UserError: as `load`.
    """

    def __init__(self, directory: Path, threads: int) -> None:
        self.card = ExportCard.read(directory)
        self.name = directory.resolve().name
        self._loaded: Any = load(directory, threads)

    @property
    def reads_pairs(self) -> bool:
        """Every input is two texts."""
        return self.card.pairs or self.card.kind == "spans"

    @property
    def writes(self) -> bool:
        """It writes text: the completions endpoint is there."""
        return self.card.kind in _WRITES

    @property
    def continues(self) -> bool:
        """It writes on after a prompt, as many tokens as one likes."""
        return self.card.kind == "next_tokens"

    @property
    def most_together(self) -> int:
        """Characters that are answered at a time: where a model reads however long a text is, no more than of one."""
        return _CHARACTERS_TOGETHER if self.card.kind in _READS_ALL else sys.maxsize

    @property
    def most_tokens(self) -> int:
        """That it writes at once; a decoder leaves room for a token of the prompt."""
        return self.card.max_length - 1 if self.continues else self.card.max_target_length

    def do(self, works: list[Work]) -> list[Any]:
        """One answer, or what was written, each; the work is alike."""
        given, first = [work.given for work in works], works[0]
        if first.kind == "answer":
            return _ANSWERS[self.card.kind](self._loaded, given)
        if isinstance(given[0], Written):
            return list(self._loaded.write_on(given, first.tokens))
        if self.continues:
            return list(self._loaded.write_on(self._loaded.begin(given, first.room), first.tokens))
        return list(self._loaded.write(given, first.tokens))


def check_input(value: object, reads_pairs: bool, is_cleaned: bool, most_characters: int, place: str) -> Input:
    """One input out of JSON. Of what `is_cleaned` before it is read, something has to be left.

    Raises:
        UserError: it is none, or too long.
    """
    given = value if isinstance(value, list) else [value]
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) != len(given) or len(texts) != 1 + reads_pairs:
        raise UserError(f"{place}: give {'a list of two texts' if reads_pairs else 'a text'}")
    for text in texts:
        if len(text) > most_characters:
            raise UserError(f"{place}: has {len(text):,} characters; {most_characters:,} are the most")
        if not text.strip() or (is_cleaned and all(unicodedata.category(letter) in _UNSEEN for letter in text)):
            raise UserError(f"{place}: is empty")
        if SURROGATE.search(text):
            raise UserError(f"{place}: holds half of a character (a lone surrogate)")
    return (texts[0], texts[1]) if reads_pairs else texts[0]


def size_of(given: Input) -> int:
    """Its characters."""
    return len(given) if isinstance(given, str) else sum(map(len, given))


def told_if_cut(is_cut: bool) -> dict[str, Any]:
    """Of an answer, that not all of the text was read."""
    return {"truncated": True} if is_cut else {}


def _classes(loaded: Classifier, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    found = []
    for probabilities, is_cut in loaded.probabilities_and_cuts(inputs):  # type: ignore[arg-type]
        label = max(probabilities, key=probabilities.__getitem__)
        answer = {"label": label, "probability": probabilities[label], "probabilities": probabilities}
        found.append({**answer, **told_if_cut(is_cut)})
    return found


def _scores(loaded: Scorer, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    return [{"score": score, **told_if_cut(is_cut)} for score, is_cut in loaded.scores_and_cuts(inputs)]  # type: ignore[arg-type]


def _as_lists(loaded: Any, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    return [{"spans": [asdict(span) for span in spans]} for spans in loaded(inputs)]


def _extracted(loaded: Any, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    found = []
    for answer in map(asdict, loaded(inputs)):
        is_cut = answer.pop("is_cut")
        found.append({**answer, **told_if_cut(is_cut)})
    return found


def _texts(loaded: Any, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    found = loaded.write(inputs, loaded.usual_tokens)
    return [{"text": written.text, **told_if_cut(written.is_cut)} for written in found]


_ANSWERS: dict[str, Callable[[Any, list[Any]], list[dict[str, Any]]]] = {
    "classes": _classes,
    "scores": _scores,
    "token_classes": _as_lists,
    "spans": _extracted,
    "next_tokens": _texts,
    "target_tokens": _texts,
}
