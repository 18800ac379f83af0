"""What a recipe means: its defaults, arms, schema and fingerprint."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lightpaff.errors import UserError
from lightpaff.recipe import Recipe, fingerprint_of
from lightpaff.recipe_families import FAMILIES
from tests.unit.recipe.conftest import CONTENT


def test_defaults_are_filled_in(recipe_file: Path) -> None:
    recipe = Recipe.load(recipe_file)
    assert recipe.pretraining is not None
    assert recipe.pretraining.distillation.weight == 0.9
    assert recipe.fine_tuning.distillation.weight == 0.5
    assert recipe.tasks[0].metric_names == ["accuracy", "f1"]
    assert recipe.tasks[0].columns.text == "sentence"


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("{teacher: {}}", "'teacher' cannot be a name; take letters, digits"),
        ("{a/b: {}}", "'a/b' cannot be a name"),
        (
            "{small: {student.layers: 1}}",
            "arms.small: 'student.layers' is the same in all arms; give single keys of",
        ),
        ("{deep: {fine_tuning.training.steps.x: 1}}", "arms.deep: 'fine_tuning.training.steps.x' is the same in all"),
        ("{two: {fine_tuning.training.steps: 5}}", "arms.two: fine_tuning.training: give exactly one of steps, tokens"),
        ("{loud: {fine_tuning.distillation.weight: 2}}", "arms.loud: fine_tuning.distillation.weight: .* found 2"),
        (
            "{warm: {pretraining.distillation.temperature: 2.0}}",
            "arms.warm: pretraining.distillation has temperature 2.0, the student 1.0, and one store, ",
        ),
        (
            "{many: {pretraining.distillation.targets: {store: own, draws: 3}}, "
            "few: {pretraining.distillation.targets: {store: own, kind: top-k}}}",
            "arms.few: pretraining.distillation has targets.kind top-k, arms.many sampled, and one store, ",
        ),
        ("{odd: {fine_tuning.distillation.wait: 1}}", "arms.odd: fine_tuning.distillation.wait: .* found 1"),
    ],
)
def test_arms_that_are_none_are_refused(recipe_file: Path, arms: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe.load(recipe_file, ["pretraining.distillation.targets.store=stored", f"arms={arms}"])


@pytest.mark.parametrize(
    "arm",
    [
        "{pretraining.distillation.weight: 0.1}",
        "{pretraining.distillation.weight: 0, pretraining.distillation.temperature: 2}",
        "{pretraining.distillation.targets: {store: own}, pretraining.distillation.temperature: 2}",
        "{pretraining.distillation.targets: {store: stored, kind: live}, pretraining.distillation.temperature: 2}",
        "{pretraining.distillation.divergence: reverse_kl}",
        # Of few classes all are kept.
        "{fine_tuning.distillation.temperature: 2}",
    ],
)
def test_arms_share_a_store_where_they_may(recipe_file: Path, arm: str) -> None:
    stores = [f"{stage}.distillation.targets.store=stored" for stage in ("pretraining", "fine_tuning")]
    assert Recipe.load(recipe_file, [*stores, f"arms={{other: {arm}}}"]).arms


def test_the_metrics_of_a_regression_are_correlations(recipe_file: Path) -> None:
    assert Recipe.load(recipe_file, ["tasks.0.objective=regress"]).tasks[0].metric_names == ["pearson", "spearman"]
    assert Recipe.load(recipe_file, ["tasks.0.metrics=[matthews]"]).tasks[0].metric_names == ["matthews"]


def test_the_schema_knows_every_key() -> None:
    schema = Recipe.model_json_schema()
    sections = {"Recipe": schema, **schema["$defs"]}
    for name, section in sections.items():
        assert section["additionalProperties"] is False, name
        for key, described in section["properties"].items():
            # A section's own description is that of a key that holds one.
            reference = described.get("$ref", "").rpartition("/")[2]
            assert described.get("description") or sections[reference]["description"], f"{name}.{key}"
    expected: dict[str, set[str]] = {
        "Recipe": {"family"},
        "Student": {"decoder_layers"},
        "FromScratch": {"architecture", "decoder_layers", "lowercase", "max_length"},
        "Pretraining": {"objective", "mask_rate", "fragment_ratio"},
        "CorpusSource": {"language", "document"},
        "Source": {"document"},
        "Task": {"stride", "max_target_length", "languages", "generation", "sequence_distillation"},
        "Columns": {"text", "source", "target", "references"},
        "Languages": {"source", "target"},
        "Generation": {"beams", "length_penalty"},
        "SequenceDistillation": {"ratio"},
    }
    for name, keys in expected.items():
        assert keys <= sections[name]["properties"].keys(), name
    assert schema["properties"]["family"]["enum"] == list(FAMILIES)
    known = [name for words in FAMILIES.values() for name in words.architectures]
    assert sections["FromScratch"]["properties"]["architecture"]["enum"] == known
    assert json.loads(json.dumps(schema)) == schema


def test_the_fingerprint_is_of_what_is_meant(tmp_path: Path, recipe_file: Path) -> None:
    first = Recipe.load(recipe_file).fingerprint()
    spelled_out = tmp_path / "spelled_out.yaml"
    content = {**dict(reversed(CONTENT.items())), "control": True, "precision": "auto"}
    spelled_out.write_text("# a comment\n" + yaml.safe_dump(content, sort_keys=False))
    assert Recipe.load(spelled_out).fingerprint() == first
    assert Recipe.load(spelled_out, ["seeds.pretraining=1"]).fingerprint() != first


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), JSON_LIKE, max_size=4))
@settings(deadline=None)
def test_the_order_of_keys_does_not_count(content: dict[str, Any]) -> None:
    assert fingerprint_of(content) == fingerprint_of(dict(reversed(content.items())))
    assert fingerprint_of({**content, "one more": 1}) != fingerprint_of(content)


def test_a_fingerprint_of_what_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint_of({"a": float("nan")})
