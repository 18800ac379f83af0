"""Pre-training text: read, cleaned, checked for leaks, tokenised and packed into sequences with no padding."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightpaff.data.cleaning import clean_text
from lightpaff.data.leaks import LeakIndex
from lightpaff.data.sources import ResolvedSource, iterate_rows
from lightpaff.data.token_table import TOKENS, TokenTable, in_batches, write_token_table
from lightpaff.errors import UserError
from lightpaff.recipe import CorpusSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TEXTS_TOKENISED_TOGETHER = 1000
_SEQUENCES_WRITTEN_TOGETHER = 4096
_LEAKS_SHOWN = 5
_MOST_HELD_OUT = 512
"""Sequences: enough to choose a checkpoint, and no evaluation takes long."""


def read_corpus(
    sources: list[ResolvedSource],
    dropped: Counter[str],
    leaks: LeakIndex | None = None,
    leaked: list[str] | None = None,
) -> Iterator[str]:
    """Clean texts of every source in turn; what is empty or contains an evaluation example is counted in `dropped`,
    and the first few examples found are put into `leaked`.

    Raises:
        UserError: for a missing column or a value that is not text, naming the row.
    """
    for source in sources:
        column = source.source.text if isinstance(source.source, CorpusSource) else "text"
        for number, row in iterate_rows(source):
            text = clean_text(text_of(row, column, source.source.path, number))
            if not text:
                dropped["empty"] += 1
            elif leaks is not None and (example := leaks.find(text)) is not None:
                dropped["contains an evaluation example"] += 1
                if leaked is not None and len(leaked) < _LEAKS_SHOWN:
                    leaked.append(example)
            else:
                yield text


def text_of(row: dict[str, Any], column: str, origin: str, number: int) -> str:
    """The text of a row's column; a missing value is an empty text.

    Raises:
        UserError: when there is no such column, or its value is not text.
    """
    if column not in row:
        raise UserError(
            f"{origin}, row {number}: has no column '{column}'; it has {', '.join(row)}; name one of them in the recipe"
        )
    value = row[column]
    if value is None:
        return ""
    if isinstance(value, dict | list):
        raise UserError(f"{origin}, row {number}: column '{column}' holds a {type(value).__name__}, not text")
    return str(value)


def prepare_corpus(
    sources: list[ResolvedSource],
    tokenizer: "PreTrainedTokenizerBase",
    sequence_length: int,
    evaluation_texts: list[str],
    destination: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Write packed sequences to `destination` and return the data card, which does not say where the text lay.

    Every sequence is [CLS], `sequence_length` - 2 tokens of running text, [SEP]; texts follow each other with a [SEP]
    between them (RoBERTa's full sentences; Liu et al. 2019, section 4.2). The last, incomplete sequence is dropped.

    Raises:
        UserError: when the text does not fill one sequence.
    """
    dropped: Counter[str] = Counter()
    leaked: list[str] = []
    facts: Counter[str] = Counter()
    leaks = LeakIndex(evaluation_texts) if evaluation_texts else None
    texts = _counted(read_corpus(sources, dropped, leaks, leaked), facts, advance)
    sequences = _pack(_tokenise(texts, tokenizer), tokenizer, sequence_length, facts)
    batches = ({TOKENS: batch} for batch in in_batches(sequences, _SEQUENCES_WRITTEN_TOGETHER))
    count = write_token_table(destination, batches, {})
    names = ", ".join(source.source.path for source in sources)
    if count == 0:
        raise UserError(
            f"{names}: holds {facts['tokens']} tokens, too few for one sequence of {sequence_length}; "
            "add text or lower pretraining.sequence_length"
        )
    card = {
        "texts": facts["texts"],
        "tokens": facts["tokens"],
        "sequences": count,
        "tokens a sequence": sequence_length,
        "evaluation examples looked for": len(evaluation_texts),
        **({"evaluation examples found": " | ".join(leaked)} if leaked else {}),
    }
    return {"facts": card, "dropped": {**dropped, "tokens of the incomplete last sequence": facts["unpacked"]}}


def held_out(sequences: TokenTable, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers for training and for validation: every 1/fraction-th sequence is held out, at least one.

    Raises:
        UserError: when there are too few for both.
    """
    numbers = np.arange(len(sequences))
    if len(numbers) < 2:
        raise UserError(
            f"pretraining.corpus: packs into {len(numbers)} sequence, but training and validation need one each; "
            "add text or lower pretraining.sequence_length"
        )
    is_held = np.floor((numbers + 1) * fraction) > np.floor(numbers * fraction)
    if not is_held.any():
        is_held[-1] = True
    is_held[np.flatnonzero(is_held)[_MOST_HELD_OUT:]] = False
    return numbers[~is_held], numbers[is_held]


def _counted(texts: Iterator[str], facts: Counter[str], advance: Callable[[int], None]) -> Iterator[str]:
    for text in texts:
        facts["texts"] += 1
        advance(1)
        yield text


def _tokenise(texts: Iterator[str], tokenizer: "PreTrainedTokenizerBase") -> Iterator[list[int]]:
    # A fast tokenizer encodes the texts of one call in parallel.
    for batch in in_batches(texts, _TEXTS_TOKENISED_TOGETHER):
        yield from tokenizer(
            batch, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]


def _pack(
    texts: Iterator[list[int]], tokenizer: "PreTrainedTokenizerBase", sequence_length: int, facts: Counter[str]
) -> Iterator[list[int]]:
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    width = sequence_length - 2
    running: list[int] = []
    for tokens in texts:
        facts["tokens"] += len(tokens)
        running.extend([end, *tokens] if running else tokens)
        whole = len(running) - len(running) % width
        for place in range(0, whole, width):
            yield [start, *running[place : place + width], end]
        running = running[whole:]
    facts["unpacked"] = len(running)
