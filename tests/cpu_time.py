"""A pytest plugin that prints the processor time of the test files and of the most expensive tests.

``PYTHONPATH=tests pytest -n 2 -m "not slow" -p cpu_time``. Processor time, unlike wall-clock time, hardly depends on
other load. It includes the child processes that a test has waited for, and fixtures count for the test that sets them
up.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest

NUM_FILES, NUM_TESTS = 30, 40
_STARTED = pytest.StashKey[float]()


def processor_time_s() -> float:
    """Return the processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_STARTED] = processor_time_s()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "teardown":  # pytest-xdist sends reports to the process that prints
        report.user_properties.append(("cpu_s", processor_time_s() - item.stash[_STARTED]))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    tests: Counter[str] = Counter()
    for report in terminalreporter.stats.get("", []):
        tests[report.nodeid] += dict(report.user_properties).get("cpu_s", 0)
    files: Counter[str] = Counter()
    for name, cpu_s in tests.items():
        files[name.partition("::")[0]] += cpu_s
    terminalreporter.section(f"processor time: {sum(tests.values()) / 60:.1f} minutes in {len(tests)} tests")
    for name, cpu_s in [*files.most_common(NUM_FILES), *tests.most_common(NUM_TESTS)]:
        terminalreporter.line(f"{cpu_s:7.1f} s  {name}")
