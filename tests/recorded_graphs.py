"""Stand-ins for CUDA graphs and kernels: launches in a capture are recorded, and a replay executes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch

_capturing: list[Graph] = []
graphs: list[Graph] = []
"""All captured graphs"""


class Graph:
    """Replaces `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.launches: list[Callable[[], object]] = []
        self.num_replays = 0

    def replay(self) -> None:
        assert not _capturing
        self.num_replays += 1
        for launch in self.launches:
            launch()


@contextmanager
def _capture(cuda_graph: Graph, stream: object = None, capture_error_mode: str = "global") -> Iterator[None]:
    assert not _capturing
    _capturing.append(cuda_graph)
    try:
        yield
    finally:
        _capturing.clear()
    graphs.append(cuda_graph)


class RecordedKernel:
    """A kernel that is launched, or recorded in a capture."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getitem__(self, grid: Sequence[int]) -> Callable[..., None]:
        def launch(*arguments: Any, **options: Any) -> None:
            call = partial(self._kernel[grid], *arguments, **options)
            if _capturing:
                _capturing[-1].launches.append(call)
            else:
                call()

        return launch


def is_capturing() -> bool:
    return bool(_capturing)


def put_graphs(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Replace CUDA's graphs; return the list to which each captured one is added."""
    graphs.clear()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", _capture)
    monkeypatch.setattr(torch.cuda, "Stream", object)
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", Idle)
    return graphs


class Idle:
    """A stream without work."""

    def __init__(self, device: torch.device) -> None:
        pass

    def synchronize(self) -> None:
        pass
