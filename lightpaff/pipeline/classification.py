"""Classification and regression in the pipeline: logits in, metrics and times out.

Shapes: N rows, V classes.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from lightpaff.data.batch_order import sequential_batches
from lightpaff.data.draws import generator
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.runner import ClassRunner
from lightpaff.deployment.runtimes import RUNTIMES, open_runner
from lightpaff.evaluation.metrics import Predictions
from lightpaff.models.encoder import without_unknown_segments
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.classify import Classification
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.progress import progress_bar
from lightpaff.recipe import Task
from lightpaff.targets.teacher import load_targets, predict, store_targets
from lightpaff.training.device import Hardware
from lightpaff.training.validation import validate_classes

TOKENS_PREDICTED_TOGETHER = 16384


def validate(
    data: Objective, task: Task, tokens_at_once: int, hardware: Hardware, model: HeadedModel
) -> dict[str, float]:
    """The task's metrics; the first one is the score."""
    assert isinstance(data, Classification)
    return validate_classes(data, task.metric_names, tokens_at_once, hardware, model)


def predict_logits(
    model: HeadedModel,
    data: Objective,
    task: Task,
    vocabulary: Vocabulary,
    hardware: Hardware,
    path: Path,
    description: str,
) -> None:
    """Logits of every row, in float32, as the model will be used."""
    store_targets(predict(model, data, TOKENS_PREDICTED_TOGETHER, hardware.device, description), _file(path))


def predict_export(
    directory: Path, data: Objective, task: Task, vocabulary: Vocabulary, path: Path, description: str
) -> None:
    """An export's logits of every row."""
    runner: ClassRunner = open_runner(directory, RUNTIMES[ExportCard.read(directory).format], "classes")
    count = len(data.lengths_N)
    logits_NV = np.empty((count, data.number_of_classes), dtype=np.float32)
    with progress_bar(description, count, "rows") as advance:
        for ids in sequential_batches(data.lengths_N, np.arange(count), TOKENS_PREDICTED_TOGETHER):
            inputs = {name: tensor.numpy() for name, tensor in data.batch(ids, draw=0).inputs.items()}
            logits_NV[ids] = runner.logits(inputs["input_ids"], inputs["attention_mask"], inputs.get("token_type_ids"))
            advance(len(ids))
    store_targets(torch.from_numpy(logits_NV), _file(path))


def read_outputs(path: Path, data: Objective) -> Predictions:
    """The logits with the gold labels."""
    assert isinstance(data, Classification)
    return Predictions(load_targets(_file(path)).numpy(), data.labels_N, data.groups_N)


def answer_tokens(task: Task) -> int:
    """Nothing is written."""
    return 0


def timing_inputs(data: Objective, count: int, turn: int, device: torch.device) -> dict[str, torch.Tensor]:
    """`count` rows drawn at random: the lengths are the task's own."""
    ids = generator("order", 0, turn, count).integers(len(data.lengths_N), size=count)
    return data.batch(np.sort(ids), draw=0).to(device).inputs


def run(
    model: PreTrainedModel, data: Objective, task: Task, vocabulary: Vocabulary, inputs: dict[str, torch.Tensor]
) -> object:
    """One forward pass."""
    return model(**without_unknown_segments(model, inputs)).logits


def _file(path: Path) -> Path:
    return path.with_name(f"{path.name}.safetensors")
