"""When and where something was measured, and how much else the machine had to do meanwhile.

Imports nothing of ours: the scripts of ``benchmarks/`` load this file beside other checkouts, too.
"""

from __future__ import annotations

import os
import platform
import time
from datetime import date
from pathlib import Path
from typing import Any

PROC = Path("/proc")


class Circumstances:
    """Of a measurement that starts with the construction."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._others_s = _others_cpu_s()

    def told(self) -> dict[str, Any]:
        """JSON. ``others_cores``: how many cores other processes kept busy so far, on average; None where not known.

        Children count as others until they have ended and been waited for.
        """
        before, now = self._others_s, _others_cpu_s()
        others = None if before is None or now is None else (now - before) / (time.perf_counter() - self._began)
        return {
            "date": date.today().isoformat(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "others_cores": None if others is None else round(max(0.0, others), 2),
        }


def processor() -> str:
    """Its maker's name for it."""
    try:
        lines = (PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _others_cpu_s() -> float | None:
    """Processor time of the machine since it started, this process's and its ended children's left out."""
    try:
        fields = (PROC / "stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq = map(int, fields[:7])
    own = os.times()
    busy_s = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return busy_s - (own.user + own.system + own.children_user + own.children_system)
