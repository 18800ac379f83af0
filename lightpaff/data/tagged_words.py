"""The rows of a task that gives every word a class (a tag): checked, labelled and tokenised.

Shapes: N rows, T words that have tokens, over all rows.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lightpaff.data.cleaning import clean_text
from lightpaff.data.numbers import is_number
from lightpaff.data.sources import ResolvedSource, iterate_rows
from lightpaff.data.task_data import Gold, label_name, named_labels
from lightpaff.data.token_table import TOKENS, TokenTable, in_batches, write_token_table
from lightpaff.data.words import first_pieces, join_words
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_TAG = -100
_ROWS_TOKENISED_TOGETHER = 1000
_COLUMNS = {
    "words": pa.large_list(pa.large_string()),
    "tags": pa.large_list(pa.int32()),
    "starts": pa.large_list(pa.int32()),
}


@dataclass(frozen=True)
class TaggedWords:
    """One row: its words, and their tags by name; None where there is none."""

    words: list[str]
    tags: list[str | None]


@dataclass(frozen=True)
class TaggedRows:
    """One split, tokenised and memory-mapped.

    Attributes:
        tokens: the token ids of each row.
        tags: of each row, the class of every word; `NO_TAG` where there is none.
        starts: of each row, the number of every word's first token; -1 for a word without one.
    """

    tokens: TokenTable
    tags: TokenTable
    starts: TokenTable

    @classmethod
    def open(cls, path: Path) -> "TaggedRows":
        """Open what `write_tagged_split` wrote."""
        return cls(TokenTable(path), TokenTable(path, "tags"), TokenTable(path, "starts"))

    def texts(self) -> Iterator[str]:
        """The words of each row, one space between them."""
        return (" ".join(words) for words in self.tokens.stream("words"))


def find_tags(task: Task, sources: list[ResolvedSource]) -> list[str]:
    """The tags of a task in order: the recipe's, or those of the training rows, sorted, with `O` first.

    Raises:
        UserError: when there are fewer than two, in the recipe or in the rows.
    """
    names = None if task.labels is None else named_labels(task)
    rows = read_tagged(sources, task, Counter(), gold="optional")
    found = {tag for row in rows for tag in row.tags if tag is not None}
    if len(found) < 2:
        raise UserError(
            f"tasks.{task.name}: the training rows have {len(found)} tags ({', '.join(found) or 'none'}) in column "
            f"'{task.columns.label}'; tagging needs two or more"
        )
    return names or sorted(found, key=lambda tag: (tag != "O", float(tag) if is_number(tag) else 0.0, tag))


def read_tagged(
    sources: list[ResolvedSource], task: Task, dropped: Counter[str], *, gold: Gold
) -> Iterator[TaggedWords]:
    """The rows of a split; those without a word are counted in `dropped`.

    Raises:
        UserError: for a missing column, one that holds no list, or another number of tags than of words; for a missing
            tag, where they are needed.
    """
    for source in sources:
        for number, row in iterate_rows(source):
            place = f"{source.source.path}, row {number}"
            words = words_of(row, task.columns.text, place)
            tags = _tags_of(row, task, place, len(words), gold)
            if gold == "needed" and None in tags:
                missing = words[tags.index(None)]
                raise UserError(f"{place}: the word '{missing}' has no tag in column '{task.columns.label}'; add it")
            if words:
                yield TaggedWords(words, tags)
            else:
                dropped["no word"] += 1


def words_of(row: dict[str, Any], column: str, place: str) -> list[str]:
    """The words in a column of a row, cleaned.

    Raises:
        UserError: there is no such column, or it holds no list of words.
    """
    return [clean_text(str(word)) for word in _list_of(row, column, place, "words")]


def _tags_of(row: dict[str, Any], task: Task, place: str, words: int, gold: Gold) -> list[str | None]:
    if gold == "ignored" or (task.columns.label in row and row[task.columns.label] is None):
        return [None] * words
    found = _list_of(row, task.columns.label, place, "tags")
    if len(found) != words:
        raise UserError(
            f"{place}: has {words} words in column '{task.columns.text}' and {len(found)} tags in "
            f"'{task.columns.label}'; every word needs one"
        )
    return [None if tag is None else label_name(tag) for tag in found]


def _list_of(row: dict[str, Any], column: str, place: str, what: str) -> list[Any]:
    if column not in row:
        raise UserError(
            f"{place}: has no column '{column}'; it has {', '.join(row)}; set tasks.NAME.columns.text (words) and "
            "columns.label (tags)"
        )
    value = row[column]
    if not isinstance(value, list) or any(isinstance(part, list | dict) for part in value):
        raise UserError(f"{place}: column '{column}' holds {str(value)[:40]!r}, not a list of {what}; write a list")
    return value


def write_tagged_split(
    rows: Iterator[TaggedWords],
    task: Task,
    labels: list[str],
    tokenizer: "PreTrainedTokenizerBase",
    destination: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Tokenise rows into `destination` and return the facts for the data card; `tokenizer` stays as it is.

    Raises:
        UserError: for a tag that is not among the labels.
    """
    # Cutting leaves its settings in a tokenizer, and the run's one goes into what is delivered.
    own_tokenizer = copy.deepcopy(tokenizer)
    counts: Counter[str] = Counter()
    lengths: list[int] = []

    def batches() -> Iterator[dict[str, list[Any]]]:
        for batch in in_batches(rows, _ROWS_TOKENISED_TOGETHER):
            columns = _tokenise(batch, task, labels, own_tokenizer)
            lengths.extend(map(len, columns[TOKENS]))
            counts["words"] += sum(map(len, columns["words"]))
            counts["words without a token"] += sum(starts.count(-1) for starts in columns["starts"])
            counts.update(f"tag {tag}" for row in batch for tag in row.tags if tag is not None)
            advance(len(batch))
            yield columns

    write_token_table(destination, batches(), _COLUMNS)
    facts: dict[str, Any] = {"rows": len(lengths)}
    if lengths:
        facts |= {"tokens": sum(lengths), "longest in tokens": max(lengths)}
    return {**facts, **{name: count for name, count in counts.items() if count}}


def _tokenise(
    batch: list[TaggedWords], task: Task, labels: list[str], tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, list[Any]]:
    joined = [join_words(row.words) for row in batch]
    encoded = tokenizer(
        [text for text, _ in joined],
        truncation=True,
        max_length=task.max_length,
        return_offsets_mapping=True,
        verbose=False,
    )
    class_of = {name: number for number, name in enumerate(labels)}
    return {
        TOKENS: encoded["input_ids"],
        "words": [row.words for row in batch],
        "tags": [[NO_TAG if tag is None else _class_of(tag, class_of, task) for tag in row.tags] for row in batch],
        "starts": [
            first_pieces(offsets, spans) for offsets, (_, spans) in zip(encoded["offset_mapping"], joined, strict=True)
        ],
    }


def _class_of(tag: str, class_of: dict[str, int], task: Task) -> int:
    if tag in class_of:
        return class_of[tag]
    if (
        task.labels is not None
        and tag.isdecimal()
        and int(tag) < len(class_of)
        and not any(map(str.isdecimal, class_of))
    ):
        # As the Hub keeps tags: numbers, whose names the recipe gives in order.
        return int(tag)
    raise UserError(
        f"tasks.{task.name}: the tag '{tag}' is in no training row; correct the rows, or set tasks.{task.name}.labels "
        f"to [{', '.join([*class_of, tag])}]"
    )
