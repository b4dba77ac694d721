"""Coordinator of a run with several workers: assigns videos, receives worker reports, collects the run's events.

There is one coordinator in a run, in one process. It must be called from one thread at a time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ...manifests import errors
from ...manifests.recipes import Recipe
from ..items import Awaiting, Notice, PoisonedVideo, VideoOpened, VideoSettled, VideoTraits, WorkerProgress
from ..options import RunOptions
from ..records import Outcome, Source
from ..store.files.storage import StorePath
from ..system.logs import LogSettings
from .queue import LEASE_S, MAX_DEATHS_PER_VIDEO, VideoQueue

MAX_RESTARTS = 5
"""A worker that dies this often without completing a video in between is not restarted."""

ForwardedEvent = Outcome | VideoOpened | VideoSettled | Awaiting | Notice | VideoTraits
"""Events that a worker forwards to the coordinator. Features and plans stay in the worker."""
Assignment = Source | Literal["later", "over"]
"""Answer to `pull`: a video or a file with clips; ``"later"`` if all remaining videos are assigned (they return to the
queue if their worker dies); or ``"over"`` if no video remains or the run stops."""
RunEvent = ForwardedEvent | WorkerProgress | PoisonedVideo | Notice


@dataclass(frozen=True)
class WorkerConfig:
    """Configuration of every worker of a run. It is sent to other processes and machines."""

    out: StorePath
    recipe: Recipe
    """Resolved: no setting depends on the worker's defaults."""
    streams: tuple[str, ...]
    weights: str | None
    """The ``weights`` argument of `Extraction`. Each machine finds the checkpoints in its own cache."""
    settings_digests: Mapping[str, str]
    """Stream → settings digest. A worker whose checkpoints give another digest fails."""
    options: RunOptions
    logs: LogSettings | None = None
    """None: the worker does not set up logging. A log file is written on the worker's machine."""


@dataclass(frozen=True)
class WorkerFailure:
    """An exception in a worker that ends the run."""

    kind: str
    """Name of the exception's class."""
    text: str
    trace: str
    """The formatted traceback."""


@dataclass(frozen=True)
class WorkerReport:
    """Progress of a worker since its last report. An empty report is a heartbeat."""

    events: tuple[ForwardedEvent, ...] = ()
    on_disk: tuple[str, ...] = ()
    """Videos whose rows and outcomes are all on disk, so that they will not be processed again."""
    segments: Mapping[tuple[str, str], int] | None = None
    """(video id, stream) → number of segments."""
    busy_s: Mapping[str, float] | None = None
    failure: WorkerFailure | None = None


class CoordinatorLink(Protocol):
    """A worker's connection to the coordinator. Several threads may call it."""

    def pull(self) -> Assignment:
        """Request a video."""
        ...

    def report(self, report: WorkerReport) -> bool:
        """Send a report. Returns False if the worker must stop: the run has ended or the coordinator is gone."""
        ...


WorkerMain = Callable[[WorkerConfig, CoordinatorLink], None]
"""Main function of a worker; see `remote_worker.worker_main`."""


class Executor(Protocol):
    """Executes a run with several workers."""

    def run(
        self, config: WorkerConfig, videos: Sequence[Source], lengths: Mapping[str, float]
    ) -> Generator[RunEvent, None, None]:
        """Yield the events of all workers until every video is complete. Closing it stops the workers within seconds.

        Args:
            config: Configuration of every worker.
            videos: The videos to process.
            lengths: See `Coordinator`.

        Raises:
            ArabesqueError: An exception in a worker ended the run, or no worker is left.
        """
        ...


class Coordinator:
    """Assigns videos to workers and turns their reports into the events of the run.

    Args:
        videos: The videos to process.
        lengths: Length of each video by its id, in any unit. A video without an entry counts as short.
        lease_s: Seconds without a report after which a worker is considered dead.
        clock: Returns the current time in seconds.
    """

    def __init__(
        self,
        videos: Iterable[Source],
        lengths: Mapping[str, float],
        *,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = {source.video_id: source for source in videos}
        self._open = {name: {file.video_id for file in source.videos} for name, source in self._files.items()}
        self._name_of = {video_id: name for name, ids in self._open.items() for video_id in ids}
        total = {name: sum(lengths.get(video_id, 0.0) for video_id in ids) for name, ids in self._open.items()}
        self._queue = VideoQueue(total.items(), lease_s=lease_s)
        self._clock = clock
        self._registered: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._settled: set[str] = set()
        self._events: list[RunEvent | WorkerFailure] = []
        self.is_stopping = False

    @property
    def num_remaining(self) -> int:
        """Number of videos that are neither complete nor poisoned."""
        return len(self._queue)

    @property
    def num_workers(self) -> int:
        """Number of workers that have registered and have not died."""
        return len(self._registered)

    def register(self, worker: str) -> bool:
        """Register a worker that starts or restarts. Returns False if it has died too often."""
        if worker in self._registered:
            self.worker_died(worker, "died and was restarted")
        self._registered.add(worker)
        self._queue.renew_lease(worker, self._clock())
        return self._deaths[worker] < MAX_RESTARTS

    def pull(self, worker: str) -> Assignment:
        """Assign the next video to a worker."""
        if not self.num_remaining or self.is_stopping:
            return "over"
        name = self._queue.pull(worker, self._clock())
        return "later" if name is None else self._files[name]

    def report(self, worker: str, report: WorkerReport) -> bool:
        """Process a worker's report. Returns False if the worker must stop."""
        self._queue.renew_lease(worker, self._clock())
        for video_id in report.on_disk:
            name = self._name_of[video_id]
            self._open[name].discard(video_id)
            if not self._open[name]:
                self._queue.complete(worker, name)
            self._deaths[worker] = 0
        for event in report.events:
            # if a worker dies before a processed video is on disk, the video is processed again, but reported only once
            if isinstance(event, Awaiting | Notice) or event.video_id not in self._settled:
                self._events.append(event)
            if isinstance(event, VideoSettled):
                self._settled.add(event.video_id)
        if report.segments or report.busy_s:
            segments = report.segments or {}
            self._events.append(WorkerProgress(sum(segments.values()), report.busy_s or {}, segments))
        if report.failure is not None:
            self._events.append(report.failure)
        return not self.is_stopping

    def worker_died(self, worker: str, how: str) -> bool:
        """Return a dead worker's videos to the queue, except those that are poisoned.

        Args:
            worker: Name of the worker.
            how: Continues the sentence “worker 2 …”.

        Returns:
            False if the worker must not be restarted.
        """
        self._deaths[worker] += 1
        self._registered.discard(worker)
        num_assigned = len(self._queue.assigned_to(worker))
        poisoned = self._queue.worker_died(worker)
        num_returned = num_assigned - len(poisoned)
        self._events.append(Notice(f"{worker} {how}; {num_returned} of its videos return to the queue"))
        for name in poisoned:
            reason = (
                f"{self._files[name].path}: {MAX_DEATHS_PER_VIDEO} workers died while they processed this video "
                f"(the last one {how}); the next run tries again"
            )
            self._events += [PoisonedVideo(video_id, reason) for video_id in sorted(self._open[name])]
        return self._deaths[worker] < MAX_RESTARTS

    def expired_workers(self) -> list[str]:
        """Return the workers without a report for longer than a lease. The caller ends them and calls `worker_died`."""
        return self._queue.expired_workers(self._clock())

    def take_events(self) -> list[RunEvent | WorkerFailure]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events


def raise_failures(events: Iterable[RunEvent | WorkerFailure]) -> Iterator[RunEvent]:
    """Yield the events of a run up to the first `WorkerFailure`, which is raised as the exception it describes.

    Raises:
        ArabesqueError: The worker's exception, if `manifests.errors` defines its class.
        RuntimeError: Any other exception of a worker, with its traceback as the cause.
    """
    for event in events:
        if not isinstance(event, WorkerFailure):
            yield event
            continue
        kind = getattr(errors, event.kind, None)
        if kind is None:
            raise RuntimeError(f"{event.kind}: {event.text}") from RuntimeError(event.trace)
        raise kind(event.text)
