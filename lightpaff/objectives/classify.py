"""Language understanding (the paper's LU): one class, or one score, for one sentence or a pair.

Shapes: B examples, S tokens, N rows, V classes.
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
from lightpaff.data.split_warnings import warn_of_one_class, warn_of_repeated
from lightpaff.data.task_data import TaskRows, find_labels, read_examples, write_split
from lightpaff.data.task_sources import SPLITS, TaskSources
from lightpaff.data.token_table import TokenTable
from lightpaff.errors import UserError
from lightpaff.evaluation.metrics import Predictions, read_logits
from lightpaff.evaluation.outputs import Outputs
from lightpaff.objectives import few_classes
from lightpaff.objectives.batch import NO_GOLD_LABEL, Batch
from lightpaff.objectives.few_classes import logits_file, read_labels, write_labels
from lightpaff.objectives.objective import AnswerWords, Objective
from lightpaff.objectives.padding import mark_second, pad_tokens
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Task

counted = "rows"
has_baseline = True

# As in every objective with few classes.
answer = few_classes.answer
answer_tokens = few_classes.answer_tokens
describe_timing = few_classes.describe_timing
describe_use = few_classes.describe_use
for_validation = few_classes.for_validation
run = few_classes.run
timing_inputs = few_classes.timing_inputs


class Classification:
    """One target an example, at its first token.

    Args:
        rows: tokenised examples.
        labels_N: int64 classes with `NO_GOLD_LABEL`, or float32 scores with NaN, where there is no label.
        number_of_classes: V; 1 is regression.
        padding_id: of the padding token.
        first_lengths_N: for models with segments, how many tokens belong to the first sentence; else None.
        groups_N: the number of each row's group, where rows belong together.
    """

    head = "classes"

    def __init__(
        self,
        rows: TokenTable,
        labels_N: np.ndarray,
        *,
        number_of_classes: int,
        padding_id: int,
        first_lengths_N: np.ndarray | None,
        groups_N: np.ndarray | None = None,
    ) -> None:
        self.number_of_classes = number_of_classes
        self.lengths_N = rows.lengths_N
        self.targets_N = np.ones_like(self.lengths_N)
        self.labels_N = labels_N
        self.groups_N = groups_N
        is_score = labels_N.dtype.kind == "f"
        self.gold_targets_N = (~np.isnan(labels_N) if is_score else labels_N != NO_GOLD_LABEL).astype(np.int64)
        self.gold_ids = np.flatnonzero(self.gold_targets_N)
        self._rows, self._padding_id, self._first_lengths_N = rows, padding_id, first_lengths_N

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """The examples as they are: nothing is drawn."""
        rows = [self._rows.tokens(int(i)) for i in example_ids]
        inputs = pad_tokens(rows, self._padding_id)
        keys_B = content_keys(rows)
        if self._first_lengths_N is not None:
            keys_B = content_keys(rows, self._first_lengths_N[example_ids])
            mark_second(inputs, self._first_lengths_N[example_ids])
        return Batch(
            inputs=inputs,
            positions_P=torch.arange(len(example_ids)) * inputs["input_ids"].shape[1],
            labels_P=torch.from_numpy(self.labels_N[example_ids]),
            example_ids_B=torch.from_numpy(example_ids.astype(np.int64)),
            keys_B=keys_B,
            draw=0,
        )


def prepare_rows(
    task: Task, sources: TaskSources, vocabulary: Vocabulary, result: Path, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Check, label and tokenise the splits of a task into `result`; returns a data card a split.

    Raises:
        UserError: for rows that cannot be used, naming file and row.
    """
    labels = [] if task.objective == "regress" else find_labels(task, sources.train)
    write_labels(result, labels)
    cards = []
    for split in SPLITS:
        if sources.of(split):
            cards.append(_write_split(task, split, labels, sources, vocabulary, result, advance))
    opened = {card["split"]: TaskRows.open(result / f"{card['split']}.arrow") for card in cards}
    train = opened.pop("train")
    texts = {split: list(rows.texts()) for split, rows in opened.items()}
    evaluated = {text for rows in texts.values() for text in rows}
    if repeated := sum(text in evaluated for text in train.texts()):
        cards[0]["facts"]["also in validation or test"] = repeated
    cards[0]["warnings"] += warn_of_repeated(train.texts(), texts)
    return cards


def open_split(task: Task, rows: Path, split: str, vocabulary: Vocabulary) -> Classification:
    """A prepared split as an objective."""
    opened = TaskRows.open(rows / f"{split}.arrow")
    if task.objective == "regress":
        labels_N, classes = opened.labels_N.astype(np.float32), 1
    else:
        labels_N = np.where(np.isnan(opened.labels_N), NO_GOLD_LABEL, opened.labels_N).astype(np.int64)
        classes = len(read_labels(rows))
    return Classification(
        opened.tokens,
        labels_N,
        number_of_classes=classes,
        padding_id=vocabulary.padding_id,
        first_lengths_N=opened.first_lengths_N if vocabulary.has_segments and task.columns.text_pair else None,
        groups_N=opened.groups_N,
    )


def read_outputs(path: Path, data: Objective) -> Predictions:
    """The logits with the gold labels."""
    return outputs_of(read_logits(logits_file(path)), data)


def outputs_of(logits_NV: NDArray[np.float32], data: Objective) -> Predictions:
    """The same."""
    assert isinstance(data, Classification)
    return Predictions(logits_NV, data.labels_N, data.groups_N)


def describe_export(task: Task, rows: Path, data: Objective, vocabulary: Vocabulary) -> dict[str, Any]:
    """A classifier with its labels, or a scorer."""
    labels = read_labels(rows)
    return {
        "kind": "classes" if labels else "scores",
        "labels": labels,
        "pairs": task.columns.text_pair is not None,
        "segments": vocabulary.has_segments,
    }


def notes(task: Task, outputs: Outputs) -> dict[str, str]:
    """None."""
    return {}


def _write_split(
    task: Task,
    split: str,
    labels: list[str],
    sources: TaskSources,
    vocabulary: Vocabulary,
    result: Path,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    own = sources.of(split)
    dropped: Counter[str] = Counter()
    examples = read_examples(own, task, labels, dropped, gold="optional" if split == "train" else "needed")
    if split == "train":
        examples = chain(examples, read_examples(sources.unlabelled, task, labels, dropped, gold="ignored"))
    written = write_split(examples, vocabulary.tokenizer, task.max_length, result / f"{split}.arrow", advance)
    facts: dict[str, Any] = written["facts"]
    names = ", ".join(source.source.path for source in own)
    if not facts["rows"]:
        raise UserError(
            f"{names}: no row of {task.name} ({split}) has a text in column '{task.columns.text}'; "
            f"{dropped['empty text']} are empty: correct the file or set tasks.{task.name}.columns"
        )
    if split == "train" and written["labels"][None] == facts["rows"]:
        raise UserError(
            f"{names}: no training row of {task.name} has a label in column '{task.columns.label}'; "
            f"set tasks.{task.name}.columns.label"
        )
    if task.objective == "classify":
        counts = written["labels"]
        facts.update({f"label {name}": counts[number] for number, name in enumerate(labels)})
        if split == "train" and sum(counts[number] > 0 for number in range(len(labels))) < 2:
            raise UserError(f"{names}: the training rows of {task.name} are all of one class; classification needs two")
    if written["labels"][None]:
        facts["without a label"] = written["labels"][None]
    warnings = warn_of_one_class(split, {name: written["labels"][number] for number, name in enumerate(labels)})
    # Neither the task's name nor a path: other runs reuse this step under other names.
    return {"split": split, "facts": facts, "dropped": dict(dropped), "warnings": warnings}


def answer_words(task: Task) -> AnswerWords:
    """How the report speaks of the answers."""
    is_score = task.objective == "regress"
    return AnswerWords("score", "answers", "of a score") if is_score else AnswerWords("class", "answers", "of a logit")
