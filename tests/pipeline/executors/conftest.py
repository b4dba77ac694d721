"""A folder of videos whose every row is known, what one process makes of it, and a Ray cluster of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE, known_extractors

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction, RunOptions
from arabesque.pipeline.runner import Event

VIDEOS = {"a": 40, "b": 24, "c": 33, "d": 16, "e": 48, "long": 120}
"""Name → number of frames."""

Run = Callable[..., list[Event]]


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, num_frames in VIDEOS.items():
        write_clip(folder / f"{name}.mp4", Clip(num_frames=num_frames, beeps_s=(0.2,)))
    (folder / "noise.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="session")
def run() -> Run:
    """``run(videos, out, executor, **options)``: the events of a run of the known recipe."""

    def carry_out(videos: Path, out: Path, executor: Any = None, **options: Any) -> list[Event]:
        chosen = RunOptions(num_decoders=1, num_cpu_threads=1, **options)
        with known_extractors():
            return list(Extraction(videos, parse_recipe(RECIPE, "known.toml"), out, options=chosen, executor=executor))

    return carry_out


@pytest.fixture(scope="session")
def whole(videos, run, tmp_path_factory) -> Path:
    """What one process leaves."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(videos, out)
    return out


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two CPUs, for two workers; its processes find the modules of the tests."""
    import ray

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        "local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
