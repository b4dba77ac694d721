"""What a process and its children hold at most, and videos of any length to find out with."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import av


class TreeMemory:
    """The most that a process and its children held at once, in bytes.

    What they share with each other counts once. Pages of libraries count in full, as often as the process has them that
    has most: their proportional share would change with whatever else runs on the machine.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_bytes = 0

    def sample(self) -> None:
        told = [_kib(pid) for pid in [self._pid, *_children(self._pid)]]
        own_kib = sum(one.get("Pss_Anon", 0) + one.get("Pss_Shmem", 0) for one in told)
        files_kib = max(one.get("RssFile", 0) for one in told)
        self.peak_bytes = max(self.peak_bytes, (own_kib + files_kib) << 10)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in _read(task).split()]


def _kib(pid: int) -> dict[str, int]:
    """By kind of memory; nothing of a process that has ended."""
    lines = [
        line.split() for name in ("smaps_rollup", "status") for line in _read(Path(f"/proc/{pid}/{name}")).splitlines()
    ]
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1] == "kB"}


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
