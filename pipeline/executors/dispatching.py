"""The office of a run with several workers: hands out the videos, takes the workers' reports, tells what happened.

One for a run, in one process; calls come from one thread at a time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ...manifests import errors
from ..records import Outcome, VideoFile
from ..work import Awaiting, GivenUp, Notice, VideoSettled, WorkDone
from ..worker import Job
from .video_queue import LEASE_S, LOSSES_ALLOWED, VideoQueue

DEATHS_ALLOWED = 5
"""A worker that is lost as often as this without having finished a video in between is not started again."""

Told = Outcome | VideoSettled | Awaiting | Notice
"""What of a worker's events goes to the office: no features, no plans."""
Pulled = VideoFile | Literal["later", "over"]
"""``"later"``: others have all the videos that are left in hand, and may yet lose them."""
RunEvent = Told | WorkDone | GivenUp | Notice


@dataclass(frozen=True)
class Failure:
    """What ended a worker's work, and with it the run's."""

    kind: str
    text: str
    trace: str


@dataclass(frozen=True)
class Report:
    """What a worker did since its last report; an empty one is a sign of life."""

    told: tuple[Told, ...] = ()
    on_disk: tuple[str, ...] = ()
    """Videos of which everything is on disk: nobody will have to do them again."""
    num_segments: int = 0
    busy_s: Mapping[str, float] | None = None
    tasks: Mapping[str, int] | None = None
    failure: Failure | None = None


class Office(Protocol):
    """How a worker reaches the one who hands out the videos. Several threads may call."""

    def pull(self) -> Pulled: ...

    def report(self, report: Report) -> bool:
        """False where the worker is to stop: the run has ended, or nobody listens any more."""
        ...


Work = Callable[["Job", Office], None]
"""A worker's whole life; see `working.work`."""


class Executor(Protocol):
    """Has several workers carry out a job."""

    def run(
        self, job: Job, videos: Sequence[VideoFile], lengths: Mapping[str, float]
    ) -> Generator[RunEvent, None, None]:
        """What the workers tell, until every video has come to its end; closing it stops them within seconds.

        ``lengths``: see `Dispatcher`. Raises what a worker could not go on from.
        """
        ...


class Dispatcher:
    """Videos out, reports in, events of the run as `news`."""

    def __init__(
        self,
        videos: Iterable[VideoFile],
        lengths: Mapping[str, float],
        *,
        lease_s: float = LEASE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``lengths``: of each video by its id, in whatever unit; where nothing is known of one it counts as short."""
        self._files = {file.video_id: file for file in videos}
        self._queue = VideoQueue(((name, lengths.get(name, 0.0)) for name in self._files), lease_s=lease_s)
        self._clock = clock
        self._entered: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._settled: set[str] = set()
        self._news: list[RunEvent | Failure] = []
        self.is_stopping = False

    @property
    def num_left(self) -> int:
        """Videos that have not come to their end."""
        return len(self._queue)

    @property
    def num_workers(self) -> int:
        """Those that have entered and are not lost."""
        return len(self._entered)

    def enter(self, worker: str) -> bool:
        """A worker begins, perhaps again. False where it has been lost too often."""
        if worker in self._entered:
            self.lose(worker, "was lost and started again")
        self._entered.add(worker)
        self._queue.extend(worker, self._clock())
        return self._deaths[worker] < DEATHS_ALLOWED

    def pull(self, worker: str) -> Pulled:
        if not self.num_left or self.is_stopping:
            return "over"
        name = self._queue.pull(worker, self._clock())
        return "later" if name is None else self._files[name]

    def report(self, worker: str, report: Report) -> bool:
        """False where the worker is to stop."""
        self._queue.extend(worker, self._clock())
        for name in report.on_disk:
            self._queue.settle(worker, name)
            self._deaths[worker] = 0
        for event in report.told:
            self._tell(event)
        if report.num_segments or report.busy_s:
            self._news.append(WorkDone(report.num_segments, report.busy_s or {}, report.tasks or {}))
        if report.failure is not None:
            self._news.append(report.failure)
        return not self.is_stopping

    def lose(self, worker: str, how: str) -> bool:
        """A worker is gone: ``how`` continues “worker 2 …”. False where it is not to be started again."""
        self._deaths[worker] += 1
        self._entered.discard(worker)
        in_hand = self._queue.in_hand(worker)
        given_up = self._queue.lose(worker)
        going_back = len(in_hand) - len(given_up)
        self._news.append(Notice(f"{worker} {how}; videos that it had in hand, to be done again: {going_back}"))
        for name in given_up:
            reason = (
                f"{self._files[name].path}: was in hand each of the {LOSSES_ALLOWED} times that a worker was lost "
                f"(the last one {how}); the next run tries again"
            )
            self._news.append(GivenUp(name, reason))
        return self._deaths[worker] < DEATHS_ALLOWED

    def overdue(self) -> list[str]:
        """Workers that have given no sign of life for too long: to be ended, and then to be told of as lost."""
        return self._queue.overdue(self._clock())

    def news(self) -> list[RunEvent | Failure]:
        """What happened since the last call."""
        news, self._news = self._news, []
        return news

    def _tell(self, event: Told) -> None:
        """A video that was finished, but not on disk when its worker was lost, ends twice; it is told of once."""
        if isinstance(event, Awaiting | Notice) or event.video_id not in self._settled:
            self._news.append(event)
        if isinstance(event, VideoSettled):
            self._settled.add(event.video_id)


def unless_failed(news: Iterable[RunEvent | Failure]) -> Iterator[RunEvent]:
    """The events of the run; raises what a worker could not go on from."""
    for event in news:
        if not isinstance(event, Failure):
            yield event
            continue
        kind = getattr(errors, event.kind, None)
        if kind is None:
            raise RuntimeError(f"{event.kind}: {event.text}") from RuntimeError(event.trace)
        raise kind(event.text)
