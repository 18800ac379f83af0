"""Ways to spoil the tiny recipe and its files."""

import json
from collections.abc import Callable
from typing import Any

Refuse = Callable[..., str]


def rows_of(recipe: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (recipe.folder / f"{name}.jsonl").read_text().splitlines()]


def write_rows(recipe: Any, name: str, rows: list[dict[str, Any]]) -> None:
    (recipe.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def change_rows(name: str, **columns: Any) -> Callable[[Any], None]:
    """Give every row of a file these values."""

    def change(recipe: Any) -> None:
        write_rows(recipe, name, [{**row, **columns} for row in rows_of(recipe, name)])

    return change


def change_last_row(name: str, **columns: Any) -> Callable[[Any], None]:
    def change(recipe: Any) -> None:
        rows = rows_of(recipe, name)
        write_rows(recipe, name, [*rows[:-1], {**rows[-1], **columns}])

    return change


def write_file(name: str, content: bytes) -> Callable[[Any], None]:
    return lambda recipe: (recipe.folder / name).write_bytes(content)


def set_key(key: str, value: Any) -> Callable[[Any], None]:
    return lambda recipe: recipe.set(key, value)


def as_decoder(recipe: Any) -> Any:
    """The tiny recipe for a decoder, with the same files: every line and every sentence is a document."""
    recipe.content["family"] = "decoder"
    recipe.content["teacher"]["from_scratch"] |= {"architecture": "gpt2", "vocabulary_size": 300}
    recipe.content["pretraining"]["objective"] = "clm"
    recipe.content["tasks"][0] |= {"objective": "clm", "columns": {"text": "sentence"}}
    return recipe


def as_encoder_decoder(recipe: Any) -> Any:
    """The tiny recipe for an encoder-decoder that rewrites the first sentence of a pair as the second."""
    recipe.content["family"] = "encoder-decoder"
    recipe.content["teacher"]["from_scratch"] |= {"architecture": "bart", "vocabulary_size": 360}
    recipe.content["pretraining"]["objective"] = "mssm"
    recipe.content["tasks"][0] |= {
        "objective": "translate",
        "train": "train_pairs.jsonl",
        "validation": "validation_pairs.jsonl",
        "columns": {"source": "first", "target": "second"},
        "max_target_length": 16,
    }
    return recipe
