"""Load of the machine by other processes during a measurement."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from arabesque.pipeline.benchmarking import circumstances
from arabesque.pipeline.benchmarking.circumstances import Circumstances


@pytest.fixture
def machine(monkeypatch):
    """``at(clock_s, busy_s, own_s)`` sets the time, and the busy time of the machine and of this process."""

    def at(clock_s: float, busy_s: float, own_s: float) -> None:
        total = SimpleNamespace(user=busy_s - 3, system=2.0, softirq=1.0, idle=1e6, iowait=1e6, guest=busy_s - 3)
        own = SimpleNamespace(user=own_s, system=0.0, children_user=0.0, children_system=0.0)
        monkeypatch.setattr(circumstances.time, "perf_counter", lambda: clock_s)
        monkeypatch.setattr(circumstances.psutil, "cpu_times", lambda: total)
        monkeypatch.setattr(circumstances.os, "times", lambda: own)

    at(100.0, 1000.0, 7.0)
    return at


@pytest.mark.parametrize(("busy_s", "own_s", "others"), [(1015.0, 7.0, 1.5), (1015.0, 17.0, 0.5), (1010.0, 17.1, 0.0)])
def test_cores_of_other_processes_exclude_this_process(machine, busy_s, own_s, others):
    measurement = Circumstances()
    machine(110.0, busy_s, own_s)
    assert measurement.as_dict()["others_cores"] == pytest.approx(others)


def test_the_processor_is_named_where_proc_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(circumstances, "PROC", tmp_path)
    assert Circumstances().as_dict()["processor"]
