"""What does not fit a decoder or an encoder-decoder ends in exit code 2 and one line with the key or the file.

The fixtures look after the rest: no traceback, an earlier run unchanged, nothing half-written.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.changes import (
    Refuse,
    as_decoder,
    as_encoder_decoder,
    change_last_row,
    change_rows,
    set_key,
)

DECODERS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "architecture of encoders": (
        set_key("teacher.from_scratch.architecture", "bert"),
        ("recipe.yaml: teacher.from_scratch.architecture is bert, but the family is decoder; take one of gpt2, llama",),
    ),
    "objective of encoders": (
        set_key("pretraining.objective", "mlm"),
        ("recipe.yaml: pretraining.objective is mlm, but the family decoder is pre-trained with clm",),
    ),
    "task of encoders": (
        lambda recipe: recipe.content["tasks"][0].pop("objective"),
        ("recipe.yaml: the objective of the task toy is classify, but the family decoder has clm",),
    ),
    "two stacks of layers": (
        set_key("student.decoder_layers", 1),
        ("recipe.yaml: student.decoder_layers is for the family encoder-decoder; leave it out",),
    ),
    "stride wider than the window": (
        set_key("tasks.0.stride", 17),
        ("key 'tasks.0': stride is 17, more than max_length 16; lower it",),
    ),
    "missing text column": (
        set_key("tasks.0.columns", {"text": "body"}),
        ("validation.jsonl, row 1: has no column 'body'; it has sentence, label", "name one of them in the recipe"),
    ),
    "text column of txt files": (
        set_key("tasks.0.columns", {}),
        ("validation.jsonl, row 1: has no column 'text'; it has sentence, label", "name one of them in the recipe"),
    ),
    "texts that are empty": (
        change_rows("train", sentence=" "),
        ("train.jsonl: no document of toy (train) has any text in column 'sentence'", "set tasks.toy.columns.text"),
    ),
    "rows of a txt file": (
        set_key("pretraining.corpus", [{"path": "corpus.txt", "document": "file", "where": {"text": ["warm"]}}]),
        ("corpus.txt: where chooses rows, and a txt file has none with document 'file'; leave one of the two out",),
    ),
    "corpus that is one text": (
        lambda recipe: (
            recipe.set("pretraining.corpus", [{"path": "corpus.txt", "document": "file"}]),
            change_last_row("validation", sentence=f"short\n{longest_line(recipe)}\n")(recipe),
        ),
        ("corpus.txt: no text is left; 1 text dropped for containing an evaluation example", "document: blank-line"),
    ),
    "lower case": (
        set_key("teacher.from_scratch.lowercase", True),
        ("teacher.from_scratch.lowercase: is true, but a decoder's tokenizer keeps every text whole; leave it out",),
    ),
    "vocabulary without room for bytes": (
        set_key("teacher.from_scratch.vocabulary_size", 200),
        ("teacher.from_scratch.vocabulary_size", "greater than or equal to 300"),
    ),
    "heads that do not divide": (
        lambda recipe: recipe.content["student"].update(heads=3, initialisation="random"),
        ("student.heads is 3, which does not divide the hidden size 32; set a divisor of it",),
    ),
    "sequences longer than the teacher reads": (
        set_key("pretraining.sequence_length", 64),
        ("pretraining.sequence_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
    "windows wider than the teacher reads": (
        set_key("tasks.0.max_length", 64),
        ("tasks.toy.max_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
}


def longest_line(recipe: Any) -> str:
    lines: list[str] = (recipe.folder / "corpus.txt").read_text().splitlines()
    return max(lines, key=lambda line: len(line.split()))


@pytest.mark.parametrize("case", DECODERS)
def test_decoder(case: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    spoil, fragments = DECODERS[case]
    spoil(as_decoder(tiny_recipe))
    expect_refusal(tiny_recipe.write(), *fragments)


def set_columns(**columns: str) -> Callable[[Any], None]:
    return lambda recipe: recipe.content["tasks"][0]["columns"].update(columns)


def set_student(**keys: Any) -> Callable[[Any], None]:
    """A student from random weights."""
    return lambda recipe: recipe.content["student"].update(keys, initialisation="random")


ENCODER_DECODERS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "architecture of decoders": (
        set_key("teacher.from_scratch.architecture", "gpt2"),
        ("teacher.from_scratch.architecture is gpt2, but the family is encoder-decoder; take one of bart, mbart",),
    ),
    "metric of decoders": (
        set_key("tasks.0.metrics", ["perplexity"]),
        ("key 'tasks.0': metric 'perplexity' does not fit the objective translate; take bleu, chrf, rouge1",),
    ),
    "missing source column": (
        set_columns(source="en"),
        ("validation_pairs.jsonl, row 1: has no column 'en'; it has first, second, same", "name one of them"),
    ),
    "missing target column": (
        set_columns(target="translation.de"),
        ("validation_pairs.jsonl, row 1: has no column 'translation.de'; it has first, second, same",),
    ),
    "missing references": (
        set_columns(references="refs"),
        ("validation_pairs.jsonl, row 1: has no column 'refs'; it has first, second, same", "name one of them"),
    ),
    "references that are no texts": (
        lambda recipe: (
            change_rows("validation_pairs", refs=["warm", 3])(recipe),
            set_columns(references="refs")(recipe),
        ),
        ("validation_pairs.jsonl, row 1: column 'refs' holds a list with a int; references are a list of texts",),
    ),
    "references by name": (
        lambda recipe: (
            change_rows("validation_pairs", refs={"first": "warm"})(recipe),
            set_columns(references="refs")(recipe),
        ),
        ("validation_pairs.jsonl, row 1: column 'refs' holds a dict, not text",),
    ),
    "empty targets": (
        change_rows("train_pairs", second=" "),
        (
            "train_pairs.jsonl: no row of toy (train) has texts in the columns 'first' and 'second'; 96 are empty",
            "set tasks.toy.columns",
        ),
    ),
    "heads that do not divide": (
        set_student(heads=3),
        ("student.heads is 3, which does not divide the hidden size 32; set a divisor of it",),
    ),
    "heads of a T5 that do not divide": (
        lambda recipe: (recipe.set("teacher.from_scratch.architecture", "t5"), set_student(heads=5)(recipe)),
        ("student.heads is 5, which does not divide the hidden size 32; set a divisor of it",),
    ),
    "heads that follow from nothing": (
        set_student(hidden_size=24),
        ("student.hidden_size is 24, no multiple of the teacher's head size 16; set student.heads to a divisor of 24",),
    ),
    "decoder deeper than its teacher's": (
        set_key("student.decoder_layers", 3),
        ("student.decoder_layers is 3 and the teacher has 2", "set student.decoder_layers to 2 or less"),
    ),
    "targets longer than the teacher reads": (
        set_key("tasks.0.max_target_length", 64),
        ("tasks.toy.max_target_length is 64, but the teacher reads 32 tokens at most; lower it",),
    ),
}


@pytest.mark.parametrize("case", ENCODER_DECODERS)
def test_encoder_decoder(case: str, tiny_recipe: Any, expect_refusal: Refuse) -> None:
    spoil, fragments = ENCODER_DECODERS[case]
    spoil(as_encoder_decoder(tiny_recipe))
    expect_refusal(tiny_recipe.write(), *fragments)
