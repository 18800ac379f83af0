"""Documents as rows of tokens: packed one after another, to learn from, or one a row, to be scored.

A document is [start] tokens [end]: end is the tokenizer's end token, start its beginning token or, where there is
none, the end token too.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lightpaff.data.corpus import CorpusText, TokenisedText, tokenise, write_rows
from lightpaff.data.documents import iterate_documents
from lightpaff.data.sources import ResolvedSource
from lightpaff.data.token_table import TOKENS
from lightpaff.errors import UserError
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Task

STARTS = "document_starts"
WORDS = "words"
HAS_GOLD = "has_gold"
SEQUENCE_COLUMNS = {STARTS: pa.large_list(pa.int32())}
_TASK_COLUMNS = {**SEQUENCE_COLUMNS, HAS_GOLD: pa.bool_()}
_DOCUMENT_COLUMNS = {WORDS: pa.int64()}
_SEQUENCES_WRITTEN_TOGETHER = 4096
_DOCUMENTS_WRITTEN_TOGETHER = 256


def pack_documents(
    texts: Iterator[TokenisedText],
    facts: Counter[str],
    *,
    frame: tuple[int, int],
    sequence_length: int,
    keeps_last: bool,
) -> Iterator[dict[str, Any]]:
    """Rows of `sequence_length` + 1 tokens with the places (`document_starts`) where documents begin in them.

    The last token of a row is the first of the next, so that each is predicted once. The tokens behind the last whole
    row make a shorter one, or are counted as `unpacked`; `tokens` counts those of the texts, without start and end.

    Args:
        texts: the documents.
        facts: is counted up.
        frame: the ids of the start and of the end token.
        sequence_length: inputs of a row.
        keeps_last: whether an incomplete last row is kept.
    """
    start, end = frame
    running: list[int] = []
    starts: list[int] = []
    shared = 0  # Of the running tokens, those that the row before holds too.
    for text in texts:
        facts["tokens"] += len(text.ids)
        starts.append(len(running))
        running += [start, *text.ids, end]
        whole = (len(running) - 1) // sequence_length * sequence_length
        if whole:
            yield from _cut_rows(running[: whole + 1], starts, sequence_length)
            running, shared = running[whole:], 1
            starts = [place - whole for place in starts if place >= whole]
    if keeps_last and len(running) > shared:
        yield {TOKENS: running, STARTS: starts}
    else:
        facts["unpacked"] = len(running) - shared


def _cut_rows(running: list[int], starts: list[int], sequence_length: int) -> Iterator[dict[str, Any]]:
    starts_D = np.array(starts)
    for place in range(0, len(running) - 1, sequence_length):
        first, behind = np.searchsorted(starts_D, [place, place + sequence_length + 1])
        yield {
            TOKENS: running[place : place + sequence_length + 1],
            STARTS: (starts_D[first:behind] - place).tolist(),
        }


@dataclass
class DocumentReading:
    """The documents of a split, counted while they are read.

    `evaluated` holds the digests of validation and test documents: they are put there, and training documents are
    looked for in it.
    """

    task: Task
    sources: list[ResolvedSource]
    evaluated: set[bytes]
    advance: Callable[[int], None]
    is_training: bool
    words: list[int] = field(default_factory=list)
    repeated: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def texts(self) -> Iterator[CorpusText]:
        for source in self.sources:
            for _, text in iterate_documents(source, self.task.columns.text):
                if not text.strip():
                    self.dropped["empty"] += 1
                    continue
                self._count(text)
                yield CorpusText(text)

    def _count(self, text: str) -> None:
        digest = hashlib.sha256(text.encode()).digest()
        if not self.is_training:
            self.evaluated.add(digest)
        self.repeated += self.is_training and digest in self.evaluated
        self.words.append(len(text.split()) + text.count("\n"))
        self.advance(1)


def write_split(
    task: Task, split: str, reading: DocumentReading, unlabelled: DocumentReading, vocabulary: Vocabulary, result: Path
) -> dict[str, Any]:
    counted: Counter[str] = Counter()
    without_gold: Counter[str] = Counter()
    start, end = find_frame(vocabulary)
    texts = tokenise(reading.texts(), vocabulary.tokenizer)
    path = result / f"{split}.arrow"
    rows: Iterator[dict[str, Any]]
    if split == "train":
        more = tokenise(unlabelled.texts(), vocabulary.tokenizer)
        rows = chain(
            _training_rows(texts, counted, task, (start, end), has_gold=True),
            _training_rows(more, without_gold, task, (start, end), has_gold=False),
        )
        write_rows(path, rows, _TASK_COLUMNS, _SEQUENCES_WRITTEN_TOGETHER)
    else:
        rows = _document_rows(texts, reading, counted, start)
        write_rows(path, rows, _DOCUMENT_COLUMNS, _DOCUMENTS_WRITTEN_TOGETHER)
    if counted["rows"] == 0:
        names = ", ".join(source.source.path for source in reading.sources)
        raise UserError(
            f"{names}: no document of {task.name} ({split}) has any text in column '{task.columns.text}'; correct the "
            f"file or set tasks.{task.name}.columns.text"
        )
    facts: dict[str, Any] = {"rows": counted["rows"] + without_gold["rows"]}
    if split == "train":
        facts["documents"] = len(reading.words)
    facts |= {"tokens": counted["tokens"], "words": sum(reading.words)}
    if without_gold["rows"]:
        facts["rows for the teacher alone"] = without_gold["rows"]
    if repeated := reading.repeated + unlabelled.repeated:
        facts["also in validation or test"] = repeated
    # Neither the task's name nor a path: other runs reuse this step under other names.
    warnings = [_tell_repeated(repeated, len(reading.words) + len(unlabelled.words))] if repeated else []
    return {"split": split, "facts": facts, "dropped": dict(reading.dropped + unlabelled.dropped), "warnings": warnings}


def _training_rows(
    texts: Iterator[TokenisedText], counted: Counter[str], task: Task, frame: tuple[int, int], *, has_gold: bool
) -> Iterator[dict[str, Any]]:
    for row in pack_documents(texts, counted, frame=frame, sequence_length=task.max_length, keeps_last=True):
        counted["rows"] += 1
        yield {**row, HAS_GOLD: has_gold}


def _tell_repeated(repeated: int, documents: int) -> str:
    return (
        f"{repeated:,} of {documents:,} training documents are validation or test documents too: "
        "expect worse on new text than the perplexity there shows"
    )


def _document_rows(
    texts: Iterator[TokenisedText], reading: DocumentReading, counted: Counter[str], start: int
) -> Iterator[dict[str, Any]]:
    # The tokenizer reads ahead: the words of this document are counted by now.
    for number, text in enumerate(texts):
        counted["tokens"] += len(text.ids)
        if text.ids:
            counted["rows"] += 1
            yield {TOKENS: [start, *text.ids], WORDS: reading.words[number]}
        else:
            reading.dropped["without a token"] += 1
            reading.words[number] = 0


def find_frame(vocabulary: Vocabulary) -> tuple[int, int]:
    """The ids of the start and of the end token of a document."""
    tokenizer = vocabulary.tokenizer
    end = tokenizer.eos_token_id
    if end is None:
        raise UserError("teacher: its tokenizer has no end token (eos_token); take a decoder's, such as GPT-2's")
    return int(end if tokenizer.bos_token_id is None else tokenizer.bos_token_id), int(end)
