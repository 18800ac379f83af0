"""How well a language model predicts a text: the negative log likelihood of each window, and its perplexities.

Shapes: N windows.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from lightpaff.errors import UserError
from lightpaff.evaluation.comparison import Comparison
from lightpaff.evaluation.metrics import Floats, Integers
from lightpaff.files import write_whole
from lightpaff.recipe_sections import Metric

_FEW_DOCUMENTS = 10
"""Fewer are too few to be drawn whole."""
LARGEST_EXPONENT = 115.0
"""Of a perplexity: 1e50 is as bad as any, and its powers, in the variance over seeds, are still numbers."""


@dataclass(frozen=True)
class TokenLikelihoods:
    """What one model says about every window of a text.

    Attributes:
        nll_N: float64, the sum of -log P over the scored tokens of each window, in nats.
        tokens_N: how many tokens are scored.
        words_N: how many words of the text these tokens make up.
        documents_N: the number of the document that each window is of, in order; None where that was not kept.
    """

    nll_N: Floats
    tokens_N: Integers
    words_N: Integers
    documents_N: Integers | None = None

    def __len__(self) -> int:
        return len(self.nll_N)

    def compare(self, other: "TokenLikelihoods") -> Comparison:
        """By the largest difference of a window's log likelihood a token."""
        return Comparison(None, float(np.abs((self.nll_N - other.nll_N) / self.tokens_N).max()))

    @property
    def is_finite_N(self) -> NDArray[np.bool_]:
        """Which windows have a number."""
        return np.isfinite(self.nll_N)

    @property
    def is_constant(self) -> bool:
        """No: likelihoods are no answers."""
        return False

    @property
    def units_N(self) -> Integers:
        """Blocks of neighbouring windows: what is hard about one is hard about the next.

        Of N**(1/3) windows each, the order that balances the bias and the variance of a block bootstrap's variance
        (Hall, Horowitz and Jing 1995). Where there are ten documents or more, none is cut: each is of the block in
        which it begins.
        """
        blocks_N: Integers = np.arange(len(self)) // max(1, round(len(self) ** (1 / 3)))
        if self.documents_N is None:
            return blocks_N
        _, begins_D, document_N = np.unique(self.documents_N, return_index=True, return_inverse=True)
        if len(begins_D) < _FEW_DOCUMENTS:
            return blocks_N
        return np.unique(blocks_N[begins_D][document_N], return_inverse=True)[1].astype(np.int64)

    def weighted_score(self, metric: Metric, weights_N: Floats) -> float:
        """`score` where each window comes as often as its weight says."""
        counts_N = self.tokens_N if metric == "perplexity" else self.words_N
        return _exp_of_mean(self.nll_N * weights_N, (counts_N * weights_N).astype(np.int64))

    def score(self, metric: Metric) -> float:
        """A perplexity: exp of the mean -log P per token, or per word, so that models with unlike tokens compare.

        No higher than exp of `LARGEST_EXPONENT`, which it is where there is nothing to divide by.
        """
        return self.weighted_score(metric, np.ones(len(self)))


def write_likelihoods(path: Path, likelihoods: TokenLikelihoods) -> None:
    """Write the likelihoods, whole, as safetensors that `read_likelihoods` reads."""
    arrays = {
        "nll_N": likelihoods.nll_N.astype(np.float64),
        "tokens_N": likelihoods.tokens_N.astype(np.int64),
        "words_N": likelihoods.words_N.astype(np.int64),
    }
    if likelihoods.documents_N is not None:
        arrays["documents_N"] = likelihoods.documents_N.astype(np.int64)
    write_whole(path, save(arrays))


def read_likelihoods(path: Path) -> TokenLikelihoods:
    """The likelihoods that `write_likelihoods` wrote.

    Raises:
        UserError: when the file holds none.
    """
    try:
        return TokenLikelihoods(**load_file(path))
    except (SafetensorError, TypeError, OSError) as error:
        raise UserError(f"{path}: holds no likelihoods; delete its folder and run again") from error


def _exp_of_mean(nll_N: Floats, counts_N: Integers) -> float:
    nll, count = float(nll_N.sum()), int(counts_N.sum())
    return math.exp(min(nll / count, LARGEST_EXPONENT) if count else LARGEST_EXPONENT)
