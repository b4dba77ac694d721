"""Capture a fixed sequence of launches as a CUDA graph, which the host replays with a single launch.

Used by ``--engine compile`` on CUDA. Written without a GPU: tests replace the graphs by objects that record calls; it
has not run on a GPU.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

_LOG = logging.getLogger(__name__)
_CAPTURING = threading.Lock()
"""PyTorch can capture only one graph of a process at a time."""

T = TypeVar("T")


class Replay(Generic[T]):
    """A call that launches the same kernels on the same memory every time, for use in one thread.

    Args:
        launch: Launches the kernels. It must have run once before, because kernels are compiled and loaded in their
            first launch, which cannot be captured. It must not wait for the device or read its memory on the host.
        device: The device of the kernels. It need not be the current device of this thread.
        name: Name in the warning if the kernels cannot be captured. Every call then launches them one by one.
    """

    def __init__(self, launch: Callable[[], T], device: torch.device, name: str) -> None:
        self._launch = launch
        graph = torch.cuda.CUDAGraph()
        try:
            # kernels are not executed here; other threads may allocate memory
            with (
                _CAPTURING,
                torch.cuda.device(device),
                torch.cuda.graph(graph, stream=torch.cuda.Stream(), capture_error_mode="thread_local"),
            ):
                self._result = launch()
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            _LOG.warning("%s: no CUDA graph (%s); the kernels are launched one by one", name, reason)
            self._graph = None
        else:
            self._graph = graph

    def __call__(self) -> T:
        """Launch the kernels and return the result of the capture, whose memory they overwrite."""
        if self._graph is None:
            return self._launch()
        self._graph.replay()
        return self._result
