"""Transfer stage: copies decoded chunks to the device, as uint8 and in their original layout."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..items import ChunkFailure, DecodedChunk
from ..system.accelerators import first_line, input_stream, is_out_of_memory, on_device

_LOG = logging.getLogger(__name__)

_PORTABLE = 1
"""cudaHostRegisterPortable: page-locked for all GPUs of the process."""


class Transfer:
    """Copies chunks to a device. On a CPU the frames stay in the decoder's buffer.

    A copy to a CUDA device runs on its own CUDA stream, in parallel with the networks; the decoder's buffer is
    released when the copy is complete.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copy: Callable[[NDArray[np.uint8]], torch.Tensor] | None = None
        if device.type == "cuda":
            self._copy = CudaCopy(device)
        elif device.type != "cpu":
            self._copy = lambda frames: torch.as_tensor(frames).to(device)

    def __call__(self, item: DecodedChunk) -> DecodedChunk | ChunkFailure:
        if self._copy is None:
            return replace(item, frames=torch.as_tensor(item.chunk.frames))
        try:
            return replace(item, frames=on_device(self._device, "transfer", partial(self._copy, item.chunk.frames)))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return ChunkFailure(item.plan, f"the device has too little memory for decoded frames: {first_line(error)}")
        finally:
            item.chunk.release()


class CudaCopy:
    """Copies a decoder buffer to a GPU and blocks only the calling thread until the copy is complete."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._locked = PageLocked(torch.cuda.cudart(), lambda: _forget_refusal(device))

    def __call__(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        with torch.cuda.stream(self._stream):
            if frames.size:
                self._locked.cover(frames)
            copied = torch.as_tensor(frames).to(self._device, non_blocking=True)
            done = self._stream.record_event()
        # the allocator must not reuse the memory for the next copy while kernels of the other stream read it
        copied.record_stream(input_stream(self._device))
        done.synchronize()
        return copied


class PageLocked:
    """Page-locks the decoders' shared buffers, each one from its first use until it is unmapped.

    The GPU then reads them directly. If the system refuses, the driver first copies them on a CPU core.
    """

    def __init__(self, cudart: Any, forget_refusal: Callable[[], None]) -> None:
        self._cudart = cudart
        self._forget_refusal = forget_refusal
        self._covered: set[int] = set()
        self._lock = threading.Lock()
        self._has_warned = False

    def cover(self, frames: NDArray[np.uint8]) -> None:
        """Page-lock the whole mapping that ``frames`` is a part of."""
        memory = _whole(frames)
        address = memory.ctypes.data
        with self._lock:
            if address in self._covered:
                return
            self._covered.add(address)
            status = int(self._cudart.cudaHostRegister(address, memory.nbytes, _PORTABLE))
            if status == 0:
                weakref.finalize(memory, self._uncover, address).atexit = False  # the driver may be unloaded by then
                return
            self._forget_refusal()
            weakref.finalize(memory, self._covered.discard, address).atexit = False
            if not self._has_warned:
                self._has_warned = True
                _LOG.warning(
                    "frames are copied to the GPU from unpinned memory, which is slower (CUDA error %d)", status
                )

    def _uncover(self, address: int) -> None:
        self._covered.discard(address)
        self._cudart.cudaHostUnregister(address)


def _forget_refusal(device: torch.device) -> None:
    """Clear the thread's last CUDA error, which torch would otherwise report for its next kernel."""
    with suppress(RuntimeError):
        torch.ones(1, device=device)


def _whole(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the array that owns the memory of a view; it lives as long as its memory is mapped."""
    while isinstance(part.base, np.ndarray):
        part = part.base
    return part
