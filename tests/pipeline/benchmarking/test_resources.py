"""What a run's processes took, and what is said where that cannot be known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from arabesque.pipeline import proc
from arabesque.pipeline.benchmarking.resources import (
    Stopwatch,
    memory_in_use,
    peak_in_use,
    peaks,
    reset_peaks,
)

CPU = torch.device("cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def known(value):
    assert value is not None
    return value


@linux
def test_processor_time_of_a_process_is_that_of_all_its_threads():
    before = known(proc.cpu_s(os.getpid()))
    while os.times().user + os.times().system < before + 0.2:
        sum(range(10_000))
    assert proc.cpu_s(os.getpid()) == pytest.approx(os.times().user + os.times().system, abs=0.1)


@linux
def test_a_peak_is_forgotten_on_request():
    block = np.ones(20 << 20)
    del block
    reset_peaks(CPU)
    assert known(peak_in_use(CPU)) < known(memory_in_use(CPU)) + (80 << 20)
    block = np.ones(20 << 20)  # 160 MiB
    used = known(memory_in_use(CPU))
    del block
    assert known(peak_in_use(CPU)) > used - (8 << 20)  # the kernel counts both in batches


def test_where_there_is_no_proc_nothing_takes_its_place(monkeypatch, tmp_path):
    monkeypatch.setattr(proc, "PROC", Path(tmp_path) / "proc")
    assert Stopwatch(CPU, [1]).spent().cpu_s is None
    assert memory_in_use(CPU) is None
    assert peaks(CPU, [1]).total_bytes is None
    reset_peaks(CPU)


TOLD = """
import numpy as np, torch
from arabesque.pipeline.benchmarking.resources import peaks, peaks_of_past
from arabesque.pipeline.decoding.slots import SlotPool
hoard = np.ones(60 << 20)
with SlotPool(2) as slots:
    slots.wait_until_ready()
    living = peaks(torch.device("cpu"), slots.pids)
past = peaks_of_past(torch.device("cpu"))
print(past.num_decoders, past.decoder_bytes, living.decoder_bytes)
"""


@linux
def test_decoders_that_have_ended_are_told_of_without_what_their_parent_held():
    """Which is what the kernel's own account of children has: half a gigabyte here."""
    run = subprocess.run([sys.executable, "-c", TOLD], check=True, capture_output=True, text=True)
    num_decoders, past, living = map(int, run.stdout.split())
    assert num_decoders == 2
    assert past == pytest.approx(living, rel=0.1)
    assert past < 300 << 20
