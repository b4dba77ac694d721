"""Peak memory must not grow with a video's length."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

DANCER = Path(__file__).resolve().parents[3] / "shared" / "videos" / "dancer_518x496_25fps_63s.avi"
MEASURE = """
import resource, subprocess, sys
code = "from arabesque.cli.main import app; app()"
status = subprocess.call([sys.executable, "-c", code, *sys.argv[1:]], stdout=subprocess.DEVNULL)
assert status == 0, status
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Prints the peak resident memory, in KiB, of the largest process of a run."""


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
def test_ten_minutes_take_no_more_memory_than_one(tmp_path):
    peaks_kib = []
    for times in (1, 10):
        video = loop(DANCER, tmp_path / f"dancer_{times}.avi", times)
        arguments = ["extract", str(video), "--recipe", "starter", "--out", str(tmp_path / f"out_{times}")]
        measured = subprocess.run(
            [sys.executable, "-c", MEASURE, *arguments],
            capture_output=True,
            text=True,
            timeout=1200,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert measured.returncode == 0, measured.stderr
        peaks_kib.append(int(measured.stdout))
    assert peaks_kib[1] < 1.1 * peaks_kib[0], peaks_kib
