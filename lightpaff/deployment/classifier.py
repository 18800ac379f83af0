"""Exported classifiers and scorers as functions of text. Imports neither torch nor transformers.

Shapes: B rows, S tokens, V classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.runner import ClassRunner, Ids
from lightpaff.deployment.texts import Pair, Texts, read_pairs, read_texts

_TEXTS_TOGETHER = 16


@dataclass(frozen=True)
class Answer:
    """The most likely label of a text.

    Attributes:
        label: its name.
        probability: that the model gives it, 0 to 1.
    """

    label: str
    probability: float


class Classifier:
    """Names the class of texts with an exported classifier.

    Args:
        runner: of the model.
        tokenizer: of the model; its truncation is set here.
        card: of the export: its classes, how many tokens are read (of a pair the longer text is cut first), and whether
            it reads pairs.
    """

    def __init__(self, runner: ClassRunner, tokenizer: Tokenizer, card: ExportCard) -> None:
        self._logits = TextLogits(runner, tokenizer, card)
        self._labels, self._read = card.labels, read_pairs if card.pairs else read_texts

    def __call__(self, texts: Texts) -> list[Answer]:
        """The answer for each text, or each pair.

        Raises:
            UserError: one of them is no text, or no pair where the model reads pairs.
        """
        found = self._logits(self._read(texts))
        return [Answer(self._labels[int(row.argmax())], float(softmax(row).max())) for _, row in found]

    def probabilities(self, texts: Texts) -> list[dict[str, float]]:
        """The same with the probability of every label; raises as a call does."""
        return [probabilities for probabilities, _ in self.probabilities_and_cuts(texts)]

    def probabilities_and_cuts(self, texts: Texts) -> list[tuple[dict[str, float], bool]]:
        """The same, and whether it was too long to be read as a whole; raises as a call does."""
        found = self._logits(self._read(texts))
        return [
            (dict(zip(self._labels, softmax(row).tolist(), strict=True)), bool(encoding.overflowing))
            for encoding, row in found
        ]


class Scorer:
    """Scores texts with an exported regression model.

    Args:
        runner: of the model.
        tokenizer: of the model; its truncation is set here.
        card: as of a classifier.
    """

    def __init__(self, runner: ClassRunner, tokenizer: Tokenizer, card: ExportCard) -> None:
        self._logits = TextLogits(runner, tokenizer, card)
        self._read = read_pairs if card.pairs else read_texts

    def __call__(self, texts: Texts) -> list[float]:
        """The score of each text, or each pair.

        Raises:
            UserError: as a classifier.
        """
        return [score for score, _ in self.scores_and_cuts(texts)]

    def scores_and_cuts(self, texts: Texts) -> list[tuple[float, bool]]:
        """The same, and whether it was too long to be read as a whole; raises as a call does."""
        return [(float(row[0]), bool(encoding.overflowing)) for encoding, row in self._logits(self._read(texts))]


class TextLogits:
    """What an exported model gives for texts that are cut as its card says; the arguments are those of a classifier."""

    def __init__(self, runner: ClassRunner, tokenizer: Tokenizer, card: ExportCard) -> None:
        self._runner, self._tokenizer, self._card = runner, tokenizer, card
        tokenizer.enable_truncation(card.max_length, direction=card.truncation_side)

    def __call__(self, texts: Sequence[str] | Sequence[Pair]) -> Iterator[tuple[Encoding, NDArray[np.float32]]]:
        """Each text's tokens and logits (V, or tokens and padding x V), in order; texts of like length are run
        together, so that little is padding."""
        encodings = self._tokenizer.encode_batch(texts)
        by_length = sorted(range(len(encodings)), key=lambda number: len(encodings[number].ids))
        found: dict[int, NDArray[np.float32]] = {}
        for first in range(0, len(by_length), _TEXTS_TOGETHER):
            numbers = by_length[first : first + _TEXTS_TOGETHER]
            together = [encodings[number] for number in numbers]
            ids_BS = pad_right([encoding.ids for encoding in together])
            mask_BS = pad_right([[1] * len(encoding.ids) for encoding in together])
            segments_BS = pad_right([segments_of(encoding) for encoding in together]) if self._card.segments else None
            found |= dict(zip(numbers, self._runner.logits(ids_BS, mask_BS, segments_BS), strict=True))
        return ((encoding, found[number]) for number, encoding in enumerate(encodings))


def pad_right(rows: list[list[int]]) -> Ids:
    """Rows of different lengths as one rectangle."""
    # With 0, whatever the padding token is: the mask hides it.
    padded_BS = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for row, values in zip(padded_BS, rows, strict=True):
        row[: len(values)] = values
    return padded_BS


def segments_of(encoding: Encoding) -> list[int]:
    """1 from the second text on, as in training, whatever the tokenizer's own segments are."""
    parts = encoding.sequence_ids
    first_length = parts.index(1) if 1 in parts else len(parts)
    return [int(place >= first_length) for place in range(len(parts))]


def softmax(logits_V: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probabilities, in float64."""
    exponentials_V = np.exp(logits_V.astype(np.float64) - logits_V.max())
    probabilities_V: NDArray[np.float64] = exponentials_V / exponentials_V.sum()
    return probabilities_V
