"""What a result must say about where it was made."""

import os
import sys

import psutil
import torch

from lightpaff.machine import processor_name, system_name, versions_of
from lightpaff.training.device import Hardware

_MAKERS = ("torch", "transformers", "numpy")
_BITS = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "CUBLAS_WORKSPACE_CONFIG",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
)
"""Environment variables that change what the same products give."""
_PACKAGES = ("lightpaff", "torch", "transformers", "tokenizers", "accelerate", "datasets", "numpy", "scikit-learn")


def describe_environment(hardware: Hardware) -> dict[str, str]:
    """Versions and hardware, for the report."""
    device, precision = hardware.device, hardware.precision
    kind = "processor" if device.type == "cpu" else "GPU"
    return {
        "processor": processor_name(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "device": describe_processor(device),
        "training precision": "bf16 autocast" if precision == "bf16" else precision,
        "threads": str(torch.get_num_threads()),
        "same bits again": f"yes, on this kind of {kind}" if hardware.deterministic else "no: deterministic is false",
        "system": system_name(),
        "python": sys.version.split()[0],
        **versions_of(_PACKAGES),
    }


def describe_maker(device: torch.device) -> dict[str, str]:
    """Of the environment, what decides the last bits of a training's result."""
    return {
        **what_decides_bits(),
        "processor": describe_processor(device),
    }


def what_decides_bits() -> dict[str, str]:
    """Of the environment, what fingerprints cover.

    Not the processor, though it decides bits too: a run may move between machines, and the report says where each model
    was made.
    """
    settings = {name: os.environ[name] for name in _BITS if name in os.environ}
    return {**versions_of(_MAKERS), "threads": str(torch.get_num_threads()), **settings}


def describe_processor(device: torch.device) -> str:
    """The name of the GPU, or of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name()


def describe_runtime(device: torch.device) -> str:
    """How models were timed."""
    threads = torch.get_num_threads()
    place = "GPU" if device.type == "cuda" else f"{threads} CPU {'thread' if threads == 1 else 'threads'}"
    return f"PyTorch float32, {place}"
