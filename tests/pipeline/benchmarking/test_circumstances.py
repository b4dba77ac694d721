"""What else a machine had to do while something was measured."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from arabesque.pipeline.benchmarking import circumstances
from arabesque.pipeline.benchmarking.circumstances import Circumstances

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """``at(clock_s, busy_s, own_s)``: what the machine and this process have done by then."""

    def at(clock_s: float, busy_s: float, own_s: float) -> None:
        user, idle, iowait = round(busy_s * TICKS), 10**6, 10**6
        (tmp_path / "stat").write_text(f"cpu  {user} 0 0 {idle} {iowait} 0 0 0 0 0\ncpu0 1 2 3\n")
        times = SimpleNamespace(user=own_s, system=0.0, children_user=0.0, children_system=0.0)
        monkeypatch.setattr(circumstances.time, "perf_counter", lambda: clock_s)
        monkeypatch.setattr(circumstances.os, "times", lambda: times)

    monkeypatch.setattr(circumstances, "PROC", tmp_path)
    at(100.0, 1000.0, 7.0)
    return at


@pytest.mark.parametrize(("busy_s", "own_s", "others"), [(1015.0, 7.0, 1.5), (1015.0, 17.0, 0.5), (1010.0, 17.1, 0.0)])
def test_others_are_told_from_what_is_measured(machine, busy_s, own_s, others):
    measurement = Circumstances()
    machine(110.0, busy_s, own_s)
    assert measurement.told()["others_cores"] == pytest.approx(others)


def test_where_the_system_does_not_tell_nothing_is_put_in_its_place(machine, tmp_path):
    (tmp_path / "stat").unlink()
    told = Circumstances().told()
    assert told["others_cores"] is None
    assert told["processor"]
