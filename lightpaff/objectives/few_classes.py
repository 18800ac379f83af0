"""What the objectives with few classes share: all logits are kept, so the teacher is asked once for every training row,
and metrics choose the checkpoint.

Shapes: T target positions of all examples, V classes.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from lightpaff.data.draws import generator
from lightpaff.evaluation.metrics import write_logits
from lightpaff.files import write_json_whole
from lightpaff.models.encoder import logits_of, without_unknown_segments
from lightpaff.objectives.answers import TOKENS_PREDICTED_TOGETHER, Answerer, ask_logits
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.recipe_sections import Task

_LABELS = "labels.json"


def write_labels(rows: Path, labels: list[str]) -> None:
    """Keep the classes of a task beside its prepared rows."""
    write_json_whole(rows / _LABELS, labels)


def read_labels(rows: Path) -> list[str]:
    """The classes of a prepared task, in order; none for a regression."""
    labels: list[str] = json.loads((rows / _LABELS).read_text())
    return labels


def for_validation(task: Task) -> Task:
    """As it is."""
    return task


def answer(
    answerer: Answerer, data: Objective, task: Task, vocabulary: Vocabulary, path: Path, description: str
) -> None:
    """Logits of every target: T x V, in float32."""
    write_logits(logits_file(path), ask_logits(answerer, data, TOKENS_PREDICTED_TOGETHER, description).numpy())


def logits_file(path: Path) -> Path:
    """Where `answer` writes them."""
    return path.with_name(f"{path.name}.safetensors")


def describe_timing(task: Task) -> str:
    """Of the report."""
    return "one row at a time"


def timing_inputs(data: Objective, count: int, turn: int, device: torch.device) -> dict[str, torch.Tensor]:
    """`count` rows drawn at random: the lengths are the task's own."""
    ids = generator("order", 0, turn, count).integers(len(data.lengths_N), size=count)
    return data.batch(np.sort(ids), draw=0).to(device).inputs


def answer_tokens(task: Task) -> int:
    """Nothing is written."""
    return 0


def run(
    model: PreTrainedModel, data: Objective, task: Task, vocabulary: Vocabulary, inputs: dict[str, torch.Tensor]
) -> object:
    """One forward pass."""
    return logits_of(model(**without_unknown_segments(model, inputs)))


def describe_use(directory: Path, data: Objective, task: Task, vocabulary: Vocabulary) -> None:
    """There is nothing to say."""
