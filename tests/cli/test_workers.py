"""Several workers on the command line: they exit with their run in every case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import Clip, write_clip

from arabesque.pipeline.store.concurrency.writer_locks import living_writers
from arabesque.pipeline.store.maintenance.verify import check_store

ARABESQUE = [sys.executable, "-c", "from arabesque.cli.main import app; app()"]
PATIENCE_S = 600


def until(condition, process=None):
    """Wait until ``condition`` returns a true value, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and (process is None or process.poll() is None):
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def writers(out: Path) -> set[int]:
    """Return the ids of the processes that write to a store."""
    locks = [path.read_text() for path in (out / ".writers").glob("*.lock")]
    return {json.loads(lock)["pid"] for lock in locks if lock}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
    ],
)
def test_two_workers_exit_with_their_run(tmp_path, number, status):
    (tmp_path / "videos").mkdir()
    for index in range(4):
        write_clip(tmp_path / "videos" / f"{index}.mp4", Clip(num_frames=2000, codec="mpeg4", options={}))
    command = ["extract", tmp_path / "videos", "--recipe", "starter", "--stream", "motion", "--out", tmp_path / "out"]
    with subprocess.Popen(
        [*ARABESQUE, *map(str, command), "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        until(lambda: len(writers(tmp_path / "out")) == 3, process)  # the run and two workers
        until(lambda: any((tmp_path / "out" / ".claims").glob("*.json")), process)
        pids = writers(tmp_path / "out")
        process.send_signal(number)
        process.wait(PATIENCE_S)
        assert process.stderr is not None
        said = "" if number == signal.SIGKILL else process.stderr.read()
    assert process.returncode == status, said
    assert "Traceback" not in said
    assert number == signal.SIGKILL or "remaining; 2 workers on cpu\n" in said
    until(lambda: all(map(is_gone, pids)))
    assert check_store(tmp_path / "out").findings == []
    assert not living_writers(tmp_path / "out")
