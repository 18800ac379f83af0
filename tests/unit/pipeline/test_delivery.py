"""Which exports are delivered."""

from pathlib import Path

import pytest

from lightpaff.pipeline.delivery import CheckedExport
from lightpaff.pipeline.exporting import SplitCheck
from lightpaff.pipeline.graph import DoneStep, Step
from lightpaff.recipe import Export


@pytest.mark.parametrize(
    ("student", "export", "expected"), [(0.61, 0.605, True), (0.61, 0.604, False), (0.61, 0.62, True)]
)
def test_the_whole_tolerance_may_be_lost(student: float, export: float, expected: bool) -> None:
    done_step = DoneStep(Step("export", "export", {}, (), Path(), lambda step, place: {}), {}, 0.0, False)
    check = SplitCheck("validation", "accuracy", student, export, 100 * (student - export), 0.99, 0.01, 200)
    request = Export(to="onnx", quantise="int8", tolerance=0.5)
    assert CheckedExport(request, done_step, done_step, [check]).is_within_tolerance is expected
