"""The stream of a GPU on which the inputs of networks are computed, beside the stream of the networks.

On one stream, a copy to the host that `prepare` makes would wait for the batch that a network computes at the time. The
stages up to ``prepare`` share one stream, so that what they queue runs in their order. A network's batch waits for it
on the device, without the host.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch


def input_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of the stages before the networks; ``cuda`` and ``cuda:0`` have the same one."""
    return _stream(torch.cuda.current_device() if device.index is None else device.index)  # pyright: ignore[reportUnnecessaryComparison]


@cache
def _stream(index: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(index)


def on_input_stream(device: torch.device) -> AbstractContextManager[object]:
    """Queue the operations of a block, in this thread, on the stream of the stages before the networks."""
    return torch.cuda.stream(input_stream(device)) if device.type == "cuda" else nullcontext()


def await_inputs(device: torch.device) -> None:
    """Let what this thread queues next wait on the device for all inputs that are queued.

    The inputs may be freed when the results of the networks that read them are on the host.
    """
    if device.type == "cuda":
        torch.cuda.current_stream(device).wait_stream(input_stream(device))
