"""How close generated texts are to their references: BLEU, chrF and ROUGE, by the packages that others report with.

BLEU (Papineni et al. 2002) and chrF (Popović 2015) are sacreBLEU's (Post 2018), BLEU with the tokenizer for the script
of the references (`bleu_tokenizers.py`), all else by its defaults; ROUGE (Lin 2004) is rouge_score's with its stemmer,
and knows the letters and digits of English only. BLEU and chrF are no means over rows: they are made from sums of
counts. These are counted once a row, so that a part of the rows is scored in microseconds.

Shapes: N rows, K counts, M ROUGE metrics.
"""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.base import Metric as CorpusMetric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from lightpaff.errors import UserError
from lightpaff.evaluation.bleu_tokenizers import bleu_tokenizer
from lightpaff.evaluation.comparison import Comparison
from lightpaff.evaluation.metrics import Floats, Integers
from lightpaff.files import write_whole
from lightpaff.recipe_sections import Metric

_CORPUS_METRICS: dict[Metric, Callable[[str], CorpusMetric]] = {
    # force: no advice on standard error about text that looks tokenised.
    "bleu": lambda tokenizer: BLEU(tokenize=tokenizer, force=True),
    "chrf": lambda tokenizer: CHRF(),
}
_ROUGE: tuple[Metric, ...] = ("rouge1", "rouge2", "rougeL")


class GeneratedTexts:
    """What one model writes for every row of a split, beside the references.

    Attributes:
        hypotheses: the written text of each row.
        references: the right texts of each row: one or more, not as many in every row.
        sources: what each row's text was written from, where it is kept.
    """

    def __init__(self, hypotheses: list[str], references: list[list[str]], sources: list[str] | None = None) -> None:
        assert len(hypotheses) == len(references), "every row has a hypothesis and references"
        assert all(references), "every row has a reference"
        assert sources is None or len(sources) == len(hypotheses), "every row has a source, or none has"
        self.hypotheses = hypotheses
        self.references = references
        self.sources = sources
        self._counts: dict[Metric, Floats] = {}

    def __len__(self) -> int:
        return len(self.hypotheses)

    def score(self, metric: Metric) -> float:
        """The value of a metric, 0 to 1: sacreBLEU's score / 100, or the mean F-measure of ROUGE.

        Of several references, BLEU matches all, chrF and ROUGE the closest of the row.
        """
        return self.weighted_score(metric, np.ones(len(self)))

    def compare(self, other: "GeneratedTexts") -> Comparison:
        """By the share of rows with the same text."""
        same = sum(one == another for one, another in zip(self.hypotheses, other.hypotheses, strict=True))
        return Comparison(same / len(self), None)

    @property
    def is_finite_N(self) -> NDArray[np.bool_]:
        """Texts are no numbers, and never none."""
        return np.ones(len(self), dtype=np.bool_)

    @property
    def is_constant(self) -> bool:
        """One text, such as the empty one, for every row."""
        return len(self) > 1 and len(set(self.hypotheses)) == 1

    @property
    def units_N(self) -> Integers:
        """Every row for itself."""
        return np.arange(len(self))

    def weighted_score(self, metric: Metric, weights_N: Floats) -> float:
        """`score` where each row comes as often as its weight says."""
        if metric in _ROUGE:
            scores_N = self._rouge_NM[:, _ROUGE.index(metric)]
            return float(scores_N @ weights_N / weights_N.sum())
        counts_K = weights_N @ self._counts_NK(metric)
        return _score_counts(self._corpus_metric(metric), counts_K.astype(np.int64)) / 100

    def signatures(self) -> dict[str, str]:
        """How each metric is computed, with the version of the package: sacreBLEU's own signatures, and ROUGE's."""
        corpus: dict[str, str] = {name: str(self._corpus_metric(name).get_signature()) for name in _CORPUS_METRICS}
        rouge = f"stemmer:porter|measure:f|refs:best|version:rouge_score {version('rouge_score')}"
        return {**corpus, **dict.fromkeys(_ROUGE, rouge)}

    def _corpus_metric(self, metric: Metric) -> CorpusMetric:
        """sacreBLEU's object, which knows how many references there are (-1: not as many in every row)."""
        made = _CORPUS_METRICS[metric](self._tokenizer)
        numbers = {len(references) for references in self.references}
        made.num_refs = numbers.pop() if len(numbers) == 1 else -1
        return made

    def _counts_NK(self, metric: Metric) -> Floats:
        """The counts whose sums BLEU or chrF is made from; as floats, which matrix products are fast with."""
        if metric not in self._counts:
            counted = _count_rows(self._corpus_metric(metric), self.hypotheses, self.references)
            self._counts[metric] = counted.astype(np.float64)
        return self._counts[metric]

    @cached_property
    def _tokenizer(self) -> str:
        return bleu_tokenizer(text for texts in self.references for text in texts)

    @cached_property
    def _rouge_NM(self) -> Floats:
        """The F-measures of each row, with the reference that is best for each."""
        # Imported where it is needed: it takes seconds.
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(list(_ROUGE), use_stemmer=True)
        scored = [scorer.score_multi(*row) for row in zip(self.references, self.hypotheses, strict=True)]
        return np.array([[row[name].fmeasure for name in _ROUGE] for row in scored])


def write_texts(path: Path, texts: GeneratedTexts) -> None:
    """Write the texts, whole, as JSON lines with `hypothesis`, `references` and, where it is kept, `source`."""
    rows: list[dict[str, Any]] = [
        {"hypothesis": hypothesis, "references": references}
        for hypothesis, references in zip(texts.hypotheses, texts.references, strict=True)
    ]
    if texts.sources is not None:
        rows = [{"source": source, **row} for source, row in zip(texts.sources, rows, strict=True)]
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_texts(path: Path) -> GeneratedTexts:
    """The texts that `write_texts` wrote.

    Raises:
        UserError: when the file holds none.
    """
    try:
        with open(path, encoding="utf-8", newline="\n") as file:
            rows = [json.loads(line) for line in file]
        sources = [row["source"] for row in rows] if rows and "source" in rows[0] else None
        return GeneratedTexts([row["hypothesis"] for row in rows], [row["references"] for row in rows], sources)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: holds no generated texts; delete its folder and run again") from error


def _count_rows(metric: CorpusMetric, hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Integers:
    # sacreBLEU takes the first references of all rows, then the second, ...; None where a row has no more.
    streams = list(zip_longest(*references))
    return np.array(metric._extract_corpus_statistics(hypotheses, streams), dtype=np.int64)


def _score_counts(metric: CorpusMetric, counts_K: Integers) -> float:
    return float(metric._compute_score_from_stats(counts_K.tolist()).score)
