"""Tagging: one class for every word (named entities, parts of speech), read at the word's first token.

Shapes: B examples, S tokens, N rows, W words of a row, P target positions, T of all rows, V classes.
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
from lightpaff.data.split_warnings import warn_of_repeated
from lightpaff.data.tagged_words import TaggedRows, find_tags, read_tagged, write_tagged_split
from lightpaff.data.task_sources import SPLITS, TaskSources
from lightpaff.data.token_table import ragged
from lightpaff.errors import UserError
from lightpaff.evaluation.metrics import read_logits
from lightpaff.evaluation.outputs import Outputs
from lightpaff.evaluation.tags import TagPredictions, mark_entities
from lightpaff.objectives import few_classes
from lightpaff.objectives.batch import NO_GOLD_LABEL, Batch
from lightpaff.objectives.few_classes import logits_file, read_labels, write_labels
from lightpaff.objectives.objective import AnswerWords, Objective
from lightpaff.objectives.padding import pad_tokens
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Task

counted = "rows"
has_baseline = False

# As in every objective with few classes.
answer = few_classes.answer
answer_tokens = few_classes.answer_tokens
describe_timing = few_classes.describe_timing
describe_use = few_classes.describe_use
for_validation = few_classes.for_validation
run = few_classes.run
timing_inputs = few_classes.timing_inputs


class Tagging:
    """A target for every word that has a token.

    Args:
        rows: tokenised.
        names: of the classes.
        padding_id: of the padding token.

    Attributes:
        gold: a row's class of each word, `NO_GOLD_LABEL` where there is none.
        has_target: a row's words that have a token.
    """

    head = "token_classes"

    def __init__(self, rows: TaggedRows, names: list[str], padding_id: int) -> None:
        self.names, self.number_of_classes = names, len(names)
        self._rows, self._padding_id = rows.tokens, padding_id
        self.gold = ragged(rows.tags)
        self._starts = ragged(rows.starts)
        self.has_target = [starts_W >= 0 for starts_W in self._starts]
        self.lengths_N = rows.tokens.lengths_N
        self.targets_N = np.array([has_target_W.sum() for has_target_W in self.has_target], dtype=np.int64)
        is_gold = [(gold_W != NO_GOLD_LABEL) & has_W for gold_W, has_W in zip(self.gold, self.has_target, strict=True)]
        self.gold_targets_N = np.array([is_gold_W.sum() for is_gold_W in is_gold], dtype=np.int64)
        self.gold_ids = np.flatnonzero([(gold_W != NO_GOLD_LABEL).any() for gold_W in self.gold])

    def batch(self, example_ids: np.ndarray, draw: int) -> Batch:
        """The examples as they are: nothing is drawn."""
        rows = [self._rows.tokens(int(i)) for i in example_ids]
        inputs = pad_tokens(rows, self._padding_id)
        width = inputs["input_ids"].shape[1]
        kept = [
            (place * width, self._starts[i], self.gold[i], self.has_target[i]) for place, i in enumerate(example_ids)
        ]
        return Batch(
            inputs=inputs,
            positions_P=torch.from_numpy(np.concatenate([first + starts[has] for first, starts, _, has in kept])),
            labels_P=torch.from_numpy(np.concatenate([gold[has] for _, _, gold, has in kept])),
            example_ids_B=torch.from_numpy(example_ids.astype(np.int64)),
            keys_B=content_keys(rows, [self._starts[i] for i in example_ids]),
            draw=0,
        )


def prepare_rows(
    task: Task, sources: TaskSources, vocabulary: Vocabulary, result: Path, advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    """Check, label and tokenise the splits of a task into `result`; returns a data card a split.

    Raises:
        UserError: for rows that cannot be used, naming file and row; for entities to be scored where none are marked.
    """
    labels = find_tags(task, sources.train)
    if "entity_f1" in task.metric_names and not mark_entities(labels):
        raise UserError(
            f"tasks.{task.name}: its tags ({', '.join(labels[:5])}) mark no entities, as B-place and O do; set "
            f"tasks.{task.name}.metrics to [accuracy], or name the tags in tasks.{task.name}.labels"
        )
    write_labels(result, labels)
    cards: list[dict[str, Any]] = []
    for split in SPLITS:
        if not sources.of(split):
            continue
        dropped: Counter[str] = Counter()
        rows = read_tagged(sources.of(split), task, dropped, gold="optional" if split == "train" else "needed")
        if split == "train":
            rows = chain(rows, read_tagged(sources.unlabelled, task, dropped, gold="ignored"))
        facts = write_tagged_split(rows, task, labels, vocabulary.tokenizer, result / f"{split}.arrow", advance)
        if not facts["rows"]:
            names = ", ".join(source.source.path for source in sources.of(split))
            raise UserError(f"{names}: no row of {task.name} ({split}) has a word in column '{task.columns.text}'")
        cards.append({"split": split, "facts": facts, "dropped": dict(dropped), "warnings": []})
    texts = {card["split"]: TaggedRows.open(result / f"{card['split']}.arrow").texts() for card in cards}
    cards[0]["warnings"] += warn_of_repeated(texts.pop("train"), {split: list(rows) for split, rows in texts.items()})
    return cards


def open_split(task: Task, rows: Path, split: str, vocabulary: Vocabulary) -> Tagging:
    """A prepared split as an objective."""
    return Tagging(TaggedRows.open(rows / f"{split}.arrow"), read_labels(rows), vocabulary.padding_id)


def read_outputs(path: Path, data: Objective) -> TagPredictions:
    """The logits with the gold tags."""
    return outputs_of(read_logits(logits_file(path)), data)


def outputs_of(logits_TV: NDArray[np.float32], data: Objective) -> TagPredictions:
    """The same."""
    assert isinstance(data, Tagging)
    return TagPredictions(data.names, data.gold, data.has_target, np.split(logits_TV, np.cumsum(data.targets_N)[:-1]))


def describe_export(task: Task, rows: Path, data: Objective, vocabulary: Vocabulary) -> dict[str, Any]:
    """A tagger with its tags."""
    return {"kind": "token_classes", "labels": read_labels(rows), "segments": False}


def notes(task: Task, outputs: Outputs) -> dict[str, str]:
    """What is counted."""
    return {"words": "accuracy is over words, and a word that was cut off counts as outside of any entity, or wrong"}


def answer_words(task: Task) -> AnswerWords:
    """How the report speaks of the answers."""
    return AnswerWords("tags", "tags", "of a logit")
