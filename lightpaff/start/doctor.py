"""`lightpaff doctor`: what this machine has, and what that means for speed."""

import importlib.metadata
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import torch

from lightpaff.machine import busy_share, count_cores, describe_busyness, processor_flags, processor_name, versions_of
from lightpaff.runtimes import RUNTIMES, missing_packages
from lightpaff.training.device import fastest_precision

_PACKAGES = ("lightpaff", "torch", "transformers", "tokenizers", "accelerate", "numpy")
_SIDE, _TIMES = 1024, 5
_INSTRUCTIONS = {
    "avx512_bf16": "bf16 products",
    "amx_bf16": "bf16 products in tiles",
    "avx512_vnni": "int8 products",
    "avx_vnni": "int8 products",
    "amx_int8": "int8 products in tiles",
}


@dataclass(frozen=True)
class Finding:
    """One thing about the machine; `meaning` is what follows from it, if anything."""

    name: str
    value: str
    meaning: str = ""


def examine() -> list[Finding]:
    """Everything that decides how fast a run is here; multiplies a few matrices, for a second or two."""
    return [*_processor(), *_gpu(), *_memory(), *_versions(), *_runtimes()]


def _processor() -> Iterator[Finding]:
    cores = count_cores()
    yield Finding("system", f"{platform.system()} {platform.machine()}, Python {sys.version.split()[0]}")
    yield Finding("processor", f"{processor_name()}, {cores} cores")
    threads = torch.get_num_threads()
    fewer = "some cores are idle: is OMP_NUM_THREADS set?" if threads < cores else ""
    more = "more threads than cores wait for each other: set OMP_NUM_THREADS" if threads > cores else ""
    yield Finding("threads", str(threads), fewer or more)
    flags = processor_flags()
    for flag in _INSTRUCTIONS:
        if flag in flags:
            yield Finding(flag, "yes", _INSTRUCTIONS[flag])
    if not flags & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        yield Finding("int8", "no instructions", "int8 exports are smaller here, and only a little faster than float32")
    ratio = _matrix_seconds(torch.float32) / _matrix_seconds(torch.bfloat16)
    used = f"training uses {fastest_precision('cpu')} by itself"
    yield Finding("bf16 against float32", f"{ratio:.2g}x as fast, {_SIDE} x {_SIDE} products", used)
    if told := describe_busyness(busy_share()):
        yield Finding("just now", told, "measure again when it is idle")


def _matrix_seconds(dtype: torch.dtype) -> float:
    """The best of a few times."""
    matrix = torch.randn(_SIDE, _SIDE).to(dtype)
    seconds = []
    for _ in range(1 + _TIMES):
        started = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _gpu() -> Iterator[Finding]:
    if not torch.cuda.is_available():
        yield Finding("GPU", "none that torch sees", "training runs on the processor")
        return
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        yield Finding(
            f"GPU {number}", f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free", "training uses it"
        )


def _memory() -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    yield Finding("memory", f"{memory.available / 2**30:.0f} of {memory.total / 2**30:.0f} GiB free")
    disk = shutil.disk_usage(".")
    low = "little for checkpoints and stores: give another --output" if disk.free < 5 * 2**30 else ""
    yield Finding("disk here", f"{disk.free / 2**30:.0f} GiB free", low)


def _versions() -> Iterator[Finding]:
    for name, version in versions_of(_PACKAGES).items():
        yield Finding(name, version)


def _runtimes() -> Iterator[Finding]:
    for row in RUNTIMES.values():
        missing = missing_packages(row.runs_with)
        if missing:
            yield Finding(row.title, "not installed", 'pip install "lightpaff[export]"')
        else:
            yield Finding(row.title, f"{row.runs_with[0]} {importlib.metadata.version(row.runs_with[0])}")
