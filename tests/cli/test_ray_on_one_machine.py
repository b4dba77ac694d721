"""``extract --executor ray`` on one machine: no port is reachable from outside, and a kill loses no row."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from clips import Clip, write_clip
from store_contents import stored_rows

from arabesque.pipeline.store.maintenance.verify import check_store

ARABESQUE = (sys.executable, "-c", "from arabesque.cli.main import app; app()")
PATIENCE_S = 600.0
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
"""127.0.0.1, ::1 and 127.0.0.1 as an IPv6 address, as the kernel writes them."""

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="looks at processes in /proc")


class RayRun:
    """A run that started its own cluster, and all its processes."""

    def __init__(self, videos: Path, out: Path, workers: int) -> None:
        self.mark = f"ARABESQUE_TEST={secrets.token_hex(8)}"
        command = ["extract", videos, "--recipe", "starter", "--stream", "motion", "--out", out]
        command += ["--executor", "ray", "--workers", workers, "--cpus-per-worker", 1]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        name, _, value = self.mark.partition("=")
        self.process = subprocess.Popen(
            [*ARABESQUE, *map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {name: value, "OMP_NUM_THREADS": "1"},
        )

    def processes(self) -> dict[int, str]:
        """Process id → title."""
        found: dict[int, str] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                        found[int(folder.name)] = title
        return found

    def number_of(self, name: str) -> int:
        """Wait for the process whose title contains this text, and return it."""
        return until(
            lambda: next((number for number, title in self.processes().items() if name in title), 0), self.process
        )


@contextmanager
def ray_run(videos: Path, out: Path, workers: int = 1) -> Iterator[RayRun]:
    run = RayRun(videos, out, workers)
    try:
        yield run
    finally:
        for number in [run.process.pid, *run.processes()]:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        run.process.communicate()


def until(condition: Callable[[], int], process: subprocess.Popen[str] | None = None) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if process is not None and process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(f"the run ended, {process.returncode}: {process.stderr.read()}")
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def has_begun(out: Path) -> Callable[[], int]:
    """Return a condition: a worker has claimed a video."""
    return lambda: len(list((out / ".claims").glob("*.json")))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for index in range(4):
        write_clip(folder / f"{index}.mp4", Clip(num_frames=1000))
    return folder


def listening(numbers: dict[int, str]) -> dict[str, str]:
    """Title and port → address on which the process listens, in the notation of the kernel."""
    addresses: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A":
                addresses[f"socket:[{inode}]"] = local
    found: dict[str, str] = {}
    for number, title in numbers.items():
        for link in Path(f"/proc/{number}/fd").glob("*"):
            with suppress(OSError):
                if (local := addresses.get(os.readlink(link))) is not None:
                    address, _, port = local.partition(":")
                    found[f"{Path(title.split(' ')[0]).name} {int(port, 16)}"] = address
    return found


def test_no_port_of_a_cluster_that_a_run_starts_can_be_reached_from_elsewhere(videos, tmp_path):
    with ray_run(videos, tmp_path / "out") as run:
        until(has_begun(tmp_path / "out"), run.process)
        processes = run.processes()
        found = listening(processes)
        environments = [Path(f"/proc/{number}/environ").read_bytes() for number in processes]
        run.process.send_signal(signal.SIGINT)
        _, told = run.process.communicate(timeout=PATIENCE_S)
    assert run.process.returncode == 130, told
    assert {"gcs_server", "raylet"} < {name.split()[0] for name in found}, found
    assert len(found) >= 5
    assert {name: address for name, address in found.items() if address not in LOOPBACK} == {}
    tokens = {
        line
        for one in environments
        for line in one.split(b"\0")
        if line.startswith(b"RAY_AUTH_TOKEN=") and len(line) > 50
    }
    assert len(tokens) == 1
    assert sum(b"RAY_AUTH_MODE=token" in one for one in environments) >= 3


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert extract(videos, out) == 0
    return out


def extract(videos: Path, out: Path) -> int:
    command = ["extract", videos, "--recipe", "starter", "--stream", "motion", "--out", out]
    return subprocess.run([*ARABESQUE, *map(str, command)], capture_output=True, timeout=PATIENCE_S).returncode


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "statuses"),
    [
        ("ray::_RayWorker", (0,)),
        ("ray::_RayCoordinator", (1,)),
        ("raylet/raylet", (1,)),
        ("gcs/gcs_server", (0, 1)),  # workers and coordinator can continue without it
        ("extract", (-signal.SIGKILL,)),
    ],
    ids=["worker", "coordinator", "raylet", "gcs", "driver"],
)
def test_a_process_that_is_killed_during_a_run_loses_no_row(videos, whole, tmp_path, victim, statuses):
    with ray_run(videos, tmp_path / "out", workers=2) as run:
        until(has_begun(tmp_path / "out"), run.process)
        os.kill(run.process.pid if victim == "extract" else run.number_of(victim), signal.SIGKILL)
        _, told = run.process.communicate(timeout=PATIENCE_S)
        assert run.process.returncode in statuses, told
        assert "Traceback" not in told
        until(lambda: not run.processes())
    assert check_store(tmp_path / "out").findings == []
    assert extract(videos, tmp_path / "out") == 0
    assert stored_rows(tmp_path / "out") == stored_rows(whole)
    assert check_store(tmp_path / "out").findings == []
