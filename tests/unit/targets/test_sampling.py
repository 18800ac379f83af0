"""Draws come as often as they are probable.

Shapes: C positions, K draws, V classes.
"""

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from lightpaff.targets.sampling import draw_classes

DRAWS = 30_000


def uniforms(rows: int, draws: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((rows, draws)))


@pytest.mark.parametrize("classes", [1, 2, 255, 256, 257, 1000])
def test_frequencies_fit_the_probabilities(classes: int) -> None:
    """By a chi-squared test over the classes that are expected often enough."""
    torch.manual_seed(classes)
    p_CV = torch.randn(3, classes).softmax(1)
    ids_CK = draw_classes(p_CV, uniforms(3, DRAWS))
    assert ids_CK.dtype == torch.int64
    assert int(ids_CK.min()) >= 0
    assert int(ids_CK.max()) < classes
    for row, p_V in zip(ids_CK, p_CV.double(), strict=True):
        counts_V, expected_V = torch.bincount(row, minlength=classes).double(), p_V / p_V.sum() * DRAWS
        often_V = expected_V > 20
        statistic = ((counts_V - expected_V).square() / expected_V)[often_V].sum().item()
        assert chi2.sf(statistic, max(int(often_V.sum()) - 1, 1)) > 1e-4 or classes == 1
        assert counts_V[~often_V].sum() <= 2 * expected_V[~often_V].sum() + 20


def test_a_draw_is_the_class_that_its_place_falls_on() -> None:
    p_CV = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]])
    places = torch.tensor([[0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999999999]], dtype=torch.float64)
    assert draw_classes(p_CV, places).tolist() == [[1, 1, 3, 3, 4, 4]]
    # In proportion is enough, and blocks have no seam.
    wide_CV = torch.zeros(1, 700)
    wide_CV[0, [0, 255, 256, 699]] = 2.0
    assert draw_classes(wide_CV, torch.tensor([[0.1, 0.3, 0.6, 0.9999999999]]).double()).tolist() == [
        [0, 255, 256, 699]
    ]


def test_what_has_no_probability_is_never_drawn() -> None:
    torch.manual_seed(0)
    p_CV = torch.rand(50, 600) * (torch.rand(50, 600) < 0.02)
    p_CV[:, 599] = 0
    p_CV[:, 3] = 1e-30
    ids_CK = draw_classes(p_CV, uniforms(50, 2000))
    assert bool((p_CV.gather(1, ids_CK) > 0).all())


@pytest.mark.parametrize("tail", [1e-7, 1e-9])
def test_a_rare_class_behind_many_is_drawn_where_its_place_is(tail: float) -> None:
    """Cumulative sums in float32 would lose it."""
    p_CV = torch.full((1, 2**16), (1 - tail) / (2**16 - 1))
    p_CV[0, -1] = tail
    total = p_CV.double().sum().item()
    place = torch.tensor([[1 - tail / total / 2]], dtype=torch.float64)
    assert draw_classes(p_CV, place).item() == 2**16 - 1
