"""An export as a function from checked inputs to what goes into JSON."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.classifier import Classifier
from lightpaff.deployment.loading import load
from lightpaff.deployment.text_loading import Written
from lightpaff.errors import UserError

Input = str | tuple[str, str]
_WRITES = ("next_tokens", "target_tokens")


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

    def answer(self, inputs: list[Input]) -> list[dict[str, Any]]:
        """One answer an input."""
        return _ANSWERS[self.card.kind](self._loaded, inputs)

    @property
    def most_tokens(self) -> int:
        """That it writes at once; a decoder leaves room for a token of the prompt."""
        return self.card.max_length - 1 if self.continues else self.card.max_target_length

    def write(self, prompts: list[str], tokens: int) -> list[Written]:
        """What follows the prompts, in at most so many tokens; of an encoder-decoder, what it writes for them."""
        return list(self._loaded.write(prompts, tokens))


def check_input(value: object, reads_pairs: bool, most_characters: int, place: str) -> Input:
    """One input out of JSON.

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
        if not text.strip():
            raise UserError(f"{place}: is empty")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UserError(f"{place}: holds half of a character (a lone surrogate)")
    return (texts[0], texts[1]) if reads_pairs else texts[0]


def _classes(loaded: Classifier, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    found = []
    for probabilities in loaded.probabilities(inputs):  # type: ignore[arg-type]
        label = max(probabilities, key=probabilities.__getitem__)
        found.append({"label": label, "probability": probabilities[label], "probabilities": probabilities})
    return found


def _as_lists(loaded: Any, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    return [{"spans": [asdict(span) for span in spans]} for spans in loaded(inputs)]


_ANSWERS: dict[str, Callable[[Any, list[Any]], list[dict[str, Any]]]] = {
    "classes": _classes,
    "scores": lambda loaded, inputs: [{"score": score} for score in loaded(inputs)],
    "token_classes": _as_lists,
    "spans": lambda loaded, inputs: [asdict(answer) for answer in loaded(inputs)],
    "next_tokens": lambda loaded, inputs: [{"text": text} for text in loaded(inputs)],
    "target_tokens": lambda loaded, inputs: [{"text": text} for text in loaded(inputs)],
}
