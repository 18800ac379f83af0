"""Extracted answers: which span of its windows answers a question, and exact match and F1 as SQuAD counts them.

Shapes: N questions, W windows of all questions, S tokens, V positions that a window has at most.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from lightpaff.data.numbering import numbered
from lightpaff.evaluation.comparison import Comparison
from lightpaff.evaluation.metrics import Floats, Integers
from lightpaff.recipe_sections import Metric

_LONGEST_ANSWER = 30
"""In tokens, as is usual for SQuAD."""
_SAID = -1e3
"""Below are no logits of a model, but what is never chosen."""
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Span:
    """The best part of a window: its first and its last token, and the sum of their logits; `nothing` is that sum for
    no answer."""

    first: int
    last: int
    score: float
    nothing: float


def best_span(start_S: NDArray[np.float32], end_S: NDArray[np.float32], in_context_S: NDArray[np.bool_]) -> Span:
    """The span in the context with the highest sum of its logits, of at most 30 tokens."""
    places = np.flatnonzero(in_context_S)
    nothing = float(start_S[0] + end_S[0])
    if not len(places):
        return Span(0, 0, -np.inf, nothing)
    width = np.arange(min(_LONGEST_ANSWER, len(places)))
    last = np.arange(len(places))[:, None] + width
    end_of = np.where(last < len(places), end_S[places][np.minimum(last, len(places) - 1)], -np.inf)
    first, more = np.unravel_index(int((start_S[places][:, None] + end_of).argmax()), end_of.shape)
    score = float(start_S[places[first]] + end_S[places[first + more]])
    return Span(int(places[first]), int(places[first + more]), score, nothing)


def normalise_answer(text: str) -> str:
    """As SQuAD compares answers: without capitals, punctuation, English articles and spare white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def exact_match(said: str, answers: Sequence[str]) -> float:
    """1 where an answer is the same; without answers, where nothing is said."""
    return float(any(normalise_answer(said) == normalise_answer(answer) for answer in answers or [""]))


def token_f1(said: str, answers: Sequence[str]) -> float:
    """The best F1 over the words of an answer; without answers, 1 where nothing is said."""
    return max(_token_f1(normalise_answer(said).split(), normalise_answer(gold).split()) for gold in answers or [""])


def _token_f1(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    return 2 * (Counter(said) & Counter(gold)).total() / (len(said) + len(gold))


@dataclass(frozen=True)
class Windows:
    """What is asked, window by window.

    Attributes:
        question_W: the number of each window's question.
        starts, ends: of each window, where its tokens are in the context; -1 where they are no part of it.
        contexts: of each question.
        answers: the gold ones of each question; none where it has none.
        gold_W2: the first and the last token of the gold answer, 0 where the window does not hold it.
    """

    question_W: Integers
    starts: list[Integers]
    ends: list[Integers]
    contexts: list[str]
    answers: list[list[str]]
    gold_W2: Integers


@dataclass(frozen=True)
class ExtractedAnswers:
    """See `Outputs`; the rows are questions.

    Attributes:
        texts: what is answered; empty where nothing is.
        answers: the gold ones.
        contexts: of the questions.
        logits_WV: of starts and ends in turn, 2W x V.
        loss: the mean of -log P of the gold starts and ends, in nats.
        is_finite_N: which questions have numbers alone.
    """

    texts: list[str]
    answers: list[list[str]]
    contexts: list[str]
    logits_WV: NDArray[np.float32]
    loss: float
    is_finite_N: NDArray[np.bool_]

    @classmethod
    def of_logits(cls, logits_WV: NDArray[np.float32], windows: Windows, may_be_nothing: bool) -> "ExtractedAnswers":
        """Choose each question's best span over all its windows.

        Args:
            logits_WV: of starts and ends in turn, 2W x V.
            windows: what was asked.
            may_be_nothing: questions may have no answer: it is given where its logits are higher in every window.
        """
        count = len(windows.contexts)
        best, nothing = [(-np.inf, "")] * count, np.full(count, np.inf)
        finite_N = np.ones(count, dtype=bool)
        for window, question in enumerate(windows.question_W):
            starts_S, ends_S = windows.starts[window], windows.ends[window]
            start_S, end_S = logits_WV[2 * window : 2 * window + 2, : len(starts_S)]
            finite_N[question] &= bool(np.isfinite(start_S).all() and np.isfinite(end_S).all())
            found = best_span(start_S, end_S, starts_S >= 0)
            nothing[question] = min(nothing[question], found.nothing)
            text = windows.contexts[question][starts_S[found.first] : ends_S[found.last]]
            if found.score > best[question][0]:
                best[question] = found.score, text
        texts = ["" if may_be_nothing and nothing[row] > score else text for row, (score, text) in enumerate(best)]
        log_p_WV = log_softmax(logits_WV.astype(np.float64), axis=1)
        loss = float(-np.take_along_axis(log_p_WV, windows.gold_W2.reshape(-1, 1), axis=1).mean())
        return cls(texts, windows.answers, windows.contexts, logits_WV, loss, finite_N)

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def _scores(self) -> dict[Metric, Floats]:
        pairs = list(zip(self.texts, self.answers, strict=True))
        return {
            "exact_match": np.array([exact_match(*pair) for pair in pairs]),
            "answer_f1": np.array([token_f1(*pair) for pair in pairs]),
        }

    def score(self, metric: Metric) -> float:
        """`exact_match` or `answer_f1`: the mean over the questions."""
        return self.weighted_score(metric, np.ones(len(self)))

    def weighted_score(self, metric: Metric, weights_N: Floats) -> float:
        """`score` where each question comes as often as its weight says."""
        return float(weights_N @ self._scores[metric] / weights_N.sum())

    def compare(self, other: "ExtractedAnswers") -> Comparison:
        """Texts by their agreement, logits by their largest difference."""
        said = self.logits_WV > _SAID
        same = np.mean([first == second for first, second in zip(self.texts, other.texts, strict=True)])
        difference = float(np.abs(self.logits_WV - other.logits_WV)[said].max())
        return Comparison(float(same), difference, largest=float(np.abs(self.logits_WV[said]).max()))

    @property
    def is_constant(self) -> bool:
        """One text for every question."""
        return len(self) > 1 and len(set(self.texts)) == 1

    @property
    def units_N(self) -> Integers:
        """The contexts: questions about one of them are drawn together."""
        return numbered(self.contexts)
