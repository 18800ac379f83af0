"""Pre-training text: read, checked for leaks, tokenised and laid out in rows as the objective wants them."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lightpaff.data.cleaning import clean_text
from lightpaff.data.documents import iterate_documents, text_of
from lightpaff.data.leaks import LeakIndex
from lightpaff.data.sources import ResolvedSource, iterate_rows
from lightpaff.data.token_table import TOKENS, TokenTable, in_batches, write_token_table
from lightpaff.errors import UserError
from lightpaff.recipe_sources import CorpusSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PIECES_TOKENISED_TOGETHER = 1000
_CHARACTERS_TOKENISED_TOGETHER = 2_000_000
_PIECE_CHARACTERS = 100_000
"""A tokenizer needs some 150 bytes of memory a character: a longer text is tokenised in pieces of about this length."""
_WORD_END = re.compile(r"(?<=[^\W\d_])(?=\s)")
_SEQUENCES_WRITTEN_TOGETHER = 4096
_LEAK = "contains an evaluation example"
_LEAKS_SHOWN = 5
_MOST_HELD_OUT = 512
"""Sequences: enough to choose a checkpoint, and no evaluation takes long."""


@dataclass(frozen=True)
class CorpusText:
    """One text, and the language that its source names, if any."""

    text: str
    language: str | None = None


@dataclass(frozen=True)
class TokenisedText:
    """The token ids of one text, without special tokens around them."""

    ids: list[int]
    language: str | None = None


LayOut = Callable[[Iterator[TokenisedText], "Counter[str]"], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Arrangement:
    """How an objective wants the corpus.

    Attributes:
        whole_documents: documents verbatim, rather than rows of clean text.
        columns: what a row of the token table has besides `input_ids`.
        lay_out: turns tokenised texts into such rows, and adds to the facts it is given: `tokens` (all tokens of the
            texts), `unpacked` (tokens at the end that fill no row) and what else the data card should say.
    """

    whole_documents: bool
    columns: dict[str, pa.DataType]
    lay_out: LayOut


def read_corpus(
    sources: list[ResolvedSource],
    dropped: Counter[str],
    leaks: LeakIndex | None = None,
    leaked: list[str] | None = None,
    *,
    whole_documents: bool = False,
) -> Iterator[CorpusText]:
    """The texts of every source in turn; what is empty or contains an evaluation example is counted in `dropped`,
    and the first few examples found are put into `leaked`.

    Args:
        sources: where the texts are.
        dropped: is counted up.
        leaks: the evaluation examples.
        leaked: is filled.
        whole_documents: documents verbatim, as `documents.iterate_documents` has them; else rows, cleaned.

    Raises:
        UserError: for a missing column or a value that is not text, naming the row; when every text contains an
            evaluation example; as `iterate_documents`.
    """
    kept = 0
    for source in sources:
        language = source.source.language if isinstance(source.source, CorpusSource) else None
        for text in _texts_of(source, whole_documents):
            if not text.strip():
                dropped["empty"] += 1
            elif leaks is not None and (example := leaks.find(text)) is not None:
                dropped[_LEAK] += 1
                if leaked is not None and len(leaked) < _LEAKS_SHOWN:
                    leaked.append(example)
            else:
                kept += 1
                yield CorpusText(text, language)
    if not kept and dropped[_LEAK]:
        raise UserError(f"{_names(sources)}: no text is left{_describe_leaks(dropped, sources)}")


def _texts_of(resolved: ResolvedSource, whole_documents: bool) -> Iterator[str]:
    source = resolved.source
    column = source.text if isinstance(source, CorpusSource) else "text"
    if whole_documents:
        yield from (text for _, text in iterate_documents(resolved, column))
    else:
        yield from (clean_text(text_of(row, column, source.path, number)) for number, row in iterate_rows(resolved))


def prepare_corpus(
    sources: list[ResolvedSource],
    tokenizer: "PreTrainedTokenizerBase",
    arrangement: Arrangement,
    evaluation_texts: list[str],
    destination: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Write the rows of an arrangement to `destination` and return the data card, which does not say where the text
    lay.

    Args:
        sources: where the texts are.
        tokenizer: cuts them.
        arrangement: the objective's.
        evaluation_texts: a text that contains one of them is dropped.
        destination: of the token table.
        advance: is told the number of texts done.

    Raises:
        UserError: when the text does not fill one row; as `read_corpus`.
    """
    dropped: Counter[str] = Counter()
    leaked: list[str] = []
    facts: Counter[str] = Counter()
    leaks = LeakIndex(evaluation_texts) if evaluation_texts else None
    corpus = read_corpus(sources, dropped, leaks, leaked, whole_documents=arrangement.whole_documents)
    rows = arrangement.lay_out(tokenise(_counted(corpus, facts, advance), tokenizer), facts)
    count = write_rows(destination, rows, arrangement.columns, _SEQUENCES_WRITTEN_TOGETHER)
    unpacked = facts.pop("unpacked", 0)
    if count == 0:
        raise UserError(
            f"{_names(sources)}: holds {facts['tokens']} tokens, too few for one sequence"
            f"{_describe_leaks(dropped, sources)}; add text or lower pretraining.sequence_length"
        )
    card = {
        **facts,
        "sequences": count,
        "tokens of the longest sequence": int(TokenTable(destination).lengths_N.max()),
        "evaluation examples looked for": len(evaluation_texts),
        **({"evaluation examples found": " | ".join(leaked)} if leaked else {}),
    }
    return {"facts": card, "dropped": {**dropped, "tokens of the incomplete last sequence": unpacked}}


def _names(sources: list[ResolvedSource]) -> str:
    return ", ".join(source.source.path for source in sources)


def _describe_leaks(dropped: Counter[str], sources: list[ResolvedSource]) -> str:
    """What to add to a message about a lack of text; empty where no text leaked."""
    if not (count := dropped[_LEAK]):
        return ""
    is_long = any(source.source.document == "file" for source in sources)
    remedy = "cut it into shorter ones with document: blank-line" if is_long else "take other text"
    return f"; {count} {'text' if count == 1 else 'texts'} dropped for containing an evaluation example: {remedy}"


def write_rows(path: Path, rows: Iterator[dict[str, Any]], columns: dict[str, pa.DataType], together: int) -> int:
    """Write rows of `input_ids` and the named extra columns, `together` at a time, as a token table; return how many
    there are."""
    names = [TOKENS, *columns]
    batches = ({name: [row[name] for row in batch] for name in names} for batch in in_batches(rows, together))
    return write_token_table(path, batches, columns)


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
    held = np.flatnonzero(is_held)
    # Of all sources, which come one after the other.
    held = held[np.arange(min(len(held), _MOST_HELD_OUT)) * len(held) // min(len(held), _MOST_HELD_OUT)]
    return np.setdiff1d(numbers, held, assume_unique=True), held


def tokenise(texts: Iterator[CorpusText], tokenizer: "PreTrainedTokenizerBase") -> Iterator[TokenisedText]:
    """The tokens of each text, in order, without special tokens around them; texts are read a little ahead.

    A text longer than 100,000 characters is tokenised in pieces, cut between a letter and the white space behind it.
    The tokens are those of the whole where no token reaches over the end of a word, as with GPT-2, Llama 3, Qwen and
    BERT; a tokenizer that puts a space before every text (Llama 2) has one more at each cut.
    """
    running: list[int] = []
    for batch in _batches_of_pieces(texts):
        # A fast tokenizer encodes the texts of one call in parallel.
        encoded = tokenizer(
            [piece.text for piece in batch],
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        for piece, ids in zip(batch, encoded, strict=True):
            running += ids
            if piece.is_last:
                yield TokenisedText(running, piece.language)
                running = []


def pack_with_separators(
    texts: Iterator[TokenisedText], tokenizer: "PreTrainedTokenizerBase", sequence_length: int, facts: Counter[str]
) -> Iterator[dict[str, Any]]:
    """Rows of [CLS], `sequence_length` - 2 tokens of running text, [SEP]; texts follow each other with a [SEP] between
    them (RoBERTa's full sentences; Liu et al. 2019, section 4.2). The last, incomplete row is dropped.

    Counts `tokens` and `unpacked` in `facts`, as `Arrangement.lay_out` should.
    """
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    width = sequence_length - 2
    running: list[int] = []
    for text in texts:
        facts["tokens"] += len(text.ids)
        running.extend([end, *text.ids] if running else text.ids)
        whole = len(running) - len(running) % width
        for place in range(0, whole, width):
            yield {TOKENS: [start, *running[place : place + width], end]}
        running = running[whole:]
    facts["unpacked"] = len(running)


@dataclass(frozen=True)
class _Piece:
    text: str
    language: str | None
    is_last: bool


def _batches_of_pieces(texts: Iterator[CorpusText]) -> Iterator[list[_Piece]]:
    batch: list[_Piece] = []
    characters = 0
    for piece in chain.from_iterable(map(_cut, texts)):
        batch.append(piece)
        characters += len(piece.text)
        if len(batch) == _PIECES_TOKENISED_TOGETHER or characters >= _CHARACTERS_TOKENISED_TOGETHER:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _cut(text: CorpusText) -> Iterator[_Piece]:
    whole, start = text.text, 0
    while len(whole) - start > _PIECE_CHARACTERS and (end := _WORD_END.search(whole, start + _PIECE_CHARACTERS)):
        yield _Piece(whole[start : end.start()], text.language, is_last=False)
        start = end.start()
    yield _Piece(whole[start:], text.language, is_last=True)


def _counted(texts: Iterator[CorpusText], facts: Counter[str], advance: Callable[[int], None]) -> Iterator[CorpusText]:
    for text in texts:
        facts["texts"] += 1
        advance(1)
        yield text
