"""Memory and processor time of processes. A value that the system does not report is None."""

from __future__ import annotations

from pathlib import Path

import psutil

PROC = Path("/proc")


def resident_bytes(pid: int | None = None) -> int | None:
    """Resident memory of a process, by default this one."""
    try:
        return psutil.Process(pid).memory_info().rss
    except (psutil.Error, OSError):
        return None


def cpu_s(pid: int) -> float | None:
    """User and system time of a process in seconds."""
    try:
        times = psutil.Process(pid).cpu_times()
    except (psutil.Error, OSError):
        return None
    return times.user + times.system


def peak_bytes(pid: int | None = None) -> int | None:
    """Peak resident memory of a process, by default this one; since `forget_peak`, if that was called. Linux only.

    psutil reports no peak on Linux.
    """
    try:
        lines = (PROC / str(pid or "self") / "status").read_text().splitlines()
    except OSError:
        return None
    line = next((line for line in lines if line.startswith("VmHWM:")), None)
    return None if line is None else int(line.split()[1]) * 1024


def forget_peak() -> bool:
    """Reset the peak of this process. Returns False if the kernel does not allow it."""
    try:
        (PROC / "self" / "clear_refs").write_text("5")
    except OSError:
        return False
    return True
