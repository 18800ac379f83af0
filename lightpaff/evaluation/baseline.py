"""The floor under every neural model: word counts and a linear model, fitted in seconds.

A teacher that does not beat it is not worth distilling.

Shapes: N rows, V classes (1 for regression).
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

Text = tuple[str, str | None]
"""A sentence, and its second part where the task is about pairs."""

_PAIR_SEPARATOR = " [SEP] "
_WORDS_AND_SIGNS = r"\w+|[^\w\s]+"
_MOST_FEATURES = 200_000
_LEAST_LOG_PROBABILITY = -30.0


@dataclass(frozen=True)
class Baseline:
    """What the baseline says about the evaluation rows.

    Attributes:
        logits_NV: float32 log probabilities; for regression the scores in the one column.
        fit_seconds: the time to count the words and fit the model.
        parameters: the number of fitted coefficients.
    """

    logits_NV: NDArray[np.float32]
    fit_seconds: float
    parameters: int


def fit_tfidf_baseline(
    train_texts: list[Text], train_labels: ArrayLike, evaluation_texts: list[Text], number_of_classes: int
) -> Baseline:
    """Fit TF-IDF over words and word pairs with a linear model, and let it answer the evaluation rows.

    A logistic regression for `number_of_classes` > 1, a ridge regression for 1. Nothing is tuned and nothing is
    random. `train_labels` are class numbers from 0, or scores.
    """
    started = time.perf_counter()
    # Sublinear counts and word pairs are what makes this baseline strong (Wang and Manning 2012).
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=_WORDS_AND_SIGNS, max_features=_MOST_FEATURES
    )
    features = vectorizer.fit_transform(_join_pair(text) for text in train_texts)
    labels_N = np.asarray(train_labels)
    known = np.unique(labels_N)
    if number_of_classes == 1:
        model = Ridge(alpha=1.0).fit(features, labels_N)
    elif len(known) > 1:
        model = LogisticRegression(C=10.0, max_iter=1000).fit(features, labels_N)
    else:
        model = None  # One class only: there is nothing to fit.
    fit_seconds = time.perf_counter() - started

    parameters = 0 if model is None else int(np.size(model.coef_) + np.size(model.intercept_))
    if number_of_classes == 1:
        scores_N = model.predict(vectorizer.transform(_join_pair(text) for text in evaluation_texts))
        return Baseline(scores_N.astype(np.float32)[:, None], fit_seconds, parameters)
    # A class that no training row has gets next to no probability.
    logits_NV = np.full((len(evaluation_texts), number_of_classes), _LEAST_LOG_PROBABILITY, dtype=np.float32)
    if model is None:
        logits_NV[:, known] = 0.0
    else:
        log_probabilities = model.predict_log_proba(vectorizer.transform(_join_pair(text) for text in evaluation_texts))
        logits_NV[:, known] = np.maximum(log_probabilities, _LEAST_LOG_PROBABILITY)
    return Baseline(logits_NV, fit_seconds, parameters)


def _join_pair(text: Text) -> str:
    first, second = text
    return first if second is None else first + _PAIR_SEPARATOR + second
