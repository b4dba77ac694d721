"""Processor time and peak memory of a run's processes: this one and its decoders.

Other processes' times and peaks, and the peak since a moment of one's own, are known on Linux alone (`proc`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from ..decoding.slot_process import so_far
from ..proc import cpu_s, forget_peak, peak_bytes, resident_bytes


@dataclass(frozen=True)
class Spent:
    """What a measurement took."""

    wall_s: float
    cpu_s: float | None
    """Of this process, all threads, and of the decoders."""

    def scaled(self, wall: float, cpu: float | None = None) -> Spent:
        """So many times as much; processor time by ``wall``, too, unless it is given."""
        return Spent(self.wall_s * wall, None if self.cpu_s is None else self.cpu_s * (wall if cpu is None else cpu))


class Stopwatch:
    """Starts with its construction. ``pids``: the decoders."""

    def __init__(self, device: torch.device, pids: Iterable[int] = ()) -> None:
        self._device = device
        self._pids = list(pids)
        synchronise(device)
        self._cpu_s = self._total_cpu_s()
        self._began = time.perf_counter()

    def spent(self) -> Spent:
        """So far, the device's work included."""
        synchronise(self._device)
        wall_s = time.perf_counter() - self._began
        before, now = self._cpu_s, self._total_cpu_s()
        return Spent(wall_s, None if before is None or now is None else now - before)

    def _total_cpu_s(self) -> float | None:
        others = [cpu_s(pid) for pid in self._pids]
        known = [seconds for seconds in others if seconds is not None]
        return time.process_time() + sum(known) if len(known) == len(others) else None


@dataclass(frozen=True)
class PeakMemory:
    parent_bytes: int | None
    """Resident, since `reset_peaks`. Shared with the decoders: the windows."""
    decoder_bytes: int | None
    """Of the largest decoder, its windows included."""
    num_decoders: int
    device_bytes: int | None
    """As torch reserved it on a GPU; None on a CPU."""

    @property
    def total_bytes(self) -> int | None:
        """On the host, at most: windows count twice."""
        if self.parent_bytes is None or self.decoder_bytes is None:
            return None
        return self.parent_bytes + self.num_decoders * self.decoder_bytes


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all that was asked of it; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peaks(device: torch.device) -> None:
    """From now on `peaks` tells of what comes; of this process's memory only where the kernel lets it forget."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    forget_peak()


def peaks(device: torch.device, pids: Iterable[int]) -> PeakMemory:
    decoders = [peak_bytes(pid) for pid in pids]
    known = [peak for peak in decoders if peak is not None]
    return PeakMemory(
        parent_bytes=peak_bytes(),
        decoder_bytes=max(known) if known else None,
        num_decoders=len(decoders),
        device_bytes=torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None,
    )


def peaks_of_past(device: torch.device) -> PeakMemory:
    """Since this process began, its decoders having ended."""
    now = peaks(device, ())
    return replace(now, decoder_bytes=so_far.largest_bytes, num_decoders=so_far.most_at_once)


def memory_in_use(device: torch.device) -> int | None:
    """What networks take up: on a GPU as torch allocated it, on a CPU what is resident."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return resident_bytes()


def peak_in_use(device: torch.device) -> int | None:
    """The most of `memory_in_use` since `reset_peaks`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_bytes()
