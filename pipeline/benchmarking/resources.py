"""Processor time and peak memory of a run's processes: this one and its decoders.

Peaks of other processes, and peaks since `reset_peaks`, are available on Linux only (`process_resources`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from ..decoding.decoder_pool import so_far
from ..system.accelerators import reports_memory
from ..system.process_resources import cpu_s, forget_peak, peak_bytes, resident_bytes


@dataclass(frozen=True)
class Spent:
    """Cost of a measurement."""

    wall_s: float
    cpu_s: float | None
    """Processor time of all threads of this process and of the decoders."""

    def scaled(self, wall: float, cpu: float | None = None) -> Spent:
        """Multiply the wall time by ``wall`` and the processor time by ``cpu`` (default: ``wall``)."""
        return Spent(self.wall_s * wall, None if self.cpu_s is None else self.cpu_s * (wall if cpu is None else cpu))


class Stopwatch:
    """Measures time from its construction. ``pids``: process ids of the decoders."""

    def __init__(self, device: torch.device, pids: Iterable[int] = ()) -> None:
        self._device = device
        self._pids = list(pids)
        synchronize(device)
        self._cpu_s = self._total_cpu_s()
        self._began = time.perf_counter()

    def spent(self) -> Spent:
        """Return the cost so far, including pending work of the device."""
        synchronize(self._device)
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
    """Peak resident memory since `reset_peaks`. The chunks are shared with the decoders."""
    decoder_bytes: int | None
    """Peak of the largest decoder, including its chunks."""
    num_decoders: int
    device_bytes: int | None
    """Memory that torch reserved on a GPU; None on a CPU."""

    @property
    def total_bytes(self) -> int | None:
        """Upper bound of the host memory; chunks count twice."""
        if self.parent_bytes is None or self.decoder_bytes is None:
            return None
        return self.parent_bytes + self.num_decoders * self.decoder_bytes


def synchronize(device: torch.device) -> None:
    """Wait until the device has completed its pending work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def reset_peaks(device: torch.device) -> None:
    """Reset the peaks of the device and, if the kernel allows it, of this process."""
    if reports_memory(device):
        torch.accelerator.empty_cache()
        torch.accelerator.reset_peak_memory_stats(device)
    forget_peak()


def peaks(device: torch.device, pids: Iterable[int]) -> PeakMemory:
    decoders = [peak_bytes(pid) for pid in pids]
    known = [peak for peak in decoders if peak is not None]
    return PeakMemory(
        parent_bytes=peak_bytes(),
        decoder_bytes=max(known) if known else None,
        num_decoders=len(decoders),
        device_bytes=torch.accelerator.max_memory_reserved(device) if reports_memory(device) else None,
    )


def peaks_of_past(device: torch.device) -> PeakMemory:
    """Return the peaks since this process began, after its decoders have ended."""
    now = peaks(device, ())
    return replace(now, decoder_bytes=so_far.largest_bytes, num_decoders=so_far.most_at_once)


def memory_in_use(device: torch.device) -> int | None:
    """Return the memory in use: allocated by torch on a GPU, resident on a CPU."""
    if reports_memory(device):
        return torch.accelerator.memory_allocated(device)
    return resident_bytes()


def peak_in_use(device: torch.device) -> int | None:
    """Return the peak of `memory_in_use` since `reset_peaks`."""
    if reports_memory(device):
        return torch.accelerator.max_memory_allocated(device)
    return peak_bytes()
