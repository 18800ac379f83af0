import json
from pathlib import Path
from typing import Any

import pytest

from lightpaff.pipeline.data_steps import CARD, corpus_step, task_data
from lightpaff.pipeline.graph import Step, run_step
from lightpaff.pipeline.inputs import gather_inputs
from lightpaff.recipe import Recipe

LEAK = "zymurgy quartz fjord vex nymph jock waltz bugle"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "steps"


def rows_step(tiny_recipe: Any, root: Path) -> Step:
    recipe = Recipe.load(tiny_recipe.write())
    return task_data(recipe.tasks[0], gather_inputs(recipe, root), root).rows


def read_card(step: Step) -> Any:
    run_step(step)
    return json.loads((step.directory / CARD).read_text())


def add_row(tiny_recipe: Any, file: str, row: dict[str, Any]) -> None:
    with open(tiny_recipe.folder / file, "a") as rows:
        rows.write(json.dumps(row) + "\n")


def test_cards_do_not_name_the_task_nor_a_path(tiny_recipe: Any, root: Path) -> None:
    step = rows_step(tiny_recipe, root)
    cards = read_card(step)
    assert [card["split"] for card in cards] == ["train", "validation"]
    assert [card["facts"]["rows"] for card in cards] == [96, 48]
    recipe = Recipe.load(tiny_recipe.folder / "recipe.yaml")
    corpus = corpus_step(recipe, gather_inputs(recipe, root), root)
    for text in (str(cards), str(read_card(corpus))):
        assert "toy" not in text
        assert str(tiny_recipe.folder) not in text


def test_training_rows_that_are_evaluated_too_are_counted(tiny_recipe: Any, root: Path) -> None:
    before = read_card(rows_step(tiny_recipe, root))
    assert "also in validation or test" not in before[0]["facts"]
    row = {"sentence": "warm zymurgy", "label": 1}
    add_row(tiny_recipe, "validation.jsonl", row)
    (tiny_recipe.folder / "test.jsonl").write_text(json.dumps({"sentence": "dull zymurgy", "label": 0}) + "\n")
    tiny_recipe.set("tasks.0.test", "test.jsonl")
    # Spaces and the label make no difference, a part of the text does.
    for text in ("warm  zymurgy", "warm zymurgy", "dull zymurgy", "zymurgy"):
        add_row(tiny_recipe, "train.jsonl", {"sentence": text, "label": 0})
    train, *others = read_card(rows_step(tiny_recipe, root))
    assert train["facts"]["also in validation or test"] == 3
    assert train["facts"]["rows"] == 100
    assert not [card for card in others if "also in validation or test" in card["facts"]]


def test_a_pair_is_repeated_only_as_a_whole(tiny_recipe: Any, root: Path) -> None:
    columns = {"text": "first", "text_pair": "second", "label": "same"}
    names = {"train": "train_pairs.jsonl", "validation": "validation_pairs.jsonl"}
    tiny_recipe.set("tasks.0", {"name": "pairs", **names, "columns": columns, "max_length": 24})
    add_row(tiny_recipe, names["validation"], {"first": "zymurgy", "second": "warm", "same": "yes"})
    for first, second in (("zymurgy", "warm"), ("zymurgy", "dull"), ("warm", "zymurgy")):
        add_row(tiny_recipe, names["train"], {"first": first, "second": second, "same": "no"})
    train, _ = read_card(rows_step(tiny_recipe, root))
    assert train["facts"]["also in validation or test"] == 1


def test_the_tokenizer_does_not_learn_from_leaks(tiny_recipe: Any, root: Path) -> None:
    with open(tiny_recipe.folder / "corpus.txt", "a") as corpus:
        corpus.write(f"{LEAK}\n" * 9)
    tiny_recipe.set("teacher.from_scratch.vocabulary_size", 600)
    recipe = Recipe.load(tiny_recipe.write())
    leaky = gather_inputs(recipe, root)
    assert "Ġquartz" in leaky.tokenizer.get_vocab()
    # The corpus is the same, only what is evaluated changes.
    add_row(tiny_recipe, "validation.jsonl", {"sentence": LEAK, "label": 1})
    clean = gather_inputs(recipe, root)
    assert "Ġquartz" not in clean.tokenizer.get_vocab()
    assert "Ġwarm" in clean.tokenizer.get_vocab()
    assert leaky.trained_tokenizer is not None
    assert clean.trained_tokenizer is not None
    assert leaky.trained_tokenizer.step.fingerprint != clean.trained_tokenizer.step.fingerprint


def test_data_in_another_place_is_the_same_step(tiny_recipe: Any, root: Path) -> None:
    first = rows_step(tiny_recipe, root)
    tiny_recipe.set("tasks.0.name", "renamed").set("tasks.0.train", "moved.jsonl")
    (tiny_recipe.folder / "train.jsonl").rename(tiny_recipe.folder / "moved.jsonl")
    assert rows_step(tiny_recipe, root).fingerprint == first.fingerprint
    # The same bytes read as lines of text are not the same rows.
    tiny_recipe.set("tasks.0.train", {"path": "moved.jsonl", "format": "txt"})
    assert rows_step(tiny_recipe, root).fingerprint != first.fingerprint
