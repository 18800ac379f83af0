"""Exported models that answer questions from a context. Imports neither torch nor transformers.

Shapes: B windows, S tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tokenizers import Tokenizer

from lightpaff.data.cleaning import plain_text
from lightpaff.data.questions import context_spans, cut_question, cut_windows
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.classifier import pad_right, segments_of, softmax
from lightpaff.deployment.runner import ClassRunner
from lightpaff.deployment.texts import Pair
from lightpaff.errors import UserError
from lightpaff.evaluation.spans import best_span

_WINDOWS_TOGETHER = 16


@dataclass(frozen=True)
class Extracted:
    """An answer.

    Attributes:
        text: the characters of the context from `start` to `end`; empty where the model says that there is no answer.
        start, end: in the context as it was given; both 0 for no answer.
        score: the probability of its start times that of its end among the tokens of its window, 0 to 1.
        is_cut: of the question, only the beginning was read.
    """

    text: str
    start: int
    end: int
    score: float
    is_cut: bool = False


class Extractor:
    """Answers questions with parts of their contexts; a long context is read in windows that overlap.

    Args:
        runner: of the model.
        tokenizer: of the model; its truncation is set here.
        card: of the export: how many tokens are read at once, and whether it may say nothing.
    """

    def __init__(self, runner: ClassRunner, tokenizer: Tokenizer, card: ExportCard) -> None:
        self._runner, self._tokenizer, self._card = runner, tokenizer, card

    def __call__(self, pairs: Pair | Sequence[Pair]) -> list[Extracted]:
        """The answer to each (question, context).

        Raises:
            UserError: one of them is no pair of texts.
        """
        is_one = isinstance(pairs, tuple) and len(pairs) == 2 and all(isinstance(text, str) for text in pairs)
        given: Sequence[object] = [pairs] if is_one else list(pairs)
        return [self._answer_to(*_require_pair(pair, number)) for number, pair in enumerate(given, start=1)]

    def _answer_to(self, question: str, context: str) -> Extracted:
        read = cut_question(self._tokenizer, question, self._card.max_length)
        return replace(self._answer(read, context), is_cut=read != question)

    def _answer(self, question: str, context: str) -> Extracted:
        windows = cut_windows(self._tokenizer, question, context, self._card.max_length)
        found, nothing, nothing_score = (-np.inf, Extracted("", 0, 0, 0.0)), np.inf, 0.0
        for first in range(0, len(windows), _WINDOWS_TOGETHER):
            together = windows[first : first + _WINDOWS_TOGETHER]
            logits_BS2 = self._runner.logits(
                pad_right([window.ids for window in together]),
                pad_right([[1] * len(window.ids) for window in together]),
                pad_right([segments_of(window) for window in together]) if self._card.segments else None,
            )
            for window, logits_S2 in zip(together, logits_BS2, strict=True):
                start_S, end_S = logits_S2[: len(window.ids)].T
                spans = context_spans(window)
                best = best_span(start_S, end_S, np.array([start >= 0 for start, _ in spans]))
                probability_S = [softmax(start_S), softmax(end_S)]
                if best.score > found[0]:
                    start, end = spans[best.first][0], spans[best.last][1]
                    score = float(probability_S[0][best.first] * probability_S[1][best.last])
                    found = best.score, Extracted(context[start:end], start, end, score)
                if best.nothing < nothing:
                    nothing, nothing_score = best.nothing, float(probability_S[0][0] * probability_S[1][0])
        is_nothing = bool(self._card.labels) and nothing > found[0]
        return Extracted("", 0, 0, nothing_score) if is_nothing else found[1]


def _require_pair(pair: object, number: int) -> tuple[str, str]:
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise UserError(f"questions: number {number} is {pair!r}; give tuples of a question and its context")
    return plain_text(pair[0]), plain_text(pair[1])
