"""How many cores there are for this process."""

import os


def count_cores() -> int:
    """Those that it may run on, which taskset, a scheduler or a container may have cut down."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
