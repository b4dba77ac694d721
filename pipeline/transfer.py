"""The transfer stage: decoded windows reach the device that computes, as uint8, in the layout in which they came."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .decoding.slots import Window
from .work import Passing, VideoPlan

_PORTABLE = 1
"""cudaHostRegisterPortable: page-locked for every card of the process."""


@dataclass(frozen=True, eq=False)
class DecodedWindow:
    """Some consecutive wanted frames of a video; ``frames`` are the window's own, on the device."""

    plan: VideoPlan
    window: Window
    frames: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.uint8))


class Transfer:
    """Brings windows to their device; to a CPU without a copy, in the slot's own memory.

    A copy to a CUDA device runs on a stream of its own, beside what the networks compute; the slot has its memory back
    as soon as it is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copy: Callable[[NDArray[np.uint8]], torch.Tensor] | None = None
        if device.type == "cuda":
            self._copy = CudaCopy(device)
        elif device.type != "cpu":
            self._copy = lambda frames: torch.from_numpy(frames).to(device)

    def __call__(self, item: DecodedWindow | Passing) -> DecodedWindow | Passing:
        if not isinstance(item, DecodedWindow):
            return item
        if self._copy is None:
            return replace(item, frames=torch.from_numpy(item.window.frames))
        try:
            return replace(item, frames=self._copy(item.window.frames))
        finally:
            item.window.release()


class CudaCopy:
    """From a slot's memory straight to the card. Blocks its thread, and nothing else, until the copy is there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._locked = PageLocked(torch.cuda.cudart(), lambda: _forget_refusal(device))

    def __call__(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        with torch.cuda.stream(self._stream):
            if frames.size:
                self._locked.cover(frames)
            copied = torch.from_numpy(frames).to(self._device, non_blocking=True)
            done = self._stream.record_event()
        # the allocator must not hand its memory to the next copy while kernels of the other stream still read it
        copied.record_stream(torch.cuda.default_stream(self._device))
        done.synchronize()
        return copied


class PageLocked:
    """Keeps the shared buffers that windows lie in page-locked, each from its first use until it is unmapped.

    The card then reads them by itself. Without (a system may refuse), the driver copies them on a CPU core first.
    """

    def __init__(self, cudart: Any, forget_refusal: Callable[[], None]) -> None:
        self._cudart = cudart
        self._forget_refusal = forget_refusal
        self._covered: set[int] = set()
        self._lock = threading.Lock()
        self._has_warned = False

    def cover(self, frames: NDArray[np.uint8]) -> None:
        """Locks the whole mapping that ``frames`` is a part of."""
        memory = _whole(frames)
        address = memory.ctypes.data
        with self._lock:
            if address in self._covered:
                return
            self._covered.add(address)
            status = int(self._cudart.cudaHostRegister(address, memory.nbytes, _PORTABLE))
            if status == 0:
                weakref.finalize(memory, self._uncover, address).atexit = False  # the driver may have gone by then
                return
            self._forget_refusal()
            weakref.finalize(memory, self._covered.discard, address).atexit = False
            if not self._has_warned:
                self._has_warned = True
                print(f"frames travel to the GPU unpinned, slower (CUDA error {status})", file=sys.stderr)

    def _uncover(self, address: int) -> None:
        self._covered.discard(address)
        self._cudart.cudaHostUnregister(address)


def _forget_refusal(device: torch.device) -> None:
    """It stays this thread's last error until torch asks for that: it would take its next kernel for failed."""
    with suppress(RuntimeError):
        torch.ones(1, device=device)


def _whole(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The array that a view was taken of, which lives as long as its memory is mapped."""
    while isinstance(part.base, np.ndarray):
        part = part.base
    return part
