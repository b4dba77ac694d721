"""Main function of a worker in a run with several workers: it pulls videos, processes them and sends reports."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from types import FrameType
from typing import Any, NoReturn

import torch

from ...manifests.errors import WeightsError
from ..items import Event, SegmentFeature, Stream, VideoSettled
from ..memory_budget import within_memory
from ..planning.resume_index import read_resume_index
from ..planning.run_claims import OutcomeWatcher
from ..records import Source
from ..run_context import open_context
from ..runner import process_videos
from ..store.store import Store
from ..store.writer import StoreWriter
from ..streams import build_streams, chosen_weights, digests_of_settings
from ..system.accelerators import limit_memory
from ..system.logs import set_up_logs
from ..system.stage_timer import StageTimer
from .coordinator import Assignment, CoordinatorLink, ForwardedEvent, WorkerConfig, WorkerFailure, WorkerReport

REPORT_S = 1.0
POLL_S = 0.5
"""Pause between two pulls while all remaining videos are assigned to other workers."""


class Stopped(BaseException):
    """Raised in the main thread of a worker that must stop."""


def worker_main(config: WorkerConfig, coordinator: CoordinatorLink) -> None:
    """Process videos until none remain. Must be called in the main thread of a process.

    An exception that ends the run is reported to the coordinator.

    Args:
        config: Configuration of the run's workers.
        coordinator: Connection to the coordinator.

    Raises:
        Stopped: On SIGTERM, or when the coordinator stops the run. All finished rows are on disk.
    """
    signal.signal(signal.SIGTERM, _stop)
    with Reporter(coordinator) as reporter:  # started first, because reports are the heartbeat
        try:
            if config.logs is not None:
                set_up_logs(config.logs)
            torch.set_num_threads(config.options.num_cpu_threads)
            if config.options.device.index is not None:  # pyright: ignore[reportUnnecessaryComparison]
                torch.accelerator.set_device_index(config.options.device)
            _process_videos(config, _streams(config), coordinator, reporter)
        except Exception as error:
            reporter.fail(error)


def _process_videos(
    config: WorkerConfig, streams: list[Stream], coordinator: CoordinatorLink, reporter: Reporter
) -> None:
    options = within_memory(config.options, streams)
    store = Store.open(config.out)
    outcome_watcher = OutcomeWatcher(store)
    resume_index = read_resume_index(store, retry_failed=options.retry_failed)
    pulled = PulledVideos(coordinator, options.num_decoders)
    with (
        StoreWriter(store, settings=config.settings_digests, float16=options.float16) as writer,
        open_context(
            streams, options, writer, resume_index, outcome_watcher, reporter.timer, on_read=pulled.has_read
        ) as context,
        closing(pulled),
    ):
        while pulled.wait():
            with closing(process_videos(context, pulled)) as events:
                for event in events:
                    reporter.add(event)
                    if isinstance(event, VideoSettled):
                        writer.when_written(reporter.on_disk(event.video_id))
            writer.flush()  # other workers may wait until these videos are on disk


class PulledVideos:
    """Videos from the coordinator. Each is pulled when a decoder is free for it; call `wait` before each iteration.

    An iteration ends when the coordinator has no video at the moment, so that incomplete batches are computed.

    Args:
        coordinator: Connection to the coordinator.
        num_decoders: Number of videos that may be read at once.
    """

    def __init__(self, coordinator: CoordinatorLink, num_decoders: int) -> None:
        self._coordinator = coordinator
        self._num_decoders = num_decoders
        self._next: Source | None = None
        self._reading: set[str] = set()
        self._is_closed = False
        self._changed = threading.Condition()

    def wait(self) -> bool:
        """Wait until a video is available. Returns False once the run is over."""
        assignment: Assignment
        while isinstance(assignment := self._coordinator.pull(), str):
            if assignment == "over":
                return False
            time.sleep(POLL_S)
        self._next = assignment
        return True

    def __iter__(self) -> Iterator[Source]:
        while self._next is not None:
            with self._changed:
                self._reading.add(self._next.video_id)
            yield self._next
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or len(self._reading) < self._num_decoders)
                if self._is_closed:
                    return
            assignment = self._coordinator.pull()
            self._next = None if isinstance(assignment, str) else assignment

    def has_read(self, file: Source) -> None:
        """Record that a video has been decoded, so that its decoder is free."""
        with self._changed:
            self._reading.discard(file.video_id)
            self._changed.notify_all()

    def close(self) -> None:
        """End an iteration that waits in another thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Reporter:
    """Context manager that sends a report every second from its own thread, and a last one at the end of its block."""

    def __init__(self, coordinator: CoordinatorLink) -> None:
        self.timer = StageTimer()
        self._coordinator = coordinator
        self._lock = threading.Lock()
        self._events: list[ForwardedEvent] = []
        self._on_disk: list[str] = []
        self._segments: Counter[tuple[str, str]] = Counter()
        self._reported_s: Counter[str] = Counter()
        self._failure: WorkerFailure | None = None
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_ending.set()
        self._thread.join()
        self._report()

    def add(self, event: Event) -> None:
        """Add an event to the next report. For features only their number is reported."""
        with self._lock:
            if isinstance(event, SegmentFeature):
                self._segments[event.plan.video.video_id, event.stream.name] += 1
            elif isinstance(event, ForwardedEvent):
                self._events.append(event)

    def on_disk(self, video_id: str) -> Callable[[], None]:
        """Return the function to call once all rows and outcomes of a video are on disk."""

        def note() -> None:
            with self._lock:
                self._on_disk.append(video_id)

        return note

    def fail(self, error: Exception) -> None:
        """Report an exception that ends the run."""
        self._failure = WorkerFailure(type(error).__name__, str(error), "".join(traceback.format_exception(error)))

    def _run(self) -> None:
        while not self._is_ending.wait(REPORT_S):
            if not self._report():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _report(self) -> bool:
        with self._lock:
            events, self._events = self._events, []
            on_disk, self._on_disk = self._on_disk, []
            segments, self._segments = self._segments, Counter()
        busy_s = _growth(self.timer.busy_s, self._reported_s)
        report = WorkerReport(tuple(events), tuple(on_disk), dict(segments), busy_s, self._failure)
        return self._coordinator.report(report)


def _streams(config: WorkerConfig) -> list[Stream]:
    """Load the networks from this machine's checkpoints. Raises `WeightsError` if they differ from those of the run."""
    specs = {name: config.recipe.streams[name] for name in config.streams}
    weights = chosen_weights(config.recipe, specs, config.weights)
    digests = digests_of_settings(specs, weights)
    for name, digest in digests.items():
        if digest != config.settings_digests[name]:
            raise WeightsError(
                f"{socket.gethostname()}: the checkpoints of stream {name}, or the version of arabesque, differ from "
                "those of the machine that started the run; install the same on both"
            )
    limit_memory(config.options.device, config.options.gpu_memory_bytes)
    return build_streams(specs, weights, digests, config.options.device, config.options.engine)


def _growth(now: Mapping[str, float], reported: Counter[str]) -> dict[str, Any]:
    """Return by how much each number has grown since the last report, and update ``reported``."""
    grown = {name: value - reported[name] for name, value in list(now.items()) if value != reported[name]}
    reported.update(grown)
    return grown


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # ignore further signals: the worker is already stopping
    raise Stopped
