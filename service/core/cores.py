"""How many processor cores there are for this process."""

import os


def usable_cores() -> int:
    """Those that it may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
