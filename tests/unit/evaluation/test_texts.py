import time
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from lightpaff.errors import UserError
from lightpaff.evaluation.intervals import bootstrap_interval, paired_difference
from lightpaff.evaluation.texts import GeneratedTexts, read_texts, write_texts
from lightpaff.recipe_sections import Metric

WORDS = ["the", "cat", "cats", "sat", "on", "a", "mat", ",", "Größe", "is", "42", "running", "."]
PUBLIC = {"bleu": BLEU, "chrf": CHRF}

sentence = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
rows = st.lists(st.tuples(sentence, st.lists(sentence, min_size=1, max_size=3)), min_size=1, max_size=6)
Rows = list[tuple[str, list[str]]]


def texts_of(rows: Rows) -> GeneratedTexts:
    return GeneratedTexts([hypothesis for hypothesis, _ in rows], [references for _, references in rows])


def public_score(metric: Metric, rows: Rows) -> float:
    """By the package's public function, over the streams that its documentation asks for."""
    streams = list(zip_longest(*[references for _, references in rows]))
    return float(PUBLIC[metric]().corpus_score([hypothesis for hypothesis, _ in rows], streams).score) / 100


def random_rows(number: int, seed: int, words: int = 20, change: float = 0.3) -> Rows:
    random = np.random.default_rng(seed)
    references = np.random.default_rng(99).choice(WORDS, size=(number, words))
    written = np.where(random.random((number, words)) < change, random.choice(WORDS, size=(number, words)), references)
    return [
        (" ".join(hypothesis), [" ".join(reference)]) for hypothesis, reference in zip(written, references, strict=True)
    ]


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
@given(rows=rows, data=st.data())
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_the_public_function_on_all_and_on_taken_rows(
    metric: Metric, rows: Rows, data: st.DataObject
) -> None:
    texts = texts_of(rows)
    assert texts.score(metric) == public_score(metric, rows)
    taken = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=8))
    weights_N = np.bincount(taken, minlength=len(rows)).astype(np.float64)
    assert texts.weighted_score(metric, weights_N) == public_score(metric, [rows[row] for row in taken])


def test_scores_are_fractions_of_published_ones() -> None:
    perfect = texts_of([("the cat sat on a mat .", ["the cat sat on a mat ."])])
    for metric in ("bleu", "chrf", "rouge1", "rouge2", "rougeL"):
        assert perfect.score(metric) == pytest.approx(1.0)
    # The example of sacreBLEU's own documentation.
    written = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    assert GeneratedTexts(written, references).score("bleu") == pytest.approx(0.4853, abs=5e-5)


def test_rouge_is_the_mean_of_the_best_reference_of_each_row() -> None:
    texts = texts_of([("the cats sat", ["a cat", "the cat sat"]), ("", ["the mat"])])
    assert texts.score("rouge1") == pytest.approx(0.5)  # The stemmer makes one of cat and cats.
    row = RougeScorer(["rouge2", "rougeL"], use_stemmer=True).score("a cat sat running", "the cat ran sat running")
    one = texts_of([("the cat ran sat running", ["a cat sat running"])])
    assert one.score("rouge2") == row["rouge2"].fmeasure
    assert one.score("rougeL") == row["rougeL"].fmeasure


def test_rows_without_references_are_a_mistake() -> None:
    with pytest.raises(AssertionError, match="reference"):
        GeneratedTexts(["a", "b"], [["x"], []])


def test_signatures_are_those_of_the_packages() -> None:
    rows = random_rows(3, 0)
    bleu = BLEU()
    bleu.corpus_score([hypothesis for hypothesis, _ in rows], [[row[0] for _, row in rows]])
    found = texts_of(rows).signatures()
    assert found["bleu"] == str(bleu.get_signature())
    assert found["chrf"].startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
    assert found["rougeL"].startswith("stemmer:porter|measure:f|refs:best|version:rouge_score 0.")
    uneven = texts_of([*rows, ("a", ["a", "b"])])
    assert "nrefs:var" in uneven.signatures()["bleu"]


def test_texts_are_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    awkward = GeneratedTexts(['"q"\n\u2028 Größe', ""], [["\t", "猫"], ["\r"]], ["\x85", "s"])
    write_texts(path, awkward)
    read = read_texts(path)
    assert (read.hypotheses, read.references, read.sources) == (awkward.hypotheses, awkward.references, awkward.sources)
    write_texts(path, texts_of(random_rows(3, 0)))
    assert read_texts(path).sources is None
    assert "source" not in path.read_text()


@pytest.mark.parametrize("content", [None, "no\n", '{"hypothesis": "a"}\n', "[]\n"])
def test_another_file_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "test.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"test\.jsonl: holds no generated texts"):
        read_texts(path)


def test_better_texts_are_told_apart() -> None:
    good, bad = texts_of(random_rows(100, 0, change=0.1)), texts_of(random_rows(100, 0, change=0.4))
    difference = paired_difference("bleu", [good, texts_of(random_rows(100, 1, change=0.1))], bad, resamples=200)
    assert 0 < difference.low < difference.value < difference.high
    interval = bootstrap_interval("chrf", good, resamples=200)
    assert 0 < interval.low < good.score("chrf") < interval.high <= 1


@pytest.mark.parametrize("metric", ["bleu", "chrf", "rougeL"])
def test_a_thousand_rows_are_resampled_quickly(metric: Metric) -> None:
    texts = texts_of(random_rows(1000, 0))
    texts.score(metric)
    started = time.process_time()
    bootstrap_interval(metric, texts)
    assert time.process_time() - started < 2  # 0.1 s on an idle core; the rest is for a busy one.
