import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from lightpaff.errors import UserError
from lightpaff.report.rows import (
    ReportData,
    Row,
    aggregate_over_seeds,
    from_json,
    report_from_json,
    report_to_json,
    to_json,
)

ROW = Row("student", "sst2", "test", "accuracy", 0.9, interval=(0.88, 0.92), seed=0, examples=872, median_ms=3.5)


def test_rows_survive_json(report_data: ReportData) -> None:
    assert from_json(json.loads(json.dumps(to_json(report_data.rows)))) == report_data.rows


@pytest.mark.parametrize("fixture", ["report_data", "clm_data", "translation_data"])
def test_a_whole_report_survives_json(fixture: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(fixture)
    content = json.loads(json.dumps(report_to_json(data), allow_nan=False))
    assert report_from_json(content) == data


def test_numpy_numbers_become_plain_ones() -> None:
    row = replace(ROW, value=np.float32(0.5))  # type: ignore[arg-type]
    assert json.loads(json.dumps(to_json([row])))[0]["value"] == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"report rows: 1\.value: .*finite.*found (nan|inf)"):
        to_json([ROW, replace(ROW, value=value)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"report\.json: 0\.colour"),
        ({"arm": 3}, r"report\.json: 0\.arm: .*found 3"),
        ({"value": None}, r"report\.json: 0\.value"),
    ],
)
def test_foreign_rows_are_refused_in_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        from_json([{**asdict(ROW), **change}])
    assert "\n" not in str(raised.value)


def test_seeds_are_summed_up() -> None:
    rows = [replace(ROW, seed=seed, value=value) for seed, value in enumerate([0.90, 0.92, 0.94])]
    (mean,) = aggregate_over_seeds(rows)
    assert (mean.seed, mean.interval, mean.median_ms) == (None, None, 3.5)
    assert mean.value == pytest.approx(0.92)
    assert mean.spread == pytest.approx(0.02)


def test_a_mean_that_is_there_is_kept_and_single_rows_stay() -> None:
    mean = replace(ROW, seed=None, value=0.91, spread=0.01)
    other = replace(ROW, runtime="onnxruntime int8")
    assert aggregate_over_seeds([ROW, replace(ROW, seed=1), mean, other]) == [mean, other]
