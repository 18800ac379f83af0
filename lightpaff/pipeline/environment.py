"""What a result must say about where it was made."""

import contextlib
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil
import torch

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
        "processor": describe_processor(torch.device("cpu")),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "device": describe_processor(device),
        "training precision": "bf16 autocast" if precision == "bf16" else precision,
        "threads": str(torch.get_num_threads()),
        "same bits again": f"yes, on this kind of {kind}" if hardware.deterministic else "no: deterministic is false",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": sys.version.split()[0],
        **versions_of(_PACKAGES),
    }


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


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
    for line in _lines_of(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


BUSY = 0.2
"""From this share of the cores on, other processes are told of where something is timed."""


def busy_share(seconds: float = 0.5) -> float:
    """The share of all cores that other processes use, looked at for a moment: 0 to 1."""
    own, before, started = time.process_time(), psutil.cpu_times(), time.monotonic()
    time.sleep(seconds)
    after, elapsed = psutil.cpu_times(), time.monotonic() - started
    idle = (after.idle - before.idle) + (getattr(after, "iowait", 0.0) - getattr(before, "iowait", 0.0))
    everything = elapsed * (os.cpu_count() or 1)
    return float(min(max(1 - idle / everything - (time.process_time() - own) / everything, 0.0), 1.0))


def describe_busyness(share: float) -> str:
    """What to say of a machine that others use; empty where they hardly do."""
    return f"the machine is busy: other processes use {share:.0%} of its cores" if share >= BUSY else ""


def describe_runtime(device: torch.device) -> str:
    """How models were timed."""
    threads = torch.get_num_threads()
    place = "GPU" if device.type == "cuda" else f"{threads} CPU {'thread' if threads == 1 else 'threads'}"
    return f"PyTorch float32, {place}"


def _lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
