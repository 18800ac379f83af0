import numpy as np
import pytest

from lightpaff.evaluation.baseline import Text, fit_tfidf_baseline

GOOD, BAD = ["a fine film", "fine and lovely", "lovely"], ["a dull film", "dull and long", "long"]
TRAIN: list[Text] = [(text, None) for text in GOOD + BAD]
LABELS = [1, 1, 1, 0, 0, 0]


def test_it_learns_words_and_answers_in_log_probabilities() -> None:
    baseline = fit_tfidf_baseline(TRAIN, LABELS, [("a lovely film", None), ("so dull", None)], 2)
    np.testing.assert_array_equal(baseline.logits_NV.argmax(axis=1), [1, 0])
    np.testing.assert_allclose(np.exp(baseline.logits_NV).sum(axis=1), 1.0, atol=1e-6)
    assert baseline.logits_NV.dtype == np.float32
    assert baseline.fit_seconds > 0
    assert baseline.parameters > len(set(" ".join(GOOD + BAD).split()))


def test_it_is_deterministic() -> None:
    first, second = (fit_tfidf_baseline(TRAIN, LABELS, TRAIN, 2).logits_NV for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_second_sentence_of_a_pair_counts() -> None:
    pairs: list[Text] = [("it is", text) for text, _ in TRAIN]
    baseline = fit_tfidf_baseline(pairs, LABELS, [("it is", "lovely"), ("it is", "dull")], 2)
    np.testing.assert_array_equal(baseline.logits_NV.argmax(axis=1), [1, 0])


@pytest.mark.parametrize("labels", [[3, 3, 3, 1, 1, 1], [2, 2, 2, 2, 2, 2]])
def test_classes_that_training_lacks_are_next_to_impossible(labels: list[int]) -> None:
    baseline = fit_tfidf_baseline(TRAIN, labels, TRAIN, 4)
    assert baseline.logits_NV.shape == (6, 4)
    np.testing.assert_array_equal(baseline.logits_NV.argmax(axis=1), labels)
    assert baseline.logits_NV[:, 0].max() == -30.0
    assert np.isfinite(baseline.logits_NV).all()


def test_one_class_means_regression() -> None:
    baseline = fit_tfidf_baseline(TRAIN, [4.0, 5.0, 5.0, 1.0, 0.5, 1.0], [("lovely", None), ("dull", None)], 1)
    assert baseline.logits_NV.shape == (2, 1)
    assert baseline.logits_NV[0, 0] > 2.75 > baseline.logits_NV[1, 0]
