"""What the machine is, and how busy: nothing here needs torch, so that deployment may ask too."""

import contextlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

BUSY = 0.2
"""From this share of the cores on, other processes are told of where something is timed."""


def count_cores() -> int:
    """Those that this process may run on, which taskset, a scheduler or a container may have cut down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_name() -> str:
    """As the system calls it."""
    return _processor_fact("model name") or platform.processor() or platform.machine()


def processor_maker() -> str:
    """Such as AuthenticAMD; where the system has no file about it, a text that names it, or nothing."""
    return _processor_fact("vendor_id") or platform.processor()


def processor_flags() -> set[str]:
    """The kinds of instructions that it has, as Linux names them."""
    return set(_processor_fact("flags").split())


def system_name() -> str:
    """Linux 6.1.0 x86_64"""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


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


def _processor_fact(name: str) -> str:
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
