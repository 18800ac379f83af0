"""A ready-made scorer on another scale is told from one that only errs."""

import numpy as np
import pytest

from lightpaff.pipeline.ready_teacher import is_on_another_scale


@pytest.mark.parametrize(("scale", "shift"), [(5.0, 0.0), (1.0, 1.0), (0.2, 0.0), (-1.0, 0.0), (12.0, -6.0)], ids=str)
def test_scores_on_another_scale_are_told(scale: float, shift: float) -> None:
    draws = np.random.default_rng(0)
    gold_N = draws.random(200)
    assert is_on_another_scale(scale * (gold_N + draws.normal(0, 0.2, 200)) + shift, gold_N)


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.4])
def test_a_teacher_that_only_errs_is_not_refused(noise: float) -> None:
    refused = 0
    for seed in range(300):
        draws = np.random.default_rng(seed)
        gold_N = 5 * draws.random(100)
        # What the best estimate of a label is: nearer to the mean than the label.
        told_N = gold_N + draws.normal(0, 5 * noise, 100)
        share = 1 / (1 + 12 * noise**2)
        refused += is_on_another_scale(2.5 + share * (told_N - 2.5), gold_N)
    assert refused == 0


def test_few_scores_and_one_answer_to_all_tell_nothing() -> None:
    assert not is_on_another_scale(np.arange(10.0), np.arange(10.0) / 9)
    assert not is_on_another_scale(np.ones(100), np.arange(100.0))
