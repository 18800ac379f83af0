from typing import get_args

import pytest

from lightpaff.recipe_sections import Metric
from lightpaff.report.metrics import METRICS


def test_every_metric_of_a_recipe_is_known() -> None:
    assert set(get_args(Metric)) <= set(METRICS)


def test_names_are_told_apart() -> None:
    assert len({metric.name for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (METRICS["bleu"].write(0.2893), "28.9"),
        (METRICS["accuracy"].write(0.911, 0.002), "91.1 ± 0.2"),
        (METRICS["perplexity"].write(412.34, 0.31), "412.3 ± 0.3"),
        (METRICS["perplexity"].write_interval(98.76, 101.2), "[98.8, 101.2]"),
        (METRICS["perplexity"].write_signed_interval(-0.5, 120.0), "[−0.5, +120.0]"),
        (METRICS["perplexity"].write_share(0.97), "−3.0 %"),
        (METRICS["accuracy"].write_share(0.97), "97.0 %"),
        (METRICS["bleu"].tell_difference(0.018, 0.009, 0.027), "+1.8 points [+0.9, +2.7]"),
    ],
)
def test_values_are_written_in_their_unit(written: str, expected: str) -> None:
    assert written == expected


def test_an_interval_is_turned_where_lower_is_better() -> None:
    assert METRICS["perplexity"].as_gain(-4.0, 1.0) == (-1.0, 4.0)
    assert METRICS["bleu"].as_gain(-4.0, 1.0) == (-4.0, 1.0)
