"""Main functions of worker processes in tests: the known recipe, and several ways to fail."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from known_extractors import FrameNumbers

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.store.writer import StoreWriter
from arabesque.pipeline.workers.coordinator import CoordinatorLink, WorkerConfig
from arabesque.pipeline.workers.remote_worker import worker_main

FATAL_FRAME = 90
"""Number of a frame that only long videos have."""


def is_killed_once(config: WorkerConfig, coordinator: CoordinatorLink) -> None:
    """Kill the first worker that reaches the third segment of a video."""

    def numbers(extractor: FrameNumbers, segment: Any) -> Any:
        if segment.index == 2:
            try:
                (config.out.parent / "killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return row_of(extractor, segment)

    row_of, FrameNumbers._numbers = FrameNumbers._numbers, numbers
    worker_main(config, coordinator)


def process_slowly(config: WorkerConfig, coordinator: CoordinatorLink) -> None:
    """Take a second for each segment."""

    def numbers(extractor: FrameNumbers, segment: Any) -> Any:
        time.sleep(1.0)
        return row_of(extractor, segment)

    row_of, FrameNumbers._numbers = FrameNumbers._numbers, numbers
    worker_main(config, coordinator)


def is_killed_by_long_videos(config: WorkerConfig, coordinator: CoordinatorLink) -> None:
    def numbers(extractor: FrameNumbers, segment: Any) -> Any:
        row = row_of(extractor, segment)
        if row.max() >= FATAL_FRAME:
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    row_of, FrameNumbers._numbers = FrameNumbers._numbers, numbers
    worker_main(config, coordinator)


def exits_at_once(config: WorkerConfig, coordinator: CoordinatorLink) -> None:
    sys.exit(7)


def has_a_full_disk(config: WorkerConfig, coordinator: CoordinatorLink) -> None:
    def full(*_: object) -> None:
        raise StoreError("out: the disk is full")

    StoreWriter.add_progress = full  # type: ignore[method-assign,assignment]
    worker_main(config, coordinator)
