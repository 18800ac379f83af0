"""Weights, gradients and the optimiser's state split over the ranks (FSDP2), for models that no rank can hold whole.

A layer at a time is gathered for its forward and backward pass; evaluations and checkpoints see the whole model.
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
        model: the part of it whose layers are split, by the names that transformers knows them by.
        device: what the ranks train on.
    """
    mesh = init_device_mesh(device.type, (ranks.count(),))
    layers = set(model._no_split_modules or ())
    for part in list(model.modules()):
        # Embeddings may be tied to the output layer, which is part of the rest.
        has_embedding = any(isinstance(inner, nn.Embedding) for inner in part.modules())
        if type(part).__name__ in layers and not has_embedding:
            fully_shard(part, mesh=mesh)
    fully_shard(module, mesh=mesh)


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
