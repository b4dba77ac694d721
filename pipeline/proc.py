"""What Linux's ``/proc`` tells of processes. Elsewhere nothing is known (None), and nothing is put in its place."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")


def resident_bytes(pid: int | None = None) -> int | None:
    """The memory that a process has, by default this one."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int | None = None) -> int | None:
    """The most that it had, since `forget_peak` where it is this one."""
    return _status_bytes(pid, "VmHWM")


def forget_peak() -> bool:
    """Of this process; False where the kernel does not let it."""
    try:
        (PROC / "self" / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def cpu_s(pid: int) -> float | None:
    """User and system time, by the clock tick."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status_bytes(pid: int | None, field: str) -> int | None:
    try:
        lines = (PROC / str(pid or "self") / "status").read_text().splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(field + ":")), None)
    return None if found is None else int(found.split()[1]) * 1024
