"""Processor time and peak memory of processes, and None where they are not available."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from arabesque.pipeline.benchmarking.resources import Stopwatch, memory_in_use, peak_in_use, peaks, reset_peaks
from arabesque.pipeline.system import process_resources

CPU = torch.device("cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def known(value):
    assert value is not None
    return value


def test_processor_time_includes_all_threads():
    before = known(process_resources.cpu_s(os.getpid()))
    while os.times().user + os.times().system < before + 0.2:
        sum(range(10_000))
    assert process_resources.cpu_s(os.getpid()) == pytest.approx(os.times().user + os.times().system, abs=0.1)


@linux
def test_peaks_can_be_reset():
    block = np.ones(20 << 20)
    del block
    reset_peaks(CPU)
    assert known(peak_in_use(CPU)) < known(memory_in_use(CPU)) + (80 << 20)
    block = np.ones(20 << 20)  # 160 MiB
    used = known(memory_in_use(CPU))
    del block
    assert known(peak_in_use(CPU)) > used - (8 << 20)  # the kernel counts both in batches


def test_values_that_are_not_known_are_none(monkeypatch, tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert Stopwatch(CPU, [ended.pid]).spent().cpu_s is None
    assert process_resources.resident_bytes(ended.pid) is None
    monkeypatch.setattr(process_resources, "PROC", Path(tmp_path) / "proc")
    assert peaks(CPU, [os.getpid()]).total_bytes is None
    reset_peaks(CPU)


PROGRAM = """
from contextlib import closing
import numpy as np, torch
from arabesque.pipeline.benchmarking.resources import peaks, peaks_of_past
from arabesque.pipeline.decoding.decoder_pool import DecoderPool
block = np.ones(60 << 20)
with closing(DecoderPool(2)) as slots:
    slots.wait_until_ready()
    living = peaks(torch.device("cpu"), slots.pids)
past = peaks_of_past(torch.device("cpu"))
print(past.num_decoders, past.decoder_bytes, living.decoder_bytes)
"""


@linux
def test_peaks_of_ended_decoders_exclude_the_memory_of_the_parent():
    """The kernel's own statistics of children would include it: half a gigabyte here."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    num_decoders, past, living = map(int, run.stdout.split())
    assert num_decoders == 2
    assert past == pytest.approx(living, rel=0.1)
    assert past < 300 << 20
