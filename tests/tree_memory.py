"""Peak memory of a process and its children, and videos of any length to measure it with."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import av


class TreeMemory:
    """Peak memory of a process and its children together, in bytes.

    Memory that they share counts once. Of mapped files only the process with the most counts, in full: their
    proportional share would depend on other processes of the machine.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_bytes = 0

    def sample(self) -> None:
        processes = [_kib(pid) for pid in [self._pid, *_children(self._pid)]]
        own_kib = sum(one.get("Pss_Anon", 0) + one.get("Pss_Shmem", 0) for one in processes)
        files_kib = max(one.get("RssFile", 0) for one in processes)
        self.peak_bytes = max(self.peak_bytes, (own_kib + files_kib) << 10)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in _read(task).split()]


def _kib(pid: int) -> dict[str, int]:
    """Kind of memory → KiB; empty if the process has ended."""
    lines = [
        line.split() for name in ("smaps_rollup", "status") for line in _read(Path(f"/proc/{pid}/{name}")).splitlines()
    ]
    return {words[0].rstrip(":"): int(words[1]) for words in lines if words[-1] == "kB"}


def _read(path: Path) -> str:
    """Return the text of a file; empty if the process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


def peak_bytes(process: subprocess.Popen[str]) -> int:
    """Return the peak memory of a process and its children until it ends.

    Samples twenty times a second, or less often if sampling is slow: it uses a fifth of a core at most.
    """
    memory = TreeMemory(process.pid)
    while process.poll() is None:
        began = time.perf_counter()
        memory.sample()
        time.sleep(max(0.05, 4 * (time.perf_counter() - began)))
    return memory.peak_bytes


def loop(source: Path, target: Path, times: int) -> Path:
    """Write the source's packets repeatedly, without encoding them again.

    Priming packets of an audio codec are left out where they would overlap the repetition before.
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
