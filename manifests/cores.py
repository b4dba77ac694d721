"""The number of processor cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Callable


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    An affinity mask (``taskset``, Slurm, a container's cpuset) is respected where the platform has one; macOS has none,
    and all cores count there. Python 3.13 and newer also respect ``PYTHON_CPU_COUNT``.

    Returns:
        The number of cores.

    Example:
        >>> available_cores() >= 1
        True
    """
    count: Callable[[], int | None] | None = getattr(os, "process_cpu_count", None)  # Python 3.13
    if count is not None:
        return count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
