import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.evaluation.intervals import (
    bootstrap_interval,
    paired_difference,
)
from lightpaff.evaluation.metrics import Predictions
from lightpaff.recipe_sections import Metric


def random_predictions(rows: int, classes: int, seed: int, skill: float = 1.0) -> Predictions:
    generator = np.random.default_rng(seed)
    labels_N = np.random.default_rng(99).integers(classes, size=rows)
    logits_NV = generator.normal(size=(rows, classes)) + skill * np.eye(classes)[labels_N]
    return Predictions(logits_NV.astype(np.float32), labels_N)


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
@given(rows=st.integers(1, 40), classes=st.integers(2, 5), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_weighted_score_is_that_of_the_rows_taken_so_often(
    metric: Metric, rows: int, classes: int, seed: int
) -> None:
    predictions = random_predictions(rows, classes, seed)
    rows_N = np.random.default_rng(seed).integers(rows, size=rows)
    weights_N = np.bincount(rows_N, minlength=rows).astype(np.float64)
    expected = Predictions(predictions.logits_NV[rows_N], predictions.labels_N[rows_N]).score(metric)
    assert predictions.weighted_score(metric, weights_N) == pytest.approx(expected, abs=1e-12)


def correlated_rows(generator: np.random.Generator, groups: int) -> Predictions:
    """Rows of films that are easier or harder than others: five to thirty of each."""
    sizes = generator.integers(5, 31, size=groups)
    groups_N = np.repeat(np.arange(groups), sizes)
    is_right_N = generator.normal(size=groups)[groups_N] + generator.normal(size=len(groups_N)) > -1
    said_N = np.where(is_right_N, 1, 0)
    return Predictions(np.eye(2, dtype=np.float32)[said_N], np.ones(len(groups_N), dtype=np.int64), groups_N)


def test_groups_of_rows_are_covered_where_single_rows_are_not() -> None:
    generator = np.random.default_rng(0)
    from scipy.stats import norm

    truth = norm.cdf(1 / np.sqrt(2))
    covered = {"grouped": 0, "single": 0}
    trials = 150
    for _ in range(trials):
        predictions = correlated_rows(generator, 60)
        alone = Predictions(predictions.logits_NV, predictions.labels_N)
        for name, outputs in (("grouped", predictions), ("single", alone)):
            found = bootstrap_interval("accuracy", outputs, resamples=200)
            covered[name] += found.low <= truth <= found.high
    assert covered["grouped"] >= 0.88 * trials  # About 93 % with many trials.
    assert covered["single"] <= 0.75 * trials  # About 60 %.


def test_the_interval_of_accuracy_is_that_of_the_binomial() -> None:
    labels_N = np.array([1] * 800 + [0] * 200)
    predictions = Predictions(np.tile(np.array([0, 1], dtype=np.float32), (1000, 1)), labels_N)
    interval = bootstrap_interval("accuracy", predictions)
    half_width = 1.96 * np.sqrt(0.8 * 0.2 / 1000)
    assert interval.low == pytest.approx(0.8 - half_width, abs=0.004)
    assert interval.high == pytest.approx(0.8 + half_width, abs=0.004)


def test_the_interval_follows_from_its_seed() -> None:
    predictions = random_predictions(100, 2, 0)
    assert bootstrap_interval("f1", predictions, seed=1) == bootstrap_interval("f1", predictions, seed=1)
    assert bootstrap_interval("f1", predictions, seed=1) != bootstrap_interval("f1", predictions, seed=2)


def test_rows_on_which_two_models_agree_leave_room_for_as_many_as_none_was_seen_of() -> None:
    predictions = random_predictions(60, 3, 0)
    difference = paired_difference("accuracy", predictions, predictions)
    assert (difference.value, difference.p) == (0.0, 1.0)
    assert difference.high == pytest.approx(3 / 60, rel=0.05)  # The rule of three.
    assert difference.low == pytest.approx(-3 / 60, rel=0.05)


@pytest.mark.parametrize("better", [2, 4, 5, 6, 8])
def test_few_rows_that_all_speak_for_one_model_are_as_likely_as_the_sign_test_has_it(better: int) -> None:
    labels_N = np.ones(1000, dtype=np.int64)
    said_N = np.where(np.arange(1000) < 800, 1, 0)
    first = Predictions(np.eye(2, dtype=np.float32)[said_N], labels_N)
    second = Predictions(np.eye(2, dtype=np.float32)[np.where(np.arange(1000) < better, 0, said_N)], labels_N)
    difference = paired_difference("accuracy", first, second)
    exact = 2.0 ** (1 - better)
    assert exact / 2 < difference.p < 2 * exact
    assert (difference.low > 0) == (exact < 0.05)


def test_that_all_of_few_rows_are_right_does_not_show_that_all_will_be() -> None:
    found = bootstrap_interval("accuracy", Predictions(np.tile(np.float32([0, 1]), (30, 1)), np.ones(30, np.int64)))
    assert (found.low, found.high) == (pytest.approx(1 - 3 / 30, abs=0.01), 1.0)


def test_pairing_makes_the_interval_narrower_than_two_separate_ones() -> None:
    first = random_predictions(400, 2, 0)
    logits_NV = first.logits_NV.copy()
    wrong = np.flatnonzero(first.classes_N != first.labels_N)[:10]
    logits_NV[wrong] = logits_NV[wrong, ::-1]  # The second is the first, ten mistakes put right.
    second = Predictions(logits_NV, first.labels_N)
    difference = paired_difference("accuracy", second, first)
    assert difference.value == pytest.approx(10 / 400)
    assert 0 < difference.low < difference.value < difference.high
    interval = bootstrap_interval("accuracy", first)
    assert difference.high - difference.low < (interval.high - interval.low) / 2


def test_several_seeds_count_by_their_mean() -> None:
    seeds = [random_predictions(200, 2, seed) for seed in range(3)]
    other = random_predictions(200, 2, 7, skill=0.0)
    difference = paired_difference("accuracy", seeds, other, resamples=100)
    mean = np.mean([predictions.score("accuracy") for predictions in seeds])
    assert difference.value == pytest.approx(mean - other.score("accuracy"))
    interval = bootstrap_interval("accuracy", seeds, resamples=100)
    assert interval.low < mean < interval.high


def seeds_of_equal_skill(generator: np.random.Generator, spread: float, rows: int) -> tuple[list[Predictions], ...]:
    """Two sides of three seeds: each row is as hard for all, each seed better or worse by chance."""
    labels_N = generator.integers(2, size=rows)
    hardness_N = generator.normal(size=rows)

    def train() -> Predictions:
        is_right_N = 1.2 + hardness_N + 0.3 * generator.normal(size=rows) + spread * generator.normal() > 0
        said_N = np.where(is_right_N, labels_N, 1 - labels_N)
        return Predictions(np.eye(2, dtype=np.float32)[said_N], labels_N)

    return [train() for _ in range(3)], [train() for _ in range(3)]


def test_seeds_of_equal_skill_are_seldom_told_apart() -> None:
    generator = np.random.default_rng(0)
    told_apart = 0
    for _ in range(100):
        first, second = seeds_of_equal_skill(generator, spread=0.1, rows=250)
        found = paired_difference("accuracy", first, second, resamples=80)
        told_apart += found.low > 0 or found.high < 0
    assert told_apart <= 12  # 6 to 7 with many trials; resampling the rows alone gives more than 25.


def test_errors_that_both_sides_share_do_not_hide_what_the_seeds_do() -> None:
    """Seed by seed the second is 12, 0 and 0 points better: by chance."""
    generator, labels_N = np.random.default_rng(0), np.zeros(400, dtype=int)
    firsts = (generator.random((3, 400)) < 0.5).astype(int)
    seconds = firsts.copy()
    seconds[0, np.flatnonzero(firsts[0])[:48]] = 0
    first, second = (
        [Predictions(np.eye(2, dtype=np.float32)[said_N], labels_N) for said_N in side] for side in (firsts, seconds)
    )
    found = paired_difference("accuracy", second, first, resamples=200)
    assert found.value == pytest.approx(0.04)
    assert found.low < 0 < found.high
    assert found.p > 0.2


@pytest.mark.parametrize("groups", [2, 3, 5])
def test_few_groups_of_rows_seldom_tell_equal_models_apart(groups: int) -> None:
    generator = np.random.default_rng(0)
    groups_N = np.repeat(np.arange(groups), 40)

    def train() -> Predictions:
        is_right_N = 1 + generator.normal(size=groups)[groups_N] + generator.normal(size=len(groups_N)) > 0
        return Predictions(np.eye(2, dtype=np.float32)[is_right_N.astype(int)], np.ones_like(groups_N), groups_N)

    found = [paired_difference("accuracy", train(), train(), resamples=100) for _ in range(100)]
    # 6, 0 and 3 of a hundred; with as many degrees of freedom as rows, 36, 25 and 11 of them.
    assert sum(one.p < 0.05 for one in found) <= 12
    assert sum(one.low > 0 or one.high < 0 for one in found) <= 12


def test_of_one_group_nothing_follows() -> None:
    first, second = (random_predictions(40, 2, seed, skill) for seed, skill in ((0, 9.0), (1, 0.0)))
    film = np.zeros(40, dtype=np.int64)
    first, second = (Predictions(one.logits_NV, one.labels_N, film) for one in (first, second))
    found = paired_difference("accuracy", first, second)
    assert (found.low, found.high, found.p) == (-1.0, 1.0, 1.0)
    interval = bootstrap_interval("accuracy", first)
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_seeds_that_say_the_same_add_nothing() -> None:
    one = random_predictions(200, 2, 0)
    found, expected = bootstrap_interval("f1", [one, one, one]), bootstrap_interval("f1", one)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_seeds_that_differ_widen_the_interval_within_its_range() -> None:
    good, bad = random_predictions(200, 2, 0, skill=9.0), random_predictions(200, 2, 0, skill=0.0)
    interval = bootstrap_interval("accuracy", [good, bad])
    assert (interval.low, interval.high) == (0.0, 1.0)  # Two seeds so unlike say nothing about a third.
    narrower = bootstrap_interval("accuracy", [good, bad] * 3)
    assert 0 < narrower.low < 0.75 < narrower.high <= 1


def test_unlike_rows_are_not_paired() -> None:
    first = random_predictions(10, 2, 0)
    second = Predictions(first.logits_NV, 1 - first.labels_N)
    with pytest.raises(AssertionError, match="same rows"):
        paired_difference("accuracy", first, second)


def test_regression_takes_the_plain_path() -> None:
    generator = np.random.default_rng(0)
    gold_N = generator.normal(size=80)
    predictions = Predictions((gold_N + generator.normal(size=80)).astype(np.float32)[:, None], gold_N)
    interval = bootstrap_interval("spearman", predictions, resamples=100)
    assert interval.low < predictions.score("spearman") < interval.high
