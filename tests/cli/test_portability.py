"""The command line without the functions that only Linux has, which simulates macOS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from clips import Clip, write_clip

from arabesque.pipeline.system.process_resources import available_cores

TESTS = Path(__file__).resolve().parents[1]
COMMANDS = (
    "bench compare demo doctor evaluate export extract import predict recipes repair reproduce score status train "
    "verify"
)


def run_without_linux(*command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS / "without_linux"), *(entry for entry in sys.path if entry)])
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


def test_the_stand_in_removes_linux_functions():
    program = "import os, sys; sys.exit(hasattr(os, 'sched_getaffinity') or os.path.exists('/proc/self/status'))"
    assert run_without_linux("-c", program).returncode == 0


def commands(*lines: str) -> str:
    """A program that runs commands in one process: each new process would import torch, which takes seconds."""
    program = "from typer.testing import CliRunner; from arabesque.cli.main import commands"
    check = "result = CliRunner().invoke(commands, {}); assert result.exit_code == 0, (result.output, result.exception)"
    return "; ".join([program, *(check.format(line.split()) for line in lines)])


def test_every_command_is_imported_without_linux_functions():
    result = run_without_linux("-c", commands(*(f"{name} --help" for name in COMMANDS.split())))
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_videos_are_extracted_and_doctor_passes_without_linux_functions(tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("a", "b"):
        write_clip(tmp_path / "videos" / f"{name}.mp4", Clip(num_frames=75, beeps_s=(0.5, 1.5)))
    extract = "extract videos --recipe starter --out features-{0} --workers {0}"
    program = commands(extract.format(1), extract.format(2), "verify features-2", "doctor")
    result = run_without_linux("-c", program + "; assert 'FAIL' not in result.output", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("removed", "expected"),
    [((), None), (("process_cpu_count",), None), (("process_cpu_count", "sched_getaffinity"), os.cpu_count())],
)
def test_available_cores_are_found_on_every_platform(monkeypatch, removed, expected):
    for name in removed:
        monkeypatch.delattr(os, name, raising=False)
    assert available_cores() == (expected or len(os.sched_getaffinity(0)))
