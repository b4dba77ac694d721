"""Threads and memory of this process: one BLAS thread, and heap memory that is returned to the system.

NumPy's BLAS: between small products its other threads spin while they wait, which took a fifth of the time of a CPU run
(docs/measurements.md). Large products run in PyTorch's own threads.

Heap: glibc gives every thread its own arena and keeps freed memory in it. With large, short-lived arrays in a dozen
threads the peak grows during a run: by 14 % from one to ten minutes of video, by 3 % with `share_arenas` and
`malloc_trim`. With other C libraries (musl, macOS, Windows) both do nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

MAX_ARENAS = 2
_M_ARENA_MAX = -8  # from glibc's malloc.h


@contextmanager
def one_blas_thread() -> Generator[None]:
    """Limit every loaded OpenBLAS to one thread within the block (NumPy, SciPy and OpenCV contain one each).

    Does nothing without threadpoolctl, as on a machine that only runs the benchmark; set OPENBLAS_NUM_THREADS=1 there.
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
    """Let threads that start later share `MAX_ARENAS` arenas. Call it at the beginning of a run."""
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
