"""Translation, summarisation and the like in the pipeline: texts out, scored against references, and timed.

Shapes: N rows.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from lightpaff.data.batch_order import sequential_batches
from lightpaff.data.draws import generator
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.runner import TextRunner
from lightpaff.deployment.runtimes import RUNTIMES, open_runner
from lightpaff.evaluation.generation import generate, generation_settings
from lightpaff.evaluation.outputs import Outputs
from lightpaff.evaluation.texts import GeneratedTexts, read_texts, write_texts
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.translate import Translation
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.progress import progress_bar
from lightpaff.recipe import Task
from lightpaff.training.device import Hardware
from lightpaff.training.validation import validate_tokens

_SOURCE_TOKENS_TOGETHER = 8192
"""Over the beams: a row counts once a beam."""


def validate(
    data: Objective, task: Task, tokens_at_once: int, hardware: Hardware, model: HeadedModel
) -> dict[str, float]:
    """The mean negative log likelihood of the targets' tokens: generating would take much longer."""
    return validate_tokens(data, np.arange(len(data.lengths_N)), tokens_at_once, hardware, model)


def generate_rows(
    model: HeadedModel,
    data: Translation,
    task: Task,
    vocabulary: Vocabulary,
    hardware: Hardware,
    description: str,
) -> list[np.ndarray]:
    """What the model writes for every row, by beam search: token ids, ending in the end token where it came."""
    count = len(data.lengths_N)
    rows: list[np.ndarray] = [np.zeros(0, dtype=np.int32)] * count
    at_once = max(_SOURCE_TOKENS_TOGETHER // task.generation.beams, 1)
    model.eval()
    with progress_bar(description, count, "rows") as advance:
        for ids in sequential_batches(data.lengths_N, np.arange(count), at_once):
            inputs = {name: tensor.to(hardware.device) for name, tensor in data.source_inputs(ids).items()}
            for id_, row in zip(ids, _generate(model.model, data, task, vocabulary, inputs), strict=True):
                rows[id_] = row
            advance(len(ids))
    return rows


def predict_texts(
    model: HeadedModel,
    data: Objective,
    task: Task,
    vocabulary: Vocabulary,
    hardware: Hardware,
    path: Path,
    description: str,
) -> None:
    """Generated texts with their references."""
    assert isinstance(data, Translation)
    rows = generate_rows(model, data, task, vocabulary, hardware, description)
    _write(path, [row.tolist() for row in rows], data, vocabulary)


def predict_export(
    directory: Path, data: Objective, task: Task, vocabulary: Vocabulary, path: Path, description: str
) -> None:
    """What an export writes for every row, with the references."""
    assert isinstance(data, Translation)
    runner: TextRunner = open_runner(directory, RUNTIMES[ExportCard.read(directory).format], "target_tokens")
    count = len(data.lengths_N)
    rows: list[list[int]] = [[]] * count
    with progress_bar(description, count, "rows") as advance:
        for ids in sequential_batches(data.lengths_N, np.arange(count), _SOURCE_TOKENS_TOGETHER):
            inputs = data.source_inputs(ids)
            lengths = inputs["attention_mask"].sum(dim=1).tolist()
            sources = [row[:length] for row, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
            written = runner.write(
                sources,
                beams=task.generation.beams,
                length_penalty=task.generation.length_penalty,
                max_tokens=task.max_target_length,
            )
            for id_, row in zip(ids, written, strict=True):
                rows[id_] = row
            advance(len(ids))
    _write(path, rows, data, vocabulary)


def read_outputs(path: Path, data: Objective) -> GeneratedTexts:
    """The texts with their references."""
    return read_texts(_file(path))


def describe_timing(task: Task) -> str:
    """Of the report."""
    beams = task.generation.beams
    return f"one row at a time, {f'beam search with {beams} beams' if beams > 1 else 'greedy'}"


def answer_tokens(task: Task) -> int:
    """Written for every source, at most."""
    return task.max_target_length


def timing_inputs(data: Objective, count: int, turn: int, device: torch.device) -> dict[str, torch.Tensor]:
    """`count` sources drawn at random: the lengths are the task's own."""
    assert isinstance(data, Translation)
    ids = generator("order", 0, turn, count).integers(len(data.lengths_N), size=count)
    return {name: tensor.to(device) for name, tensor in data.source_inputs(np.sort(ids)).items()}


def run(
    model: PreTrainedModel, data: Objective, task: Task, vocabulary: Vocabulary, inputs: dict[str, torch.Tensor]
) -> object:
    """Write the targets as in the evaluation."""
    assert isinstance(data, Translation)
    return _generate(model, data, task, vocabulary, inputs)


def write_generation_settings(directory: Path, data: Objective, task: Task, vocabulary: Vocabulary) -> None:
    """Let the model's own `generate` write as in the evaluation (see `generate`): the target language first, by the
    same search, and without the habits that a ready-made model comes with."""
    assert isinstance(data, Translation)
    settings = generation_settings(
        decoder_start_id=data.decoder_start_id,
        end_id=vocabulary.tokenizer.eos_token_id,
        padding_id=vocabulary.padding_id,
        beams=task.generation.beams,
        length_penalty=task.generation.length_penalty,
        max_new_tokens=task.max_target_length,
        first_written_id=data.first_written_id,
    )
    settings.bos_token_id = vocabulary.tokenizer.bos_token_id
    settings.save_pretrained(directory)


def notes(task: Task, outputs: Outputs) -> dict[str, str]:
    """The settings of the metrics, so that others can compare."""
    assert isinstance(outputs, GeneratedTexts)
    found = outputs.signatures()
    return {metric: found[metric] for metric in task.metric_names}


def _write(path: Path, rows: list[list[int]], data: Translation, vocabulary: Vocabulary) -> None:
    hypotheses = vocabulary.tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    texts = GeneratedTexts([text.strip() for text in hypotheses], data.references(), data.sources())
    write_texts(_file(path), texts)


def _generate(
    model: PreTrainedModel, data: Translation, task: Task, vocabulary: Vocabulary, inputs: dict[str, torch.Tensor]
) -> list[np.ndarray]:
    return generate(
        model,
        inputs,
        decoder_start_id=data.decoder_start_id,
        end_id=vocabulary.tokenizer.eos_token_id,
        padding_id=vocabulary.padding_id,
        beams=task.generation.beams,
        length_penalty=task.generation.length_penalty,
        max_new_tokens=task.max_target_length,
        first_written_id=data.first_written_id,
    )


def completed(rows: list[np.ndarray], end_id: int) -> Iterator[np.ndarray]:
    """The rows as targets: what was cut off, or is empty, gets its end token."""
    for row in rows:
        yield row if len(row) and row[-1] == end_id else np.append(row, np.int32(end_id))


def _file(path: Path) -> Path:
    return path.with_name(f"{path.name}.jsonl")
