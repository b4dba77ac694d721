"""The first use of compiled code in a process waits for that of other processes; later uses do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from arabesque.extractors import compiled_code
from arabesque.extractors.compiled_code import alone_on_first_use

USE = """
import os, sys, time
from arabesque.extractors.compiled_code import alone_on_first_use
with alone_on_first_use("a"), alone_on_first_use("b"), open(sys.argv[1], "a") as log:
    print(os.getpid(), "begins", file=log, flush=True)
    time.sleep(0.3)
    print(os.getpid(), "ends", file=log, flush=True)
"""


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiled_code, "_used", set())
    return tmp_path / "arabesque"


def test_first_uses_of_two_processes_do_not_overlap(tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [subprocess.Popen([sys.executable, "-c", USE, str(log)]) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    lines = [line.split() for line in log.read_text().splitlines()]
    assert [what for _, what in lines] == ["begins", "ends"] * 2
    assert lines[0][0] == lines[1][0] != lines[2][0] == lines[3][0]


def test_later_uses_do_not_wait(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with alone_on_first_use("known"):
        pass
    with FileLock(cache_folder / "compiling.lock"), alone_on_first_use("known"):
        pass
    monkeypatch.setattr(compiled_code, "PATIENCE_S", 0.0)
    with FileLock(cache_folder / "compiling.lock"), alone_on_first_use("unknown"):
        pass  # a process that was stopped does not stop others


def test_a_failed_first_use_is_repeated(cache_folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone_on_first_use("fails"):
        raise ZeroDivisionError
    assert "fails" not in compiled_code._used
    with FileLock(cache_folder / "compiling.lock", timeout=0):
        pass


def test_a_cache_folder_that_cannot_be_written_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with alone_on_first_use("any"):
        pass
