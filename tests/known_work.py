"""What worker processes do in tests: the known recipe's work, and ways to die of it. Each is a worker's whole life."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from known_extractors import FrameNumbers, known_extractors

from arabesque.manifests.errors import StoreError
from arabesque.pipeline.executors.dispatching import Office
from arabesque.pipeline.executors.working import work
from arabesque.pipeline.store.writer import StoreWriter
from arabesque.pipeline.worker import Job

FATAL_FRAME = 90
"""Only long videos have it."""


def known_work(job: Job, office: Office) -> None:
    with known_extractors():
        work(job, office)


def killed_once(job: Job, office: Office) -> None:
    """The first worker that comes to a video's third segment is killed."""

    def numbers(extractor: FrameNumbers, segment: Any) -> Any:
        if segment.index == 2:
            try:
                (job.out.parent / "killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return row_of(extractor, segment)

    row_of, FrameNumbers._numbers = FrameNumbers._numbers, numbers
    known_work(job, office)


def works_slowly(job: Job, office: Office) -> None:
    """A second for each segment."""

    def numbers(extractor: FrameNumbers, segment: Any) -> Any:
        time.sleep(1.0)
        return row_of(extractor, segment)

    row_of, FrameNumbers._numbers = FrameNumbers._numbers, numbers
    known_work(job, office)


def killed_by_long_videos(job: Job, office: Office) -> None:
    def numbers(extractor: FrameNumbers, segment: Any) -> Any:
        row = row_of(extractor, segment)
        if row.max() >= FATAL_FRAME:
            os.kill(os.getpid(), signal.SIGKILL)
        return row

    row_of, FrameNumbers._numbers = FrameNumbers._numbers, numbers
    known_work(job, office)


def never_begins(job: Job, office: Office) -> None:
    sys.exit(7)


def finds_the_disk_full(job: Job, office: Office) -> None:
    def full(*_: object) -> None:
        raise StoreError("out: the disk is full")

    StoreWriter.add_progress = full  # type: ignore[method-assign,assignment]
    known_work(job, office)
