import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from lightpaff.errors import UserError
from lightpaff.report.rows import (
    ReportData,
    Row,
    report_from_json,
    report_to_json,
)

ROW = Row("student", "sst2", "test", "accuracy", 0.9, interval=(0.88, 0.92), seed=0, examples=872, median_ms=3.5)


@pytest.mark.parametrize("fixture", ["report_data", "clm_data", "translation_data"])
def test_a_whole_report_survives_json(fixture: str, request: pytest.FixtureRequest) -> None:
    data = request.getfixturevalue(fixture)
    content = json.loads(json.dumps(report_to_json(data), allow_nan=False))
    assert report_from_json(content) == data


def test_numpy_numbers_become_plain_ones(report_data: ReportData) -> None:
    row = replace(ROW, value=np.float32(0.5))  # type: ignore[arg-type]
    assert json.loads(json.dumps(report_to_json(replace(report_data, rows=[row]))))["rows"][0]["value"] == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_json_cannot_say_is_refused(value: float, report_data: ReportData) -> None:
    with pytest.raises(UserError, match=r"report data: rows\.1\.value: .*finite.*found (nan|inf)"):
        report_to_json(replace(report_data, rows=[ROW, replace(ROW, value=value)]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, r"report_data\.json: rows\.0\.colour"),
        ({"arm": 3}, r"report_data\.json: rows\.0\.arm: .*found 3"),
        ({"value": None}, r"report_data\.json: rows\.0\.value"),
    ],
)
def test_foreign_rows_are_refused_in_one_line(change: dict[str, object], message: str, report_data: ReportData) -> None:
    with pytest.raises(UserError, match=message) as raised:
        report_from_json({**asdict(report_data), "rows": [{**asdict(ROW), **change}]})
    assert "\n" not in str(raised.value)
