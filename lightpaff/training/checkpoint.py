"""The whole state of a training run on disk: safetensors and JSON, no pickle.

A checkpoint is a directory named after its step, whole or absent; the newest is kept. The data's order, the masks,
the dropout and the learning rate are functions of the seed and the step, so the step number is their state.
"""

import json
import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lightpaff.errors import UserError
from lightpaff.files import MANIFEST, read_manifest, whole_directory, write_json_whole
from lightpaff.training.sharding import like, whole

_MODEL, _OPTIMISER, _BEST, _STATE = "model.safetensors", "optimiser.safetensors", "best.safetensors", "state.json"

_HIGHEST = sys.float_info.max
"""JSON has no infinity."""


@dataclass
class Progress:
    """What the loop knows besides tensors.

    Attributes:
        step: optimiser steps done.
        best_score: of the best evaluation, higher is better.
        best_loss: its loss, which decides between equal scores.
        best_step: when that was; 0 before the first.
        seconds: spent in training, over all interruptions.
        targets: target positions seen up to the last record, by all ranks.
        tokens: non-padding tokens likewise.
        history: one record a logging interval.
        evaluations: one record an evaluation.
        running: sums since the last record.
    """

    step: int = 0
    best_score: float = -_HIGHEST
    best_loss: float = _HIGHEST
    best_step: int = 0
    seconds: float = 0.0
    targets: int = 0
    tokens: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    running: dict[str, float] = field(default_factory=dict)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer once, tied ones under their first name, whole and on the CPU."""
    return {name: _whole(tensor).clone() for name, tensor in _tensors_of(model).items()}


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put what `weights_of` gave back into a model of the same shape."""
    tensors = _tensors_of(model)
    assert tensors.keys() == weights.keys()
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(like(weights[name], tensor))


def save_checkpoint(
    directory: Path,
    fingerprint: str,
    weights: dict[str, Tensor],
    optimiser: dict[str, Tensor],
    best: dict[str, Tensor],
    progress: Progress,
) -> None:
    """Write the state after `progress.step` steps, then delete older ones.

    Args:
        weights: of `weights_of`.
        optimiser: of `optimiser_tensors`.
        best: the weights of the best evaluation.
    """
    path = directory / f"step-{progress.step:09d}"
    if not (path / MANIFEST).exists():
        with whole_directory(path, {"fingerprint": fingerprint}) as folder:
            save_file(weights, folder / _MODEL)
            save_file(optimiser, folder / _OPTIMISER)
            save_file(best, folder / _BEST)
            write_json_whole(folder / _STATE, asdict(progress))
    for other in directory.iterdir():
        if other != path:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(
    directory: Path, fingerprint: str, model: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Progress, dict[str, Tensor]] | None:
    """Restore the newest checkpoint into model and optimiser; None when there is none.

    Raises:
        UserError: when it does not match its manifest or belongs to other settings.
    """
    found = sorted(path for path in directory.glob("step-*") if path.is_dir())
    if not found:
        return None
    path = found[-1]
    facts = read_manifest(path)
    if facts.get("fingerprint") != fingerprint:
        raise UserError(f"{path}: is a checkpoint of another step or recipe; delete {directory} and run again")
    load_weights(model, load_file(path / _MODEL))
    _load_optimiser_tensors(model, optimiser, load_file(path / _OPTIMISER))
    state: dict[str, Any] = json.loads((path / _STATE).read_text())
    return Progress(**state), load_file(path / _BEST)


def optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimiser holds of each parameter, whole and on the CPU: on a CPU itself, and no copy, for memory."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{name_of[id(parameter)]}:{key}": _whole(value)
        for parameter, state in optimiser.state.items()
        for key, value in state.items()
    }


def _load_optimiser_tensors(model: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        parameter, key = name.rsplit(":", 1)
        owner = parameters[parameter]
        # The fused AdamW keeps even its step counter beside the parameter.
        optimiser.state[owner][key] = like(tensor, owner)


def _tensors_of(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _whole(tensor: Tensor) -> Tensor:
    return whole(tensor.detach()).cpu().contiguous()
