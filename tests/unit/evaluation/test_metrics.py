import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from lightpaff.evaluation.metrics import Predictions
from lightpaff.recipe_sections import Metric


def answers(classes: list[int], labels: list[int], number_of_classes: int = 2) -> Predictions:
    logits_NV = 3 * np.eye(number_of_classes, dtype=np.float32)[classes]
    return Predictions(logits_NV, np.array(labels))


def scores(predicted: list[float], gold: list[float]) -> Predictions:
    return Predictions(np.array(predicted, dtype=np.float32)[:, None], np.array(gold))


def test_class_metrics_of_a_worked_example() -> None:
    predictions = answers([1, 1, 0, 0, 1], [1, 0, 0, 1, 1])  # 2 hits of class 1, 1 false alarm, 1 miss
    assert predictions.score("accuracy") == pytest.approx(0.6)
    assert predictions.score("f1") == pytest.approx(2 / 3)
    assert predictions.score("matthews") == pytest.approx((2 * 1 - 1 * 1) / np.sqrt(3 * 3 * 2 * 2))


def test_binary_f1_is_that_of_the_last_label() -> None:
    assert answers([0, 0, 0, 1], [0, 0, 0, 0]).score("f1") == 0.0
    assert answers([1, 1, 1, 0], [1, 1, 1, 1]).score("f1") == pytest.approx(6 / 7)


def test_f1_of_several_classes_is_the_unweighted_mean() -> None:
    predictions = answers([0, 0, 1, 2], [0, 0, 1, 1], 3)
    assert predictions.score("f1") == pytest.approx((1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize("classes", [2, 7, 150])
def test_class_metrics_of_weighted_rows_match_scikit_learn(classes: int) -> None:
    generator = np.random.default_rng(0)
    labels_N, weights_N = generator.integers(classes, size=300), generator.integers(4, size=300)
    predictions = answers([*labels_N[:200], *generator.integers(classes, size=100)], list(labels_N), classes)
    gold_T, said_T = (np.repeat(side_N, weights_N) for side_N in (labels_N, predictions.classes_N))
    expected = {
        "accuracy": accuracy_score(gold_T, said_T),
        "f1": f1_score(gold_T, said_T, average="binary" if classes == 2 else "macro", zero_division=0.0),
        "matthews": matthews_corrcoef(gold_T, said_T),
    }
    metrics: list[Metric] = ["accuracy", "f1", "matthews"]
    assert {metric: predictions.weighted_score(metric, weights_N.astype(float)) for metric in metrics} == expected


def test_a_weighted_score_counts_no_pairs_of_classes() -> None:
    predictions = answers([5, 1998], [5, 1999], 2000)
    tracemalloc.start()
    assert predictions.weighted_score("accuracy", np.array([1.0, 3.0])) == 0.25
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert highest < 1e6  # 2000 x 2000 counts take 32 MB.


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_correlations_match_scipy(metric: Metric) -> None:
    generator = np.random.default_rng(0)
    gold = generator.normal(size=50).round(1)
    predicted = gold + generator.normal(size=50)
    expected = {"pearson": pearsonr, "spearman": spearmanr}[metric](predicted.astype(np.float32), gold).statistic
    assert scores(list(predicted), list(gold)).score(metric) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("metric", "predictions"),
    [
        ("matthews", answers([1, 1, 1], [1, 0, 1])),
        ("matthews", answers([1, 0, 1], [1, 1, 1])),
        ("f1", answers([0, 0], [0, 0])),
        ("pearson", scores([2.0, 2.0], [1.0, 3.0])),
        ("pearson", scores([2.0, 1.0], [3.0, 3.0])),
        ("spearman", scores([2.0, 2.0], [1.0, 3.0])),
    ],
)
def test_an_undefined_score_is_zero(metric: Metric, predictions: Predictions) -> None:
    assert predictions.score(metric) == 0.0


@example(pairs=[(0.0, 0.0), (1.0, 2.6e-173)])
@given(pairs=st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(-1e3, 1e3)), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_correlations_are_always_within_their_range(pairs: list[tuple[float, float]]) -> None:
    predictions = scores([first for first, _ in pairs], [second for _, second in pairs])
    for metric in ("pearson", "spearman"):
        assert -1.0 <= predictions.score(metric) <= 1.0


def test_probabilities_sum_to_one_and_stand_large_logits() -> None:
    predictions = Predictions(np.array([[1e4, 0.0], [0.0, 0.0]], dtype=np.float32), np.array([0, 1]))
    np.testing.assert_allclose(predictions.probabilities_NV, [[1.0, 0.0], [0.5, 0.5]])
    np.testing.assert_array_equal(predictions.classes_N, [0, 0])
