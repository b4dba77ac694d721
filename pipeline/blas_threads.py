"""Keeps NumPy's BLAS from spinning: between small products its second thread waits at full speed for the next one.

It took a fifth of a CPU run's time (benchmarks/README.md). Large products are PyTorch's, whose threads are its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Of every OpenBLAS that is loaded (NumPy, SciPy and OpenCV bring one each), within the block.

    On a machine that has little more than PyTorch and runs the benchmark only, threadpoolctl may be missing; there
    OPENBLAS_NUM_THREADS=1 does it.
    """
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        yield
        return
    with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
        yield
