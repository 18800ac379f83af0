"""Rows of pairs: a text that is read and a text that is to be written (a translation, a summary)."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lightpaff.data.cleaning import clean_text
from lightpaff.data.documents import text_of
from lightpaff.data.languages import has_own_languages, language_id, tokenizer_between
from lightpaff.data.sources import ResolvedSource, iterate_rows
from lightpaff.data.token_table import TOKENS, in_batches, write_token_table
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Columns, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TARGETS = "target_ids"
WITHOUT_TARGET = "without a target"
_PAIRS_TOKENISED_TOGETHER = 1000
_COLUMNS = {
    TARGETS: pa.large_list(pa.int32()),
    "source": pa.large_string(),
    "target": pa.large_string(),
    "references": pa.large_list(pa.large_string()),
}


@dataclass(frozen=True)
class TextPair:
    """One row, cleaned. `references` are what a generated text is compared with; they are never empty texts."""

    source: str
    target: str
    references: list[str]


def read_pair(row: dict[str, Any], columns: Columns, origin: str, number: int, *, is_evaluated: bool) -> TextPair:
    """The pair of a row, either text empty where the row has none. A column of nested rows is named with dots
    (`translation.en`). In an evaluated row with references the target may be left out: it is then the first of them.

    Raises:
        UserError: for a missing column or a value that is not text, naming the row.
    """
    source = _clean_text_at(row, columns.source, origin, number)
    if not is_evaluated or columns.references is None:
        target = _clean_text_at(row, columns.target, origin, number)
        return TextPair(source, target, [target] if target else [])
    references = _references_at(row, columns.references, origin, number)
    inner, name = _innermost(row, columns.target)
    target = _clean_text_at(row, columns.target, origin, number) if name in inner else ""
    return TextPair(source, target or next(iter(references), ""), references or [target] * bool(target))


def read_pairs(
    sources: list[ResolvedSource], columns: Columns, dropped: Counter[str], *, is_evaluated: bool
) -> Iterator[TextPair]:
    """The pairs of a split; those with an empty text are counted in `dropped`.

    Raises:
        UserError: as `read_pair`.
    """
    for source in sources:
        for number, row in iterate_rows(source):
            pair = read_pair(row, columns, source.source.path, number, is_evaluated=is_evaluated)
            if pair.source and pair.target:
                yield pair
            else:
                dropped["empty source or target"] += 1


def read_sources(sources: list[ResolvedSource], columns: Columns, dropped: Counter[str]) -> Iterator[TextPair]:
    """Texts to be read whose targets are nobody's yet: empty, also where a row has one.

    Raises:
        UserError: as `read_pair`.
    """
    for source in sources:
        for number, row in iterate_rows(source):
            text = _clean_text_at(row, columns.source, source.source.path, number)
            if text:
                yield TextPair(text, "", [])
            else:
                dropped["empty source"] += 1


def write_pairs(
    pairs: Iterator[TextPair],
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    destination: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Tokenise pairs into `destination` and return the facts for the data card; `tokenizer` stays as it is. An empty
    target has no tokens, not even the end token.

    Raises:
        UserError: the tokenizer lacks one of the task's languages.
    """
    own_tokenizer = tokenizer_between(tokenizer, task.languages)
    lengths: list[tuple[int, int]] = []
    truncated = 0

    def batches() -> Iterator[dict[str, list[Any]]]:
        nonlocal truncated
        for batch in in_batches(pairs, _PAIRS_TOKENISED_TOGETHER):
            source_rows, is_source_cut = _tokenise_sources([pair.source for pair in batch], own_tokenizer, task)
            target_rows, is_target_cut = _tokenise_targets([pair.target for pair in batch], own_tokenizer, task)
            target_rows = [row if pair.target else [] for pair, row in zip(batch, target_rows, strict=True)]
            truncated += int(np.sum(is_source_cut | is_target_cut))
            lengths.extend(zip(map(len, source_rows), map(len, target_rows), strict=True))
            advance(len(batch))
            texts = {name: [getattr(pair, name) for pair in batch] for name in ("source", "target", "references")}
            yield {TOKENS: source_rows, TARGETS: target_rows, **texts}

    write_token_table(destination, batches(), _COLUMNS)
    facts: dict[str, Any] = {"rows": len(lengths), "truncated": truncated}
    if lengths:
        if missing := sum(target == 0 for _, target in lengths):
            facts[WITHOUT_TARGET] = missing
        facts["tokens"] = int(np.sum(lengths))
        source_median, target_median = np.median(lengths, axis=0)
        facts["median length in tokens"] = f"{source_median:.0f} to {target_median:.0f}"
        facts["longest in tokens"] = " to ".join(str(length) for length in np.max(lengths, axis=0))
    return facts


def _tokenise_sources(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", task: Task
) -> tuple[list[list[int]], np.ndarray]:
    """Token ids and whether they were cut; the language comes first where the tokenizer itself does not say it."""
    first: list[int] = []
    if task.languages is not None and not has_own_languages(tokenizer):
        first = [language_id(tokenizer, task.languages.source)]
    longest = task.max_length - len(first)
    rows: list[list[int]] = tokenizer(texts, verbose=False)["input_ids"]
    is_cut = np.array([len(row) > longest for row in rows])
    if is_cut.any():
        rows = tokenizer(texts, truncation=True, max_length=longest)["input_ids"]
    return [first + row for row in rows], is_cut


def _tokenise_targets(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", task: Task
) -> tuple[list[list[int]], np.ndarray]:
    """Token ids that end with the end token, whether cut or not, and whether they were cut."""
    end = int(tokenizer.eos_token_id)
    language = None if task.languages is None else language_id(tokenizer, task.languages.target)
    rows: list[list[int]] = tokenizer(text_target=texts, verbose=False)["input_ids"]
    whole = []
    for row in rows:
        # mBART's puts the language after the end; here it comes first, before the target (`first_decoder_token`).
        kept = row[:-1] if row[-1:] == [language] else row
        whole.append(kept if kept[-1:] == [end] else [*kept, end])
    longest = task.max_target_length
    is_cut = np.array([len(row) > longest for row in whole])
    return [[*row[: longest - 1], end] if len(row) > longest else row for row in whole], is_cut


def _innermost(row: dict[str, Any], column: str) -> tuple[dict[str, Any], str]:
    """The row, or the one nested in it, that should hold a column, and what the column is called there."""
    inner, name = row, column
    while name not in inner and "." in name:
        outer, rest = name.split(".", 1)
        if not isinstance(inner.get(outer), dict):
            return row, column
        inner, name = inner[outer], rest
    return inner, name


def _clean_text_at(row: dict[str, Any], column: str, origin: str, number: int) -> str:
    inner, name = _innermost(row, column)
    return clean_text(text_of(inner, name, origin, number))


def _references_at(row: dict[str, Any], column: str, origin: str, number: int) -> list[str]:
    inner, name = _innermost(row, column)
    value = inner.get(name)
    if not isinstance(value, list):
        text = clean_text(text_of(inner, name, origin, number))
        return [text] if text else []
    if unfit := [part for part in value if not isinstance(part, str | None)]:
        raise UserError(
            f"{origin}, row {number}: column '{column}' holds a list with a {type(unfit[0]).__name__}; references are "
            "a list of texts"
        )
    return [text for part in value if part and (text := clean_text(part))]
