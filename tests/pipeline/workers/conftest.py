"""A folder of videos with known rows, its store by one process, and a local Ray cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clips import Clip, write_clip
from known_extractors import RECIPE

from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import Event
from arabesque.pipeline.options import RunOptions

VIDEOS = {"a": 40, "b": 24, "c": 33, "d": 16, "e": 48, "long": 120}
"""Name → number of frames."""

Run = Callable[..., list[Event]]


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, num_frames in VIDEOS.items():
        write_clip(folder / f"{name}.mp4", Clip(num_frames=num_frames, beeps_s=(0.2,)))
    (folder / "noise.mp4").write_bytes(b"not a video")
    return folder


@pytest.fixture(scope="session")
def run() -> Run:
    """``run(videos, out, executor, **options)``: the events of a run of the known recipe."""

    def run_known_recipe(videos: Path, out: Path, executor: Any = None, **options: Any) -> list[Event]:
        chosen = RunOptions(num_decoders=1, num_cpu_threads=1, **options)
        return list(Extraction(videos, parse_recipe(RECIPE, "known.toml"), out, options=chosen, executor=executor))

    return run_known_recipe


@pytest.fixture(scope="session")
def whole(videos, run, tmp_path_factory) -> Path:
    """The store that one process writes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(videos, out)
    return out


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A cluster with two CPUs for two workers. Its processes can import the modules of the tests."""
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
