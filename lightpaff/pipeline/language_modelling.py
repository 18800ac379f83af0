"""Language modelling as a task in the pipeline: perplexity in and out, and the time to continue a prompt.

Shapes: N windows, B prompts, S tokens.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from lightpaff.data.batch_order import sequential_batches
from lightpaff.data.draws import generator
from lightpaff.deployment.card import ExportCard
from lightpaff.deployment.runner import TokenRunner
from lightpaff.deployment.runtimes import RUNTIMES, open_runner
from lightpaff.evaluation.likelihoods import TokenLikelihoods, read_likelihoods, write_likelihoods
from lightpaff.evaluation.outputs import Outputs
from lightpaff.models.headed import HeadedModel
from lightpaff.objectives.clm import SlidingWindows
from lightpaff.objectives.objective import Objective
from lightpaff.objectives.vocabulary import Vocabulary
from lightpaff.progress import progress_bar
from lightpaff.recipe import Task
from lightpaff.targets.likelihood import measure_nll
from lightpaff.training.device import Hardware
from lightpaff.training.validation import validate_tokens

_TOKENS_SCORED_TOGETHER = 8192
_PROMPT_TOKENS = 32
_NEW_TOKENS = 32


def without_overlap(task: Task) -> Task:
    """Windows side by side: half the work, and enough to choose a checkpoint."""
    return task.model_copy(update={"stride": task.max_length})


def validate(
    data: Objective, task: Task, tokens_at_once: int, hardware: Hardware, model: HeadedModel
) -> dict[str, float]:
    """The mean negative log likelihood of all tokens, and the perplexity per token."""
    return validate_tokens(data, np.arange(len(data.lengths_N)), tokens_at_once, hardware, model)


def predict_likelihoods(
    model: HeadedModel,
    data: Objective,
    task: Task,
    vocabulary: Vocabulary,
    hardware: Hardware,
    path: Path,
    description: str,
) -> None:
    """The likelihood of every token of the split, once each, summed up a window, in float32."""
    assert isinstance(data, SlidingWindows)
    nll_N = measure_nll(model, data, _TOKENS_SCORED_TOGETHER, hardware.device, description)
    write_likelihoods(_file(path), TokenLikelihoods(nll_N, data.targets_N.astype(np.float64), data.words_N))


def predict_export(
    directory: Path, data: Objective, task: Task, vocabulary: Vocabulary, path: Path, description: str
) -> None:
    """An export's likelihood of every token of the split, once each, summed up a window."""
    assert isinstance(data, SlidingWindows)
    runner: TokenRunner = open_runner(directory, RUNTIMES[ExportCard.read(directory).format], "next_tokens")
    count = len(data.lengths_N)
    nll_N = np.zeros(count)
    with progress_bar(description, count, "windows") as advance:
        for ids in sequential_batches(data.lengths_N, np.arange(count), _TOKENS_SCORED_TOGETHER):
            scored = runner.nll([data.tokens(int(id_)).tolist() for id_ in ids])
            nll_N[ids] = [
                nll_S[-targets:].sum(dtype=np.float64)
                for nll_S, targets in zip(scored, data.targets_N[ids], strict=True)
            ]
            advance(len(ids))
    write_likelihoods(_file(path), TokenLikelihoods(nll_N, data.targets_N.astype(np.float64), data.words_N))


def read_outputs(path: Path, data: Objective) -> TokenLikelihoods:
    """The likelihoods of a split."""
    return read_likelihoods(_file(path))


def describe_timing(task: Task) -> str:
    """Of the report."""
    return f"{_NEW_TOKENS} tokens after a prompt of {_PROMPT_TOKENS}, greedy"


def answer_tokens(task: Task) -> int:
    """Written after every prompt."""
    return _NEW_TOKENS


def timing_inputs(data: Objective, count: int, turn: int, device: torch.device) -> dict[str, torch.Tensor]:
    """`count` prompts drawn from the split, all of one length."""
    width = min(_PROMPT_TOKENS, int(data.lengths_N.max()))
    long_enough = np.flatnonzero(data.lengths_N >= width)
    ids = long_enough[generator("order", 0, turn, count).integers(len(long_enough), size=count)]
    ids_BS = data.batch(np.sort(ids), draw=0).inputs["input_ids"][:, :width].to(device)
    return {"input_ids": ids_BS, "attention_mask": torch.ones_like(ids_BS)}


def run(
    model: PreTrainedModel, data: Objective, task: Task, vocabulary: Vocabulary, inputs: dict[str, torch.Tensor]
) -> object:
    """Continue the prompts, all to the same length."""
    return model.generate(
        **inputs,
        do_sample=False,
        num_beams=1,
        max_new_tokens=_NEW_TOKENS,
        min_new_tokens=_NEW_TOKENS,
        pad_token_id=vocabulary.padding_id,
    )


def notes(task: Task, outputs: Outputs) -> dict[str, str]:
    """How the perplexity was measured."""
    stride = task.stride or task.max_length // 2
    return {
        "perplexity": f"every token of the split scored once, in windows of {task.max_length} tokens that move on by "
        f"{stride}; a word is what white space separates, and each line end counts as one"
    }


def _file(path: Path) -> Path:
    return path.with_name(f"{path.name}.safetensors")
