"""Peak memory must not grow with a video's length."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

DANCER = Path(__file__).resolve().parents[3] / "shared" / "videos" / "dancer_518x496_25fps_63s.avi"


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


def extract(arguments: list[str]) -> int:
    """Carries out ``arabesque extract`` in a process of its own; its peak."""
    code = "from arabesque.cli.main import app; app()"
    command = [sys.executable, "-c", code, "extract", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        memory = TreeMemory(process.pid)
        while process.poll() is None:
            memory.sample()
            time.sleep(0.05)
    assert process.returncode == 0
    return memory.peak_bytes


def loop(source: Path, target: Path, times: int) -> Path:
    """The source's packets again and again, one after the other, not encoded anew."""
    with av.open(source) as container, av.open(target, "w") as output:
        copies = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        assert container.duration is not None
        length_s = container.duration / av.time_base
        for number in range(times):
            container.seek(0)
            for packet in container.demux():
                if packet.dts is not None and packet.pts is not None:
                    shift = round(number * length_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = copies[packet.stream.index]
                    output.mux(packet)
    return target


@pytest.mark.slow
@pytest.mark.skipif(not DANCER.exists(), reason="needs the real clips of ../shared")
@pytest.mark.parametrize("allowance", [[], ["--memory", "1500MiB"]], ids=["free", "bounded"])
def test_ten_minutes_take_no_more_memory_than_one(tmp_path, allowance):
    peaks = []
    for times in (1, 10):
        video = loop(DANCER, tmp_path / f"dancer_{times}.avi", times)
        out = str(tmp_path / f"out_{times}")
        peaks.append(extract([str(video), "--recipe", "starter", "--out", out, *allowance]))
    assert peaks[1] < 1.1 * peaks[0], peaks
    assert not allowance or max(peaks) < 1500 << 20, peaks
