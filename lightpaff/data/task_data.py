"""A task's rows: checked, labelled and tokenised."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from lightpaff.data.cleaning import clean_text
from lightpaff.data.documents import text_of
from lightpaff.data.numbering import numbered
from lightpaff.data.numbers import canonical_number, is_number
from lightpaff.data.sources import ResolvedSource, iterate_rows
from lightpaff.data.token_table import TOKENS, TokenTable, in_batches, write_token_table
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Gold = Literal["needed", "optional", "ignored"]
"""Whether rows need labels (or tags), may lack them, or have none that are looked at."""

_ROWS_TOKENISED_TOGETHER = 1000
_WORDS_FOR_MISSING = {"nan", "na", "n/a", "<na>", "nat", "null", "none"}
_COLUMNS = {
    "text": pa.large_string(),
    "text_pair": pa.large_string(),
    "label": pa.float64(),
    "first_length": pa.int32(),
    "group": pa.large_string(),
}


@dataclass(frozen=True)
class Example:
    """One row of a task; `label` is a class number or a score, None where there is none; `group` says which rows belong
    together."""

    text: str
    text_pair: str | None
    label: float | None
    group: str | None = None


@dataclass(frozen=True)
class TaskRows:
    """One split, tokenised and memory-mapped.

    Attributes:
        tokens: the token ids of each row.
        labels_N: float64, NaN where there is no label.
        first_lengths_N: tokens of the first sentence with its special tokens, int64.
        groups_N: the number of each row's group, int64; None where the rows have none.
    """

    tokens: TokenTable
    labels_N: np.ndarray
    first_lengths_N: np.ndarray
    groups_N: np.ndarray | None

    @classmethod
    def open(cls, path: Path) -> "TaskRows":
        """Open what `write_split` wrote."""
        table = TokenTable(path)
        labels = np.array([math.nan if v is None else v for v in table.column("label")], dtype=np.float64)
        groups = table.column("group")
        # A row without a group is one by itself, under its own number.
        groups_N = numbered(group or row for row, group in enumerate(groups)) if None not in groups else None
        return cls(table, labels, np.array(table.column("first_length"), dtype=np.int64), groups_N)

    def texts(self) -> Iterator[tuple[str, str | None]]:
        """The cleaned texts and their pairs."""
        return zip(self.tokens.stream("text"), self.tokens.stream("text_pair"), strict=True)


def find_labels(task: Task, sources: list[ResolvedSource]) -> list[str]:
    """The classes of a task in order: the recipe's, or those of the training rows, sorted.

    Raises:
        UserError: when there are fewer than two.
    """
    if task.labels is not None:
        return named_labels(task)
    found: dict[str, str] = {}
    for source in sources:
        found = _labels_of(task, source) | found
    if len(found) < 2:
        raise UserError(
            f"tasks.{task.name}: the training rows have {len(found)} class ({', '.join(found) or 'none'}) in column "
            f"'{task.columns.label}'; classification needs two or more"
        )
    _refuse_other_capitals(task, found)
    _refuse_words_for_missing(task, found)
    return sorted(found, key=lambda name: (0, float(name), "") if is_number(name) else (1, 0.0, name))


def named_labels(task: Task) -> list[str]:
    """The classes that the recipe names.

    Raises:
        UserError: when there are fewer than two, or one comes twice.
    """
    names = [label_name(label) for label in task.labels or []]
    if len(set(names)) < 2 or len(set(names)) != len(names):
        raise UserError(f"tasks.{task.name}.labels: needs at least two different labels; found {names}")
    return names


def _refuse_other_capitals(task: Task, names: dict[str, str]) -> None:
    by_small_letters: dict[str, str] = {}
    for name, place in names.items():
        other = by_small_letters.setdefault(name.casefold(), name)
        if other != name:
            raise UserError(
                f"{place}: the label '{name}' stands beside '{other}': classes that differ only in capitals; correct "
                f"the rows, or name both in tasks.{task.name}.labels"
            )


def _refuse_words_for_missing(task: Task, names: dict[str, str]) -> None:
    """Beside numbers, `nan` and the like are a program's word for no value; among words they may be words."""
    missing = [name for name in names if name.casefold() in _WORDS_FOR_MISSING]
    if missing and all(is_number(name) for name in names if name not in missing) and len(missing) < len(names):
        raise UserError(
            f"{names[missing[0]]}: the label '{missing[0]}' stands beside numbers: leave the cell empty where there is "
            f"no label, or name it in tasks.{task.name}.labels where it is a class"
        )


def _labels_of(task: Task, source: ResolvedSource) -> dict[str, str]:
    """The names of a source's labels and where each stands first. A row of JSON lines may leave its label out, but not
    all may."""
    found: dict[str, str] = {}
    has_column, first = False, None
    for number, row in iterate_rows(source):
        first = first or (number, row)
        if task.columns.label in row:
            has_column = True
            label = _raw_label(row, task, source.source.path, number)
            if label is not None:
                found.setdefault(label, f"{source.source.path}, row {number}")
    if first is not None and not has_column:
        _raw_label(first[1], task, source.source.path, first[0])  # Refuses it: the column has another name.
    return found


def read_examples(
    sources: list[ResolvedSource], task: Task, labels: list[str], dropped: Counter[str], *, gold: Gold
) -> Iterator[Example]:
    """Examples of a split; rows with an empty text are counted in `dropped`.

    Raises:
        UserError: for a missing column, an unknown label, a label out of range, or a missing one where it is needed.
    """
    class_of = {name: number for number, name in enumerate(labels)}
    if task.labels is not None and not any(map(is_number, labels)):
        # As the Hub keeps classes: numbers, whose names the recipe gives in order.
        class_of |= {str(number): number for number in range(len(labels))}
    for source in sources:
        path = source.source.path
        for number, row in iterate_rows(source):
            text = clean_text(text_of(row, task.columns.text, path, number))
            pair = task.columns.text_pair
            text_pair = clean_text(text_of(row, pair, path, number)) if pair else None
            is_read = gold == "needed" or (gold == "optional" and task.columns.label in row)
            raw = _raw_label(row, task, path, number) if is_read else None
            if not text or text_pair == "":
                dropped["empty text"] += 1
                continue
            if raw is None and gold == "needed":
                raise UserError(f"{path}, row {number}: has no label; rows without one go under tasks.unlabelled")
            group = None if gold == "ignored" else _group_of(row, source, task, number)
            yield Example(text, text_pair, _label_value(raw, task, class_of, path, number), group)


def _group_of(row: dict[str, Any], source: ResolvedSource, task: Task, number: int) -> str | None:
    """Which rows belong together: by the task's column, or by what the source is split by."""
    split = source.source.split
    column = task.columns.group or (split.by if split else None)
    return None if column is None else text_of(row, column, source.source.path, number)


def write_split(
    examples: Iterator[Example],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    destination: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Tokenise examples into `destination` and return the facts for the data card; `tokenizer` stays as it is."""
    # Cutting leaves its settings in a tokenizer, and the run's one goes into what is delivered.
    own_tokenizer = copy.deepcopy(tokenizer)
    lengths: list[int] = []
    label_counts: Counter[float | None] = Counter()
    truncated = 0

    def batches() -> Iterator[dict[str, list[Any]]]:
        nonlocal truncated
        for batch in in_batches(examples, _ROWS_TOKENISED_TOGETHER):
            columns, cut = _tokenise(batch, own_tokenizer, max_length)
            truncated += cut
            lengths.extend(len(tokens) for tokens in columns[TOKENS])
            label_counts.update(example.label for example in batch)
            advance(len(batch))
            yield columns

    write_token_table(destination, batches(), _COLUMNS)
    facts: dict[str, Any] = {"rows": len(lengths), "truncated": truncated}
    if lengths:
        facts["tokens"] = sum(lengths)
        facts["median length in tokens"] = int(np.median(lengths))
        facts["longest in tokens"] = max(lengths)
    return {"facts": facts, "labels": label_counts}


def _tokenise(
    batch: list[Example], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> tuple[dict[str, list[Any]], int]:
    texts = [example.text for example in batch]
    pairs = [example.text_pair or "" for example in batch] if batch[0].text_pair is not None else None
    whole = tokenizer(texts, pairs, verbose=False)
    is_cut = [len(tokens) > max_length for tokens in whole["input_ids"]]
    encoded = tokenizer(texts, pairs, truncation=True, max_length=max_length) if any(is_cut) else whole
    first_lengths = [_first_length(encoded.sequence_ids(row)) for row in range(len(batch))]
    return {
        TOKENS: encoded["input_ids"],
        "text": texts,
        "text_pair": [example.text_pair for example in batch],
        "label": [example.label for example in batch],
        "first_length": first_lengths,
        "group": [example.group for example in batch],
    }, sum(is_cut)


def _first_length(sequence_ids: list[int | None]) -> int:
    """Tokens before the second sentence: everything where there is none."""
    return sequence_ids.index(1) if 1 in sequence_ids else len(sequence_ids)


def _raw_label(row: dict[str, Any], task: Task, origin: str, number: int) -> str | None:
    if task.columns.label not in row:
        raise UserError(
            f"{origin}, row {number}: has no column '{task.columns.label}'; it has {', '.join(row)}; "
            f"set tasks.{task.name}.columns.label"
        )
    value = row[task.columns.label]
    if isinstance(value, list | dict):
        raise UserError(
            f"{origin}, row {number}: the label is a {type(value).__name__} ({value}), and {task.objective} takes one "
            f"class or score a row; write one value in column '{task.columns.label}' (several labels a row are not "
            "supported)"
        )
    return None if value is None else label_name(value) or None


def label_name(value: object) -> str:
    """A label as text, cleaned as texts are."""
    return clean_text(canonical_number(value))


def _label_value(raw: str | None, task: Task, class_of: dict[str, int], origin: str, number: int) -> float | None:
    if raw is None:
        return None
    if task.objective == "regress":
        return _score(raw, task, origin, number)
    if raw in class_of:
        return class_of[raw]
    known = ", ".join(class_of)
    if is_number(raw) and all(is_number(name) for name in class_of):
        raise UserError(
            f"{origin}, row {number}: label {raw} is out of range; the labels are {known} (-1 marks a hidden test "
            f"label: leave that split out), or set tasks.{task.name}.labels"
        )
    raise UserError(
        f"{origin}, row {number}: unknown label '{raw}'; the labels are {known}; correct the row or set "
        f"tasks.{task.name}.labels"
    )


def _score(raw: str, task: Task, origin: str, number: int) -> float:
    try:
        value = float(raw)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(
            f"{origin}, row {number}: label '{raw}' is not a finite number; the objective regress needs one in column "
            f"'{task.columns.label}' (tasks.{task.name})"
        )
    return value
