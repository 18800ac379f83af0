"""Questions about contexts, whose answers are parts of these: read, and cut into windows of tokens.

Shapes: S tokens.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lightpaff.data.cleaning import plain_text
from lightpaff.data.documents import text_of
from lightpaff.data.sources import ResolvedSource, iterate_rows
from lightpaff.data.token_table import TOKENS, in_batches, write_token_table
from lightpaff.data.words import Span
from lightpaff.errors import UserError
from lightpaff.recipe_sections import Task

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

NO_TOKEN = -1
"""Where a token is in the context, if it is no part of it."""

_QUESTIONS_TOGETHER = 200
_COLUMNS = {
    "question": pa.int32(),
    "starts": pa.large_list(pa.int32()),
    "ends": pa.large_list(pa.int32()),
    "gold_start": pa.int32(),
    "gold_end": pa.int32(),
    "first_length": pa.int32(),
    "context": pa.large_string(),
    "asked": pa.large_string(),
    "answers": pa.large_list(pa.large_string()),
}


@dataclass(frozen=True)
class Question:
    """One question; `answers` are (start, end) in characters of the context, none where it has no answer."""

    text: str
    context: str
    answers: list[Span]

    @property
    def answer_texts(self) -> list[str]:
        """The characters of the answers."""
        return [self.context[start:end] for start, end in self.answers]


def read_questions(sources: list[ResolvedSource], task: Task, dropped: Counter[str]) -> Iterator[Question]:
    """The questions of a split; empty ones are counted in `dropped`.

    Raises:
        UserError: for a missing column, or an answer that does not stand where it is said to.
    """
    assert task.columns.text_pair is not None
    for source in sources:
        for number, row in iterate_rows(source):
            origin = source.source.path
            text = plain_text(text_of(row, task.columns.text, origin, number))
            context = plain_text(text_of(row, task.columns.text_pair, origin, number))
            if text.strip() and context.strip():
                yield Question(text, context, _answers_of(row, task, context, f"{origin}, row {number}"))
            else:
                dropped["empty text"] += 1


def _answers_of(row: dict[str, Any], task: Task, context: str, place: str) -> list[Span]:
    found = row.get(task.columns.label)
    texts, starts = (found.get(key) if isinstance(found, dict) else None for key in ("text", "answer_start"))
    if not _are_answers(texts, starts):
        raise UserError(
            f"{place}: column '{task.columns.label}' holds {str(found)[:40]!r}, not answers as SQuAD has them: "
            '{"text": [...], "answer_start": [...]}'
        )
    spans = []
    assert texts is not None
    assert starts is not None
    for text, start in zip(texts, starts, strict=True):
        span = (int(start), int(start) + len(text))
        if not text or context[slice(*span)] != plain_text(text):
            raise UserError(
                f"{place}: the answer '{text[:40]}' does not stand at character {start} of the context, but "
                f"'{context[slice(*span)][:40]}' does; correct answer_start"
            )
        spans.append(span)
    return spans


def _are_answers(texts: Any, starts: Any) -> bool:
    are_lists = isinstance(texts, list) and isinstance(starts, list) and len(texts) == len(starts)
    return are_lists and all(isinstance(text, str) for text in texts) and all(map(_is_place, starts))


def _is_place(start: object) -> bool:
    return isinstance(start, int) or (isinstance(start, float) and start.is_integer())


def write_windows(
    questions: Iterator[Question],
    task: Task,
    tokenizer: "PreTrainedTokenizerBase",
    destination: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Tokenise questions into `destination`, a row a window, and return the facts for the data card."""
    backend = copy.deepcopy(tokenizer)._tokenizer
    facts: Counter[str] = Counter(rows=0)

    def batches() -> Iterator[dict[str, list[Any]]]:
        for batch in in_batches(questions, _QUESTIONS_TOGETHER):
            windows = [
                _columns_of(question, facts["rows"] + place, window)
                for place, question in enumerate(batch)
                for window in cut_windows(backend, question.text, question.context, task.max_length)
            ]
            facts["rows"] += len(batch)
            facts["without an answer"] += sum(not question.answers for question in batch)
            facts["windows"] += len(windows)
            facts["tokens"] += sum(len(window[TOKENS]) for window in windows)
            advance(len(batch))
            yield {name: [window[name] for window in windows] for name in windows[0]}

    write_token_table(destination, batches(), _COLUMNS)
    return {name: count for name, count in facts.items() if count or name == "rows"}


def cut_question(tokenizer: "Tokenizer", question: str, max_length: int) -> str:
    """As much of a question as is read: it takes less than half a window. The tokenizer's truncation is taken away."""
    tokenizer.no_truncation()
    alone = tokenizer.encode(question, add_special_tokens=False)
    # A pair has up to four special tokens.
    longest = max_length // 2 - 2
    return question[: alone.offsets[longest - 1][1]] if len(alone.ids) > longest else question


def cut_windows(tokenizer: "Tokenizer", question: str, context: str, max_length: int) -> list["Encoding"]:
    """A question with its context in windows of at most `max_length` tokens, which overlap by a third of that.

    Of a long question the beginning is read (see `cut_question`). The tokenizer's truncation is set here.
    """
    question = cut_question(tokenizer, question, max_length)
    tokenizer.no_padding()
    tokenizer.enable_truncation(
        max_length, stride=max(0, min(max_length // 3, max_length // 2 - 5)), strategy="only_second"
    )
    first = tokenizer.encode(question, context)
    return [first, *first.overflowing]


def context_spans(window: "Encoding") -> list[Span]:
    """Where each token is in the context, in characters; (-1, -1) for those of the question and special ones."""
    parts = zip(window.offsets, window.sequence_ids, strict=True)
    return [span if part == 1 and span[1] > span[0] else (NO_TOKEN, NO_TOKEN) for span, part in parts]


def _columns_of(question: Question, number: int, window: "Encoding") -> dict[str, Any]:
    spans = context_spans(window)
    gold_start, gold_end = _tokens_of(question.answers[0], spans) if question.answers else (0, 0)
    parts = window.sequence_ids
    return {
        TOKENS: window.ids,
        "question": number,
        "starts": [start for start, _ in spans],
        "ends": [end for _, end in spans],
        "gold_start": gold_start,
        "gold_end": gold_end,
        "first_length": parts.index(1) if 1 in parts else len(parts),
        "context": question.context,
        "asked": question.text,
        "answers": question.answer_texts,
    }


def _tokens_of(answer: Span, spans: list[Span]) -> tuple[int, int]:
    """The first and the last token of an answer; the first token of all where it is not in the window as a whole."""
    inside = [token for token, (start, end) in enumerate(spans) if start < answer[1] and end > answer[0]]
    if not inside or spans[inside[0]][0] > answer[0] or spans[inside[-1]][1] < answer[1]:
        return 0, 0
    return inside[0], inside[-1]
