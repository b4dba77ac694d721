"""Date and machine of a measurement, and the load by other processes during it.

Imports no module of this package, because the scripts in ``benchmarks/`` also load this file in other checkouts.
"""

from __future__ import annotations

import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

import psutil

PROC = Path("/proc")


class Circumstances:
    """Circumstances of a measurement that starts with the construction."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._others_s = _others_cpu_s()

    def as_dict(self) -> dict[str, Any]:
        """Return the circumstances as JSON data.

        ``others_cores`` is the average number of cores that other processes used so far. Child processes count as
        others until they have ended and been waited for.
        """
        others = (_others_cpu_s() - self._others_s) / (time.perf_counter() - self._began)
        return {
            "date": date.today().isoformat(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "others_cores": round(max(0.0, others), 2),
        }


def processor() -> str:
    """Return the model name of the processor."""
    try:
        lines = (PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def processor_extensions() -> list[str]:
    """Return the processor's vector and matrix instructions, which affect the speed of networks; empty if unknown."""
    try:
        lines = (PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), list[str]())
    return [flag for flag in flags if flag.startswith(("avx", "amx", "fma"))]


def _others_cpu_s() -> float:
    """Return the processor time of the machine since it started, without this process and its ended children."""
    times, own = psutil.cpu_times(), os.times()
    busy_s = sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq"))
    return busy_s - (own.user + own.system + own.children_user + own.children_system)
