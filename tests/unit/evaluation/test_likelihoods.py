import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lightpaff.errors import UserError
from lightpaff.evaluation.intervals import bootstrap_interval, paired_difference
from lightpaff.evaluation.likelihoods import TokenLikelihoods, read_likelihoods, write_likelihoods


def likelihoods(nll: list[float], tokens: list[int], words: list[int]) -> TokenLikelihoods:
    return TokenLikelihoods(np.array(nll), np.array(tokens), np.array(words))


def random_likelihoods(windows: int, seed: int = 0, harder: float = 0.0) -> TokenLikelihoods:
    generator = np.random.default_rng(seed)
    tokens_N = np.random.default_rng(99).integers(60, 65, size=windows)
    return TokenLikelihoods(tokens_N * (3.0 + harder + 0.3 * generator.normal(size=windows)), tokens_N, tokens_N // 2)


def test_perplexity_is_over_all_tokens_and_words_not_a_mean_of_windows() -> None:
    two = likelihoods([3 * math.log(2), 5 * math.log(8)], [3, 5], [2, 1])
    assert two.score("perplexity") == pytest.approx(2 ** ((3 + 15) / 8))
    assert two.score("word_perplexity") == pytest.approx(2 ** ((3 + 15) / 3))


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    windows = likelihoods([7 * math.log(50), 2 * math.log(50)], [7, 2], [7, 2])
    assert windows.score("perplexity") == pytest.approx(50)


def test_windows_count_as_often_as_their_weights_say() -> None:
    windows = likelihoods([1.0, 4.0, 100.0], [1, 2, 1], [1, 1, 1])
    weights_N = np.array([1.0, 2.0, 0.0])
    assert windows.weighted_score("perplexity", weights_N) == pytest.approx(math.exp(9 / 5))
    assert windows.weighted_score("word_perplexity", weights_N) == pytest.approx(math.exp(9 / 3))


LARGEST = math.exp(115)


def test_what_is_too_large_is_cut_so_that_reports_can_hold_it() -> None:
    assert likelihoods([1e6], [10], [5]).score("perplexity") == LARGEST
    assert likelihoods([114.0], [1], [1]).score("perplexity") < LARGEST
    assert likelihoods([10.0], [5], [0]).score("word_perplexity") == LARGEST


def test_a_cut_perplexity_has_finite_intervals() -> None:
    diverged, sane = likelihoods([1e6, 3.0], [10, 1], [5, 1]), likelihoods([20.0, 3.0], [10, 1], [5, 1])
    interval = bootstrap_interval("perplexity", [diverged, sane], resamples=20)
    assert 0.0 <= interval.low < interval.high < math.inf
    difference = paired_difference("perplexity", [diverged, diverged], sane, resamples=20)
    assert math.isfinite(difference.value)
    assert math.isfinite(difference.low)
    assert math.isfinite(difference.high)
    assert paired_difference("perplexity", diverged, diverged, resamples=20).value == 0.0


def test_the_intervals_of_the_worst_perplexities_hold_them() -> None:
    worse, bad = likelihoods([30.0] * 8, [1] * 8, [1] * 8), likelihoods([28.0] * 8, [1] * 8, [1] * 8)
    score, other = worse.score("perplexity"), bad.score("perplexity")
    interval = bootstrap_interval("perplexity", worse, resamples=20)
    assert (interval.low, interval.high) == pytest.approx((score, score))
    difference = paired_difference("perplexity", worse, bad, resamples=20)
    assert (difference.low, difference.high) == pytest.approx((score - other, score - other))
    of_one = bootstrap_interval("perplexity", likelihoods([30.0], [1], [1]), resamples=20)
    assert (of_one.low, of_one.high) == (1.0, LARGEST)


def test_no_perplexity_is_below_one() -> None:
    """Neither is where an interval may reach: of one window nothing follows, and two seeds say little about a third."""
    assert bootstrap_interval("perplexity", likelihoods([20.0], [10], [5]), resamples=20).low == 1.0
    seeds = [likelihoods([low, low + 1] * 4, [10, 10] * 4, [5, 5] * 4) for low in (1.0, 60.0)]
    assert bootstrap_interval("word_perplexity", seeds, resamples=20).low == 1.0


def test_the_interval_holds_the_score_and_tells_a_harder_time_apart() -> None:
    first, second = random_likelihoods(300), random_likelihoods(300, harder=0.2)
    interval = bootstrap_interval("word_perplexity", [first, random_likelihoods(300, seed=1)])
    assert 0 < interval.low < first.score("word_perplexity") < interval.high
    difference = paired_difference("perplexity", second, first)
    assert 0 < difference.low < difference.value < difference.high


def test_the_pairing_needs_as_many_windows() -> None:
    with pytest.raises(AssertionError, match="same rows"):
        paired_difference("perplexity", random_likelihoods(5), random_likelihoods(6))


def test_two_thousand_windows_are_resampled_quickly() -> None:
    windows = random_likelihoods(2000)
    started = time.process_time()
    bootstrap_interval("word_perplexity", windows)
    assert time.process_time() - started < 2  # 0.1 s on an idle core; the rest is for a busy one.


def test_they_are_written_and_read(tmp_path: Path) -> None:
    windows, path = replace(random_likelihoods(7), documents_N=np.arange(7) // 2), tmp_path / "test.safetensors"
    write_likelihoods(path, windows)
    read = read_likelihoods(path)
    for name in ("nll_N", "tokens_N", "words_N", "documents_N"):
        np.testing.assert_array_equal(getattr(read, name), getattr(windows, name))
    assert (str(read.nll_N.dtype), str(read.words_N.dtype)) == ("float64", "int64")


def test_documents_are_drawn_whole_and_short_ones_with_their_neighbours() -> None:
    windows = random_likelihoods(64)  # In blocks of 4.
    assert windows.units_N.tolist() == [window // 4 for window in range(64)]
    long = np.repeat(np.arange(16) * 3, [2, 6] * 8)  # Numbers with gaps: documents without a window.
    units = {
        document: set(replace(windows, documents_N=long).units_N[long == document].tolist()) for document in set(long)
    }
    assert all(len(own) == 1 for own in units.values())
    assert len(set.union(*units.values())) == replace(windows, documents_N=long).units_N.max() + 1 == 8
    short = replace(windows, documents_N=np.arange(64))
    assert short.units_N.tolist() == windows.units_N.tolist()
    assert replace(windows, documents_N=np.arange(64) // 32).units_N.tolist() == windows.units_N.tolist()


def test_what_is_hard_about_a_document_is_in_the_interval() -> None:
    """Documents of 20 windows differ, for two models that are equal over all documents."""
    generator = np.random.default_rng(0)
    tokens_N, documents_N = np.full(600, 60), np.arange(600) // 20
    told = {"whole": 0, "cut": 0}
    for _ in range(60):
        first, second = (60 * (3 + 0.02 * generator.normal(size=30)[documents_N]) for _ in range(2))
        for name, own in (("whole", documents_N), ("cut", None)):
            sides = [TokenLikelihoods(nll_N, tokens_N, tokens_N, own) for nll_N in (first, second)]
            told[name] += paired_difference("perplexity", *sides, resamples=200).p < 0.05
    assert told["whole"] <= 8  # 5 % would be 3.
    assert told["cut"] >= 12


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    for write in (lambda: None, lambda: path.write_text("no"), lambda: save_file({"logits_NV": np.zeros(2)}, path)):
        write()
        with pytest.raises(UserError, match=r"test\.safetensors: holds no likelihoods"):
            read_likelihoods(path)
