"""Weights, gradients and the optimiser's state split over the ranks while they train (FSDP2).

A layer at a time is put together for its forward and backward pass. A model is opened whole, and whole again while it
is evaluated or saved: what is saved is the gradients' and the optimiser's room, three times that of the weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from lightpaff import ranks


def shard(module: nn.Module, model: PreTrainedModel, device: torch.device) -> None:
    """Split a module over the ranks in place: its layers each for itself, the rest together.

    Args:
        module: what is called in a training step.
        model: the part of it whose layers are split.
        device: what the ranks train on.
    """
    mesh = init_device_mesh(device.type, (ranks.count(),))
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """What its outermost lists hold; embeddings, which may be tied to the output layer, are in none."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """While inside, every rank holds all weights of a module; without effect on one that is not split. Ranks may then
    do different things with it."""
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    yield
    for part in parts:
        part.set_reshard_after_forward(part is not module, recurse=False)
        part.reshard()


def whole(tensor: Tensor) -> Tensor:
    """A tensor, put together where it is split; all ranks have to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, on the device of another one and split as it is; all ranks have to call it."""
    moved = tensor.to(model.device)
    if not isinstance(model, DTensor) or tensor.shape != model.shape:
        return moved
    return distribute_tensor(moved, model.device_mesh, model.placements)


def make_whole(module: nn.Module) -> None:
    """Put all weights of a module together for good, to be saved and no longer trained."""
    made: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            if isinstance(parameter, DTensor):
                # Tied ones stay tied.
                made.setdefault(id(parameter), nn.Parameter(whole(parameter.detach())))
                setattr(part, name, made[id(parameter)])
