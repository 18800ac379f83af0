"""What a model says of every word of a split: entity F1 as seqeval counts it, and the share of right words.

Shapes: N rows, W words of a row, T words with a logit, over all rows, V classes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from seqeval.metrics.sequence_labeling import get_entities

from lightpaff.evaluation.comparison import Comparison
from lightpaff.evaluation.metrics import Floats, Integers, Predictions
from lightpaff.recipe_sections import Metric

_OUTSIDE = "O"
_ENTITY_TAG = re.compile(r"[BIESLU]-.+|O")
_AS_IOBES = {"L": "E", "U": "S"}

Entity = tuple[str, int, int]
"""Its type, its first and its last word."""


def mark_entities(labels: Sequence[str]) -> bool:
    """The tags are IOB1, IOB2, IOBES or BILOU: O, or a place in an entity and its type."""
    return len(set(labels) - {_OUTSIDE}) > 0 and all(map(_ENTITY_TAG.fullmatch, labels))


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """The entities that the tags of a row mark, whichever of the schemes they follow, as conlleval reads them: a tag
    that cannot go on with what is before it begins an entity."""
    return [(kind, first, last) for kind, first, last in get_entities([_plain(tag) for tag in tags])]


def _plain(tag: str) -> str:
    return _AS_IOBES.get(tag[0], tag[0]) + tag[1:] if tag[:2] in ("L-", "U-") else tag


@dataclass(frozen=True)
class TagPredictions:
    """See `Outputs`. A word without a logit (cut off) counts as said to be outside of entities, or wrong.

    Attributes:
        names: of the classes.
        gold: a row's class of each word.
        has_logit: a row's words that have one.
        logits: of these, W x V.
    """

    names: list[str]
    gold: list[Integers]
    has_logit: list[NDArray[np.bool_]]
    logits: list[NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.gold)

    @cached_property
    def said(self) -> list[Integers]:
        """A row's most likely class of each word; -1 where there is none."""
        without = self.names.index(_OUTSIDE) if _OUTSIDE in self.names else -1
        said = [np.full(len(gold), without, dtype=np.int64) for gold in self.gold]
        for said_W, has_logit_W, logits_WV in zip(said, self.has_logit, self.logits, strict=True):
            said_W[has_logit_W] = logits_WV.argmax(axis=1)
        return said

    @cached_property
    def words(self) -> Predictions:
        """The words with a logit, as rows of a classification."""
        gold_T = np.concatenate([gold[has] for gold, has in zip(self.gold, self.has_logit, strict=True)])
        return Predictions(np.concatenate(self.logits), gold_T)

    @property
    def loss(self) -> float:
        """The mean of -log P(gold class) over the words with a logit, in nats."""
        return self.words.loss

    @cached_property
    def _right_N2(self) -> Floats:
        """A row's right words and its words."""
        pairs = zip(self.gold, self.said, strict=True)
        return np.array([[(gold == said).sum(), len(gold)] for gold, said in pairs], dtype=np.float64)

    @cached_property
    def _entities_N3(self) -> Floats:
        """A row's entities that were found, those there are and those that were said."""
        counts = []
        for gold, said in zip(self.gold, self.said, strict=True):
            true, found = (set(entities_of([self.names[tag] for tag in tags])) for tags in (gold, said))
            counts.append([len(true & found), len(true), len(found)])
        return np.array(counts, dtype=np.float64)

    def score(self, metric: Metric) -> float:
        """`accuracy` over words, or `entity_f1`: of entities with the right type, first and last word (micro)."""
        return self.weighted_score(metric, np.ones(len(self)))

    def weighted_score(self, metric: Metric, weights_N: Floats) -> float:
        """`score` where each row comes as often as its weight says."""
        if metric == "accuracy":
            right, words = weights_N @ self._right_N2
            return float(right / words)
        found, true, said = weights_N @ self._entities_N3
        return float(2 * found / (true + said)) if true + said else 0.0

    def compare(self, other: "TagPredictions") -> Comparison:
        """Classes of words by their agreement, logits by their largest difference."""
        return self.words.compare(other.words)

    @property
    def is_finite_N(self) -> NDArray[np.bool_]:
        """Which rows have numbers alone."""
        return np.array([np.isfinite(logits_WV).all() for logits_WV in self.logits])

    @property
    def is_constant(self) -> bool:
        """One class for every word."""
        said_T = np.concatenate(self.said)
        return len(said_T) > 1 and len(np.unique(said_T)) == 1

    @property
    def units_N(self) -> Integers:
        """Every row for itself: the words of one are drawn together."""
        return np.arange(len(self))
