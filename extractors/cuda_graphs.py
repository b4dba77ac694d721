"""Capture a fixed sequence of launches as a CUDA graph, which the host replays with a single launch.

For ``--engine compile`` on CUDA. Written without a GPU: tests replace the graphs by ones that record calls; no card has
run it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

_LOG = logging.getLogger(__name__)
_CAPTURING = threading.Lock()
"""PyTorch captures one graph of a process at a time."""

T = TypeVar("T")


class Replay(Generic[T]):
    """A call that launches the same kernels on the same memory every time; for one thread.

    Args:
        launch: Launches the kernels. It must have run once: kernels are compiled and loaded in their first launch,
            which a capture cannot do. It must neither wait for the device nor read its memory on the host.
        device: The device of the kernels, which need not be the current one of this thread.
        name: Subject of the warning where the kernels cannot be captured; every call then launches them.
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
        """Launch the kernels. Return the result of the capture, whose memory the kernels fill again."""
        if self._graph is None:
            return self._launch()
        self._graph.replay()
        return self._result
