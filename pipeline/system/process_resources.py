"""Cores, threads, memory and processor time of processes. A value that the system does not report is None.

NumPy's BLAS: between small products its other threads wait actively, which took a fifth of the time of a run on a CPU
(docs/measurements.md). Large products run in PyTorch's threads.

Heap: glibc gives every thread a separate arena, in which freed memory stays. With large, short-lived arrays in a dozen
    threads the peak memory grows during a run: from one to ten minutes of video by 14 %, or by 3 % with `share_arenas`
    and `malloc_trim`. With other C libraries (musl, macOS, Windows) both functions do nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psutil

MAX_ARENAS = 2
PROC = Path("/proc")
_M_ARENA_MAX = -8  # from glibc's malloc.h


def available_cores() -> int:
    """Return the number of cores that this process may use, at least 1.

    An affinity mask (``taskset``, Slurm, a container's cpuset) is respected if the platform has one. macOS has none,
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


@contextmanager
def one_blas_thread() -> Generator[None]:
    """Limit every loaded OpenBLAS to one thread within the block (NumPy, SciPy and OpenCV contain one each).

    Without threadpoolctl, as on a machine that only runs the benchmark, it does nothing; set OPENBLAS_NUM_THREADS=1
    there.
    """
    try:
        from threadpoolctl import ThreadpoolController  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        yield
        return
    controller: Any = ThreadpoolController()
    with controller.select(internal_api="openblas").limit(limits=1):
        yield


def share_arenas() -> None:
    """Let threads that start later share `MAX_ARENAS` arenas. Call it at the start of a run."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_ARENA_MAX, MAX_ARENAS)


def malloc_trim() -> None:
    """Return freed memory to the system. Takes a few milliseconds."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "malloc_trim") and hasattr(libc, "mallopt") else None


def resident_bytes(pid: int | None = None) -> int | None:
    """Return the resident memory of a process, by default this one."""
    try:
        return psutil.Process(pid).memory_info().rss
    except (psutil.Error, OSError):
        return None


def cpu_s(pid: int) -> float | None:
    """Return the user and system time of a process in seconds."""
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError):
        return None
    return times.user + times.system


def peak_bytes(pid: int | None = None) -> int | None:
    """Return the peak resident memory of a process, by default this one, since the last `forget_peak`. Linux only.

    psutil reports no peak on Linux.
    """
    try:
        lines = (PROC / str(pid or "self") / "status").read_text().splitlines()
    except OSError:
        return None
    line = next((line for line in lines if line.startswith("VmHWM:")), None)
    return None if line is None else int(line.split()[1]) * 1024


def forget_peak() -> bool:
    """Reset the peak of this process. Returns False if the kernel does not allow it."""
    try:
        (PROC / "self" / "clear_refs").write_text("5")
    except OSError:
        return False
    return True
