"""The recipes under recipes/ are valid, and name what their data has."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightpaff.recipe import Recipe
from lightpaff.recipe_families import FAMILIES

RECIPES = sorted((Path(__file__).parents[3] / "recipes").rglob("*.yaml"))
COLUMNS_OF_DATA = {
    "sst2": {"sentence", "label"},
    "imdb": {"sentence", "label"},
    "qqp_subset": {"sentence1", "sentence2", "label"},
    "multi30k": {"en", "de", "fr", "cs"},
    "tatoeba_en_ro": {"en", "ro"},
    "tatoeba_en_de": {"en", "de"},
    "aeslc": {"document", "summary", "references"},
}
"""Of the JSON lines that recipes look for under data/."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_ready_recipes_are_valid(path: Path) -> None:
    """Valid, called as their file, without a path of somebody's machine."""
    recipe = Recipe.load(path)
    assert recipe.name == path.stem
    words = FAMILIES[recipe.family]
    assert {task.objective for task in recipe.tasks} <= set(words.tasks)
    assert recipe.pretraining is None or recipe.pretraining.objective == words.pretraining
    places = list(places_in(yaml.safe_load(path.read_text())))
    assert len(places) > len(recipe.tasks)
    for place in places:
        assert not place.startswith(("/", "~", ".", "file:")), place
        assert place.startswith(("hub:", "wheel:")) or "://" not in place, place


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_ready_recipes_name_columns_that_their_data_has(path: Path) -> None:
    recipe = Recipe.load(path)
    for source in recipe.pretraining.corpus if recipe.pretraining else []:
        if (known := columns_of(source.path)) is not None:
            assert source.text in known
    for task in recipe.tasks:
        named = (
            {task.columns.source, task.columns.target, task.columns.references or task.columns.target}
            if task.objective == "translate"
            else {task.columns.text, task.columns.text_pair or task.columns.text, task.columns.label}
        )
        for source in [*task.train, task.validation, *([task.test] if task.test else []), *task.unlabelled]:
            if (known := columns_of(source.path)) is not None:
                assert named <= known, f"{task.name}: {named - known}"


def columns_of(place: str) -> set[str] | None:
    """Of a file under data/ whose rows have columns."""
    parts = Path(place).parts
    return COLUMNS_OF_DATA[parts[-2]] if "data" in parts and ".jsonl" in place else None


def places_in(content: dict[str, Any]) -> Iterator[str]:
    """Every source of data in a recipe, as it is written there."""
    for key in ("corpus", "train", "validation", "test", "unlabelled"):
        sources = content.get(key) or []
        for source in sources if isinstance(sources, list) else [sources]:
            yield source if isinstance(source, str) else source["path"]
    for section in (content.get("pretraining"), *content.get("tasks", [])):
        if section:
            yield from places_in(section)
