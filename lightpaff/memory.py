"""How a CPU's memory is handed out while a model works on batch after batch, and how much of it was taken."""

import ctypes
import re
import sys
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let the allocator keep what is freed, for the next batch, in place of giving it back to the system.

    By default glibc maps every large tensor anew, and the kernel fills its pages with zeros when they are touched: a
    fifth of a step's time. Does nothing where the system's library is another.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)


def highest_resident_bytes() -> int:
    """The most memory that this process ever held; where the system does not say, what it holds now.

    Unlike getrusage's, not that of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)):
        return 1024 * int(found[1])
    # Seldom needed; and its own megabytes would be measured too.
    import psutil

    return int(psutil.Process().memory_info().rss)
