"""How many processors this process may use."""

import os


def cores() -> int:
    """Those it is bound to where the system says so (Linux), else all; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
