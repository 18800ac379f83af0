"""Which exports are made and delivered."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GPT2Config

from lightpaff.pipeline.delivery import CheckedExport, plan_exports
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


@pytest.mark.parametrize(
    ("heads", "inverse", "expected", "left_out"),
    [
        (2, False, ["onnx-int8"], []),
        (4, False, ["ctranslate2-int8"], ["onnx-int8"]),
        (4, True, [], ["onnx-int8", "ctranslate2-int8"]),
    ],
)
def test_a_decoder_goes_where_it_is_taken(heads: int, inverse: bool, expected: list[str], left_out: list[str]) -> None:
    config = GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=heads, scale_attn_by_inverse_layer_idx=inverse)
    shop: Any = SimpleNamespace(
        recipe=SimpleNamespace(exports=None, family="decoder"), inputs=SimpleNamespace(student_config=config)
    )
    plan = plan_exports(shop)
    assert [export.name for export in plan.exports] == expected
    assert all(f"{name} is left out (" in plan.note for name in left_out)
    assert bool(plan.note) is bool(left_out)
