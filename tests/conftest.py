"""Shared fixtures. GPU tests are skipped on a machine without a GPU, and required under ``REQUIRE_GPU=1``.

All tests of object storage share one server.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Generator

import pytest
from object_server import new_bucket, s3_server

# set before PyTorch is imported: the test processes already use all cores, and OpenMP threads that spin while they wait
# take ten times the processor time on a busy machine
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ARABESQUE_METADATA_CACHE", "")  # tests do not use the metadata cache of the user
for name in ("TERMINAL_WIDTH", "FORCE_COLOR", "PY_COLORS"):  # Typer reads them once, when a test imports it first
    os.environ.pop(name, None)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Disable garbage collection while pytest collects tests (a third of that time), and exclude the tests from it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_sessionfinish() -> None:
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or os.environ.get("REQUIRE_GPU") == "1":
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; REQUIRE_GPU=1 makes this an error"))


@pytest.fixture(scope="session")
def s3():
    """Address of a running S3 server."""
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3):
    return new_bucket()
