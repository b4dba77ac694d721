"""Errors of a device: lack of memory, which a smaller batch can avoid, and a lost GPU, which ends the run."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from ...manifests.errors import ArabesqueError
from .device_streams import on_input_stream

R = TypeVar("R")

_OUT_OF_MEMORY = (
    "can't allocate memory",  # torch on a CPU
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDA error: out of memory",
    "HIP error: out of memory",
    "backend out of memory",  # MPS, XPU
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocation failed, on the CPU or on a device. Some libraries raise a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def first_line(error: BaseException) -> str:
    """Return the first line of an error message; CUDA's have several."""
    return (str(error).splitlines() or [""])[0]


def require_device(device: torch.device, error: Exception, where: str) -> None:
    """Check after an error that the device still works.

    Errors of a GPU appear in any later call, also in one for another video. A GPU that has failed stays unusable for
    the process, so no video is to blame.

    Args:
        device: The device that the failed operation used.
        error: What it raised.
        where: Stage or stream, for the message.

    Raises:
        ArabesqueError: The device has failed; the run must end.
    """
    if device.type == "cpu" or not isinstance(error, RuntimeError) or is_out_of_memory(error):
        return
    try:
        torch.accelerator.synchronize(device)
    except RuntimeError as lost:
        raise ArabesqueError(
            f"the GPU has failed ({first_line(error)}, in {where}); run the same command again to continue"
        ) from lost


def release_memory(device: torch.device, error: BaseException) -> None:
    """Free the memory that a failed operation holds: the local variables in its traceback, and unused cached blocks.

    Call it after the ``except`` block has ended, or the block itself keeps the variables alive.
    """
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
    if device.type != "cpu":
        with suppress(RuntimeError):  # a lost device is reported by the next operation
            torch.accelerator.synchronize(device)  # a failed batch may be computing with inputs that are freed next
        torch.accelerator.empty_cache()


def on_device(device: torch.device, where: str, call: Callable[[], R]) -> R:
    """Call a function that computes the input of networks; if memory is short, once more after some was released.

    On a GPU it runs on the stream of the inputs; see `device_streams`.

    Args:
        device: The device.
        where: Stage, for the message if the device has failed.
        call: The function; it must be possible to call it twice.

    Raises:
        ArabesqueError: The device has failed; the run must end.
        Exception: What the function raises otherwise.
    """
    with on_input_stream(device):
        try:
            return call()
        except Exception as error:
            require_device(device, error, where)
            if not is_out_of_memory(error):
                raise
            failure = error
        release_memory(device, failure)
        return call()
