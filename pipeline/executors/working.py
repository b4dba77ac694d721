"""A worker's side of a run with several: it asks for videos, brings them to their outcomes, and reports."""

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
from dataclasses import replace
from types import FrameType
from typing import Any, NoReturn

import torch

from ...manifests.errors import WeightsError
from ..decoding.slots import SlotPool
from ..ledger import Ledger, read_ledger
from ..memory import within_memory
from ..probe_cache import open_probe_cache
from ..records import VideoFile
from ..runner import Event
from ..sharing import SharedWork
from ..stage_clock import StageClock
from ..store.news import OutcomeNews
from ..store.writer import StoreWriter
from ..work import SegmentFeature, Stream, VideoSettled
from ..worker import Job, Worker, build_streams, chosen_weights, digests_of_settings
from .dispatching import Failure, Office, Report, Told

REPORT_S = 1.0
POLL_S = 0.5
"""How often a worker asks again for what others have in hand."""


class Stopped(BaseException):
    """The worker has been told to stop; raised in its main thread."""


def work(job: Job, office: Office) -> None:
    """Brings videos to their outcomes until there are none left. For the main thread of a process.

    What makes the run itself fail is reported. Raises `Stopped` on SIGTERM and where the office says so, with all that
    is finished on disk.
    """
    signal.signal(signal.SIGTERM, _stop)
    with Reporter(office) as reporter:  # before anything that takes long: it is the sign of life
        try:
            torch.set_num_threads(job.options.num_cpu_threads)
            if job.options.device.type == "cuda":
                torch.cuda.set_device(job.options.device)
            _work(job, _streams(job), office, reporter)
        except Exception as error:
            reporter.fail(error)


def _work(job: Job, streams: list[Stream], office: Office, reporter: Reporter) -> None:
    options = within_memory(job.options, streams)
    job = replace(job, options=options)
    news = OutcomeNews(job.out)
    ledger = read_ledger(job.out, retry_failed=options.retry_failed)
    with (
        StoreWriter(job.out, float16=options.float16) as writer,
        open_probe_cache(options.decoder, enabled=options.remembers_files) as probes,
        SlotPool(options.num_decoders, options.decoder, options.slot_settings, probes) as slots,
        closing(PulledVideos(office, options.num_decoders)) as pulled,
    ):
        shared = PulledWork(pulled, job, writer, ledger, news)
        worker = Worker(job, streams, slots=slots, writer=writer, ledger=ledger, shared=shared, clock=reporter.clock)
        while pulled.wait():
            with closing(worker.carry_out(pulled)) as events:
                for event in events:
                    reporter.take(event)
                    if isinstance(event, VideoSettled):
                        writer.when_written(reporter.on_disk(event.video_id))
            writer.flush()  # the others wait for what is finished here


class PulledVideos:
    """Videos from the office, each asked for when a decoder is free for it; iterate again after each `wait`.

    An iteration ends when the office has nothing for the moment: batches that wait for more must then go on unfilled.
    """

    def __init__(self, office: Office, num_decoders: int) -> None:
        self._office = office
        self._num_decoders = num_decoders
        self._next: VideoFile | None = None
        self._reading: set[str] = set()
        self._is_closed = False
        self._changed = threading.Condition()

    def wait(self) -> bool:
        """Until there is a video to begin with; False once the run is over."""
        while not isinstance(pulled := self._office.pull(), VideoFile):
            if pulled == "over":
                return False
            time.sleep(POLL_S)
        self._next = pulled
        return True

    def __iter__(self) -> Iterator[VideoFile]:
        while self._next is not None:
            with self._changed:
                self._reading.add(self._next.video_id)
            yield self._next
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or len(self._reading) < self._num_decoders)
                if self._is_closed:
                    return
            pulled = self._office.pull()
            self._next = pulled if isinstance(pulled, VideoFile) else None

    def has_read(self, video_id: str) -> None:
        with self._changed:
            self._reading.discard(video_id)
            self._changed.notify_all()

    def close(self) -> None:
        """Ends an iteration that waits, in whatever thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class PulledWork(SharedWork):
    """Work that is shared with other runs, too: of this run's workers no two get the same video."""

    def __init__(self, pulled: PulledVideos, job: Job, writer: StoreWriter, ledger: Ledger, news: OutcomeNews) -> None:
        super().__init__(job.out, writer, ledger, news, job.settings_digests)
        self._pulled = pulled

    def has_read(self, file: VideoFile) -> None:
        self._pulled.has_read(file.video_id)


class Reporter:
    """Reports every second from a thread of its own, while its block runs; the last report is made at the end."""

    def __init__(self, office: Office) -> None:
        self.clock = StageClock()
        self._office = office
        self._lock = threading.Lock()
        self._told: list[Told] = []
        self._on_disk: list[str] = []
        self._num_segments = 0
        self._reported_s: Counter[str] = Counter()
        self._reported_tasks: Counter[str] = Counter()
        self._failure: Failure | None = None
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_ending.set()
        self._thread.join()
        self._report()

    def take(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, SegmentFeature):
                self._num_segments += 1
            elif isinstance(event, Told):
                self._told.append(event)

    def on_disk(self, video_id: str) -> Callable[[], None]:
        """What to call once everything of the video is on disk."""

        def note() -> None:
            with self._lock:
                self._on_disk.append(video_id)

        return note

    def fail(self, error: Exception) -> None:
        self._failure = Failure(type(error).__name__, str(error), "".join(traceback.format_exception(error)))

    def _run(self) -> None:
        while not self._is_ending.wait(REPORT_S):
            if not self._report():
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _report(self) -> bool:
        with self._lock:
            told, self._told = self._told, []
            on_disk, self._on_disk = self._on_disk, []
            num_segments, self._num_segments = self._num_segments, 0
        busy_s, tasks = _since(self.clock.busy_s, self._reported_s), _since(self.clock.tasks, self._reported_tasks)
        return self._office.report(Report(tuple(told), tuple(on_disk), num_segments, busy_s, tasks, self._failure))


def _streams(job: Job) -> list[Stream]:
    """The networks, from this machine's checkpoints; raises `WeightsError` where these are not the run's."""
    specs = {name: job.recipe.streams[name] for name in job.streams}
    weights = chosen_weights(job.recipe.name, specs, job.weights)
    digests = digests_of_settings(specs, weights)
    for name, digest in digests.items():
        if digest != job.settings_digests[name]:
            raise WeightsError(
                f"{socket.gethostname()}: has other checkpoints for {name}, or another version of arabesque, than the "
                "machine that began the run; give both the same"
            )
    return build_streams(specs, weights, digests, job.options.device)


def _since(now: Mapping[str, float], reported: Counter[str]) -> dict[str, Any]:
    """By how much each number has grown; takes note of it."""
    grown = {name: value - reported[name] for name, value in list(now.items()) if value != reported[name]}
    reported.update(grown)
    return grown


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the first one is being obeyed
    raise Stopped
