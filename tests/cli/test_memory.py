"""Peak memory does not grow with the length of a video."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tree_memory import loop, peak_bytes

DANCER = Path(__file__).resolve().parents[3] / "shared" / "videos" / "dancer_518x496_25fps_63s.avi"


def extract(arguments: list[str]) -> int:
    """Run ``arabesque extract`` in a child process and return its peak memory."""
    code = "from arabesque.cli.main import app; app()"
    command = [sys.executable, "-c", code, "extract", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment, text=True) as process:
        peak = peak_bytes(process)
    assert process.returncode == 0
    return peak


@pytest.mark.slow
@pytest.mark.skipif(not DANCER.exists(), reason="needs the real clips of ../shared")
@pytest.mark.parametrize("allowance", [[], ["--memory", "1800MiB"]], ids=["free", "bounded"])
def test_ten_minutes_take_no_more_memory_than_one(tmp_path, allowance):
    peaks = []
    for times in (1, 10):
        video = loop(DANCER, tmp_path / f"dancer_{times}.avi", times)
        out = str(tmp_path / f"out_{times}")
        peaks.append(extract([str(video), "--recipe", "starter", "--out", out, *allowance]))
    assert peaks[1] < 1.1 * peaks[0], peaks
    assert not allowance or max(peaks) < 1800 << 20, peaks
