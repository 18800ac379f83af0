"""Where and in which precision training runs."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from lightpaff.errors import UserError
from lightpaff.machine import processor_maker
from lightpaff.recipe import Recipe


@dataclass(frozen=True)
class Hardware:
    """The device and the precision of a run.

    Attributes:
        device: what tensors live on.
        precision: `bf16` (autocast; weights and optimiser stay float32) or `float32`.
        deterministic: of a GPU: whether the same work gives the same bits again.
    """

    device: torch.device
    precision: str
    deterministic: bool = True

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which the forward pass runs."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def attention(self) -> str:
        """The attention implementation of transformers: on CPUs the plain one trains fastest at BERT's lengths."""
        return "eager" if self.device.type == "cpu" else "sdpa"


def choose_hardware(recipe: Recipe) -> Hardware:
    """The recipe's device and precision, `auto` resolved on this machine.

    Raises:
        UserError: when the recipe asks for a device that is not there.
    """
    has_cuda = torch.cuda.is_available()
    if recipe.device == "cuda" and not has_cuda:
        raise UserError("device: 'cuda' is not available on this machine; set device to cpu or auto")
    wanted = "cuda" if has_cuda and recipe.device != "cpu" else "cpu"
    precision = recipe.precision
    if precision == "auto":
        precision = fastest_precision(wanted)
    if wanted == "cuda" and recipe.deterministic:
        _ask_for_the_same_bits()
    return Hardware(torch.device(wanted), precision, wanted == "cpu" or recipe.deterministic)


def _ask_for_the_same_bits() -> None:
    """Of CUDA's libraries; before any of them is used."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # What has no such kernel is told of by torch, and used all the same.
    torch.use_deterministic_algorithms(True, warn_only=True)


@contextlib.contextmanager
def without_settings_from(*prefixes: str) -> Iterator[None]:
    """Hide environment variables that begin so: a training does what its recipe says, whoever launched it."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith(prefixes)}
    try:
        yield
    finally:
        os.environ.update(hidden)


def fastest_precision(device: str) -> Literal["bf16", "float32"]:
    """In which training takes least time there."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # Without these instructions bf16 is emulated. With them AMD's vector units and Intel's tiles (AMX) multiply several
    # times as fast as in float32, and Intel's vector units half as fast: whole steps of a BERT took 1.4 to 1.7 times as
    # long where a virtual machine hides the tiles.
    is_quick = torch.cpu._is_amx_tile_supported() or "AuthenticAMD" in processor_maker()
    return "bf16" if torch.cpu._is_avx512_bf16_supported() and is_quick else "float32"
