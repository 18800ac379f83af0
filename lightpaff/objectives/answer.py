"""Extractive question answering: the part of a context that answers a question, or nothing.

A context longer than the model reads is cut into windows that overlap. A window has two targets, the token at which the
answer starts and that at which it ends; its classes are its tokens, the first of which stands for no answer.

Shapes: B windows of a batch, S tokens, W windows, V tokens that a window has at most.
"""

from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightpaff.data.draws import content_keys
from lightpaff.data.questions import read_questions, write_windows
from lightpaff.data.split_warnings import warn_of_repeated
from lightpaff.data.task_sources import SPLITS, TaskSources
from lightpaff.data.token_table import TokenTable, ragged
from lightpaff.errors import UserError
from lightpaff.evaluation.metrics import read_logits
from lightpaff.evaluation.outputs import Outputs
from lightpaff.evaluation.spans import ExtractedAnswers, Windows
from lightpaff.objectives import few_classes
from lightpaff.objectives.batch import Batch
from lightpaff.objectives.few_classes import logits_file, read_labels, write_labels
from lightpaff.objectives.objective import AnswerWords, Objective
from lightpaff.objectives.padding import mark_second, pad_tokens
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Task

NOTHING = "no answer"
"""The label that a task has whose questions may have none."""

counted = "questions"
has_baseline = False

# As in every objective with few classes.
answer = few_classes.answer
answer_tokens = few_classes.answer_tokens
describe_use = few_classes.describe_use
for_validation = few_classes.for_validation
run = few_classes.run
timing_inputs = few_classes.timing_inputs


class Answering:
    """Two targets a window: where its answer starts and where it ends.

    Args:
        file: what `write_windows` wrote.
        max_length: V.
        padding_id: of the padding token.
        has_segments: a model of the run tells question and context apart.
        may_be_nothing: questions may have no answer.
    """

    head = "spans"

    def __init__(
        self, file: Path, *, max_length: int, padding_id: int, has_segments: bool, may_be_nothing: bool
    ) -> None:
        self.number_of_classes, self.may_be_nothing = max_length, may_be_nothing
        self._file, self._rows, self._padding_id = file, TokenTable(file), padding_id
        self.lengths_N = self._rows.lengths_N
        self.targets_N = self.gold_targets_N = np.full(len(self._rows), 2)
        self.gold_ids = np.arange(len(self._rows))
        golds = (self._rows.column("gold_start"), self._rows.column("gold_end"))
        self._gold_W2 = np.array(golds, dtype=np.int64).T
        self._first_lengths_W = np.array(self._rows.column("first_length")) if has_segments else None

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """The windows as they are: nothing is drawn."""
        rows = [self._rows.tokens(int(i)) for i in example_ids]
        inputs = pad_tokens(rows, self._padding_id)
        keys_B = content_keys(rows)
        if self._first_lengths_W is not None:
            keys_B = content_keys(rows, self._first_lengths_W[example_ids])
            mark_second(inputs, self._first_lengths_W[example_ids])
        return Batch(
            inputs=inputs,
            positions_P=(torch.arange(len(example_ids)) * inputs["input_ids"].shape[1]).repeat_interleave(2),
            labels_P=torch.from_numpy(self._gold_W2[example_ids].reshape(-1)),
            example_ids_B=torch.from_numpy(example_ids.astype(np.int64)),
            keys_B=keys_B,
            draw=0,
        )

    def windows(self) -> Windows:
        """What is asked, for scoring."""
        question_W = np.array(self._rows.column("question"), dtype=np.int64)
        firsts = np.flatnonzero(np.diff(question_W, prepend=-1))
        contexts, answers = self._rows.column("context"), self._rows.column("answers")
        return Windows(
            question_W,
            ragged(TokenTable(self._file, "starts")),
            ragged(TokenTable(self._file, "ends")),
            [contexts[window] for window in firsts],
            [answers[window] for window in firsts],
            self._gold_W2,
        )

    def questions(self) -> list[tuple[str, str]]:
        """Each question with its context."""
        return list(dict.fromkeys(zip(self._rows.column("asked"), self._rows.column("context"), strict=True)))


def prepare_rows(
    task: Task, sources: TaskSources, vocabulary: Vocabulary, result: Path, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Check the splits of a task and cut them into windows in `result`; returns a data card a split.

    Raises:
        UserError: for rows that cannot be used, naming file and row.
    """
    cards: list[dict[str, Any]] = []
    for split in SPLITS:
        if not sources.of(split):
            continue
        dropped: Counter[str] = Counter()
        questions = read_questions(sources.of(split), task, dropped)
        first = next(questions, None)
        if first is None:
            names = ", ".join(source.source.path for source in sources.of(split))
            raise UserError(f"{names}: no row of {task.name} ({split}) has a question and a context")
        written = chain([first], questions)
        facts = write_windows(written, task, vocabulary.tokenizer, result / f"{split}.arrow", advance)
        cards.append({"split": split, "facts": facts, "dropped": dict(dropped), "warnings": []})
    write_labels(result, [NOTHING] if "without an answer" in cards[0]["facts"] else [])
    texts = {card["split"]: open_split(task, result, card["split"], vocabulary).questions() for card in cards}
    cards[0]["warnings"] += warn_of_repeated(texts.pop("train"), texts)
    return cards


def open_split(task: Task, rows: Path, split: str, vocabulary: Vocabulary) -> Answering:
    """A prepared split as an objective over windows."""
    return Answering(
        rows / f"{split}.arrow",
        max_length=task.max_length,
        padding_id=vocabulary.padding_id,
        has_segments=vocabulary.has_segments,
        may_be_nothing=bool(read_labels(rows)),
    )


def read_outputs(path: Path, data: Objective) -> ExtractedAnswers:
    """The answers that the logits of a split choose."""
    return outputs_of(read_logits(logits_file(path)), data)


def outputs_of(logits_TV: NDArray[np.float32], data: Objective) -> ExtractedAnswers:
    """The same."""
    assert isinstance(data, Answering)
    return ExtractedAnswers.of_logits(logits_TV, data.windows(), data.may_be_nothing)


def answer_words(task: Task) -> AnswerWords:
    """How the report speaks of the answers."""
    return AnswerWords("text", "texts", "of a logit")


def describe_timing(task: Task) -> str:
    """Of the report."""
    return "one window of a context at a time"


def describe_export(task: Task, rows: Path, data: Objective, vocabulary: Vocabulary) -> dict[str, Any]:
    """A reader, and whether it may say nothing."""
    return {"kind": "spans", "labels": read_labels(rows), "pairs": True, "segments": vocabulary.has_segments}


def notes(task: Task, outputs: Outputs) -> dict[str, str]:
    """What is counted."""
    return {"questions": "exact match and F1 as SQuAD counts them, over the best span of all windows of a context"}
