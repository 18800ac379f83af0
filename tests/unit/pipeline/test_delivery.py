"""Which exports are made and delivered."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import GPT2Config

from lightpaff.errors import UserError
from lightpaff.evaluation.likelihoods import TokenLikelihoods
from lightpaff.evaluation.metrics import Predictions
from lightpaff.pipeline import exporting
from lightpaff.pipeline.delivery import plan_exports, taught_stages
from lightpaff.recipe import Recipe
from lightpaff.recipe_sections import Export, SequenceDistillation
from tests.conftest import TINY_ENCODER_DECODER_RECIPE, TINY_RECIPE


def predictions(right: int, rows: int, wrong_again: int = 0) -> Predictions:
    """So many right answers; `wrong_again` are other rows than the last ones."""
    is_right_N = np.arange(rows) < right
    is_right_N[:wrong_again] = False
    is_right_N[right : right + wrong_again] = True
    return Predictions(np.eye(2, dtype=np.float32)[is_right_N.astype(int)], np.ones(rows, dtype=np.int64))


def verdict_of(student: Predictions, export: Predictions, **request: Any) -> str:
    task: Any = SimpleNamespace(metric_names=["accuracy"])
    check = exporting._compare(task, "validation", student, export)
    asked = Export(to="onnx", **{"quantise": "int8", **request})
    return exporting.judge(check, asked.tolerance, asked.quantise)[0]


def test_an_export_is_refused_only_where_a_loss_is_shown() -> None:
    assert verdict_of(predictions(490, 613), predictions(490, 613)) == "delivered"
    assert verdict_of(predictions(8, 10), predictions(8, 10)) == "undecided"
    assert verdict_of(predictions(8, 10), predictions(8, 10), quantise="none") == "delivered"
    assert verdict_of(predictions(490, 613), predictions(486, 613)) == "undecided"
    assert verdict_of(predictions(490, 613), predictions(460, 613)) == "refused"
    assert verdict_of(predictions(16, 20), predictions(15, 20)) == "undecided"
    assert verdict_of(predictions(490, 613), predictions(486, 613), tolerance=3) == "delivered"


@pytest.mark.parametrize(
    ("slope", "zero", "verdict"), [(1.0, 0.0, "delivered"), (0.6, 0.0, "refused"), (1.0, 3.0, "refused")]
)
def test_scores_on_another_scale_are_refused(slope: float, zero: float, verdict: str) -> None:
    generator = np.random.default_rng(0)
    labels_N = generator.normal(size=400)
    score_N1 = (labels_N + 0.1 * generator.normal(size=400)).astype(np.float32)[:, None]
    student, export = (Predictions(score, labels_N) for score in (score_N1, slope * score_N1 + zero))
    task: Any = SimpleNamespace(metric_names=["pearson"])
    check = exporting._compare(task, "validation", student, export)
    assert exporting.judge(check, 1.0, "int8")[0] == verdict


@pytest.mark.parametrize("quantise", ["none", "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_export_that_gives_no_number_is_told(value: float, quantise: str) -> None:
    student, export = predictions(490, 613), predictions(490, 613)
    export.logits_NV[3] = value
    with pytest.raises(UserError, match=r"it gives no number \(NaN or infinity\) for 1 of the 613 validation rows"):
        verdict_of(student, export, quantise=quantise)


def test_windows_without_a_likelihood_are_told() -> None:
    ones_N = np.ones(5, dtype=np.int64)
    student = TokenLikelihoods(np.full(5, 2.0), ones_N, ones_N)
    export = TokenLikelihoods(np.array([2.0, np.nan, 2.0, np.inf, 2.0]), ones_N, ones_N)
    task: Any = SimpleNamespace(metric_names=["perplexity"])
    with pytest.raises(UserError, match=r"for 2 of the 5 validation rows"):
        exporting._compare(task, "validation", student, export)


@pytest.mark.slow
def test_lossless_exports_are_never_refused_and_lossy_ones_seldom_decided_wrongly() -> None:
    """As many answers are put right as are spoilt, one row in a hundred each; or one right answer in twenty is lost."""
    generator = np.random.default_rng(0)
    found: dict[float, Counter[str]] = {0.0: Counter(), 0.05: Counter()}
    for loss, counted in found.items():
        for _ in range(20):
            is_right_N = generator.random(613) < 0.8
            flipped_N = generator.random(613) < np.where(is_right_N, 0.0125, 0.05)
            export_N = np.where(flipped_N, ~is_right_N, is_right_N) & (generator.random(613) >= loss)
            sides = [
                Predictions(np.eye(2, dtype=np.float32)[side.astype(int)], np.ones(613, dtype=np.int64))
                for side in (is_right_N, export_N)
            ]
            counted[verdict_of(*sides)] += 1
    assert found[0.0]["refused"] == 0
    assert found[0.05]["delivered"] == 0
    assert found[0.05]["refused"] > 12


def test_a_float32_export_that_says_something_else_is_refused_whatever_it_loses() -> None:
    student = predictions(490, 613)
    other = Predictions(student.logits_NV + np.float32([0.0, 0.3]), student.labels_N)
    assert verdict_of(student, other, quantise="none") == "refused"
    assert verdict_of(student, other) == "delivered"
    rounded = Predictions(student.logits_NV + np.float32(1e-4), student.labels_N)
    assert verdict_of(student, rounded, quantise="none") == "delivered"


@pytest.mark.needs("ctranslate2")
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
    context: Any = SimpleNamespace(
        recipe=SimpleNamespace(exports=None, family="decoder"), inputs=SimpleNamespace(student_config=config)
    )
    plan = plan_exports(context)
    assert [export.name for export in plan.exports] == expected
    assert all(f"{name} is left out (" in plan.note for name in left_out)
    assert bool(plan.note) is bool(left_out)


def test_a_student_is_taught_in_the_stages_that_are_there_and_have_a_weight() -> None:
    recipe = Recipe.model_validate(TINY_RECIPE)
    [task] = recipe.tasks
    silent = {"pretraining.distillation.weight": 0, "fine_tuning.distillation.weight": 0}
    assert taught_stages(recipe, task) == ["pre-training", "fine-tuning"]
    assert taught_stages(recipe.model_copy(update={"pretraining": None}), task) == ["fine-tuning"]
    assert taught_stages(recipe.overridden(silent), task) == []
    translation = Recipe.model_validate(TINY_ENCODER_DECODER_RECIPE).tasks[0]
    with_texts = translation.model_copy(update={"sequence_distillation": SequenceDistillation()})
    assert taught_stages(recipe.overridden(silent), with_texts) == ["fine-tuning"]
