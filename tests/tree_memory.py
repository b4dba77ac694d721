"""What a process and its children hold at most, and videos of any length to find out with."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import av


class TreeMemory:
    """The most that a process and its children held at once, in bytes, shared memory counted once."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_bytes = 0

    def sample(self) -> None:
        held_kib = sum(map(_pss_kib, [self._pid, *_children(self._pid)]))
        self.peak_bytes = max(self.peak_bytes, held_kib << 10)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in _read(task).split()]


def _pss_kib(pid: int) -> int:
    """Each process's share: what two map counts half for either."""
    lines = _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _read(path: Path) -> str:
    """Empty where the process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def peak_bytes(process: subprocess.Popen[str]) -> int:
    """Of a process that has just been started, and of its children, until it ends.

    Twenty times a second, or less often where the kernel takes long to count: looking takes a fifth of a core at most.
    """
    memory = TreeMemory(process.pid)
    while process.poll() is None:
        began = time.perf_counter()
        memory.sample()
        time.sleep(max(0.05, 4 * (time.perf_counter() - began)))
    return memory.peak_bytes


def loop(source: Path, target: Path, times: int) -> Path:
    """The source's packets again and again, one after the other, not encoded anew.

    What a sound codec writes ahead of the first sample is left out where it would overlap the round before.
    """
    with av.open(source) as container, av.open(target, "w") as output:
        copies = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        latest: dict[int, int] = {}
        assert container.duration is not None
        length_s = container.duration / av.time_base
        for number in range(times):
            container.seek(0)
            for packet in container.demux():
                if packet.dts is None or packet.pts is None:
                    continue
                shift = round(number * length_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                place = packet.stream.index
                if packet.stream.type == "audio" and packet.dts <= latest.get(place, packet.dts - 1):
                    continue
                latest[place] = packet.dts
                packet.stream = copies[place]
                output.mux(packet)
    return target
