from pathlib import Path
from typing import Any, get_args

import pytest
from transformers import AutoConfig

from lightpaff.errors import UserError
from lightpaff.models.families import (
    ARCHITECTURES,
    PRETRAINING_HEADS,
    architecture_of,
    check_family,
    check_model_type,
    head_of,
)
from lightpaff.recipe_families import FAMILIES, Family
from lightpaff.recipe_sections import FromScratch

OF_FAMILIES = [(family, model_type) for family, words in FAMILIES.items() for model_type in words.architectures]


def test_recipes_name_exactly_the_known_architectures() -> None:
    assert list(ARCHITECTURES) == [model_type for _, model_type in OF_FAMILIES]
    assert get_args(FromScratch.model_fields["architecture"].annotation) == tuple(ARCHITECTURES)
    assert set(PRETRAINING_HEADS) == set(FAMILIES)


@pytest.mark.parametrize(("family", "model_type"), OF_FAMILIES)
def test_an_architecture_is_of_one_family_and_has_its_head(family: Family, model_type: str) -> None:
    config = AutoConfig.for_model(model_type)
    assert architecture_of(config) is ARCHITECTURES[model_type]
    assert head_of(config, PRETRAINING_HEADS[family]).predicts_tokens
    check_family(config, family, "teacher")
    for other in set(FAMILIES) - {family}:
        with pytest.raises(UserError, match=f"teacher: is a {model_type}, but .* family is {other} .*to {family}$"):
            check_family(config, other, "teacher")


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_what_the_tables_name_is_in_the_configs(model_type: str) -> None:
    known, config = ARCHITECTURES[model_type], AutoConfig.for_model(model_type)
    names = [name for called in vars(known.sizes).values() for name in called]
    assert [name for name in (*names, *known.dropouts) if not hasattr(config, name)] == []
    has_decoder_layers = any(layers.count == "decoder_layers" for layers in known.layers)
    assert has_decoder_layers == bool(known.sizes.decoder_layers)


def test_an_unknown_architecture_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    config = AutoConfig.for_model("albert")
    for refuse in (lambda: architecture_of(config), lambda: check_family(config, "encoder", "albert")):
        with pytest.raises(
            UserError, match=r"albert: model_type is 'albert'.*: bert, roberta, xlm-roberta.*, t5, mt5$"
        ):
            refuse()


@pytest.mark.parametrize(
    ("model_type", "settings", "words"),
    [
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("marian", {"share_encoder_decoder_embeddings": False}, "decoder has a vocabulary of its own"),
    ],
)
def test_what_a_table_does_not_say_is_refused(model_type: str, settings: dict[str, Any], words: str) -> None:
    config = AutoConfig.for_model(model_type, **settings)
    with pytest.raises(UserError, match=f"{model_type}: its config.json has .*{words}.*; take another model$"):
        head_of(config, next(iter(ARCHITECTURES[model_type].heads)))


def test_a_gemma_3_with_pictures_is_told_what_to_take() -> None:
    with pytest.raises(UserError, match=r"^big: model_type is 'gemma3' .*reads pictures too: .* a gemma3_text \("):
        check_model_type("gemma3", "big")


@pytest.mark.parametrize("model_type", ["phi3", "opt", "pegasus"])
def test_families_that_are_not_known_are_refused_in_one_line(model_type: str) -> None:
    with pytest.raises(UserError, match=f"^big: model_type is '{model_type}' in its config.json; take a model of a"):
        check_model_type(model_type, "big")
