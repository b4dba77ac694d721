"""Queue of videos, longest first, with a lease for each worker. It uses neither a clock nor threads."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

LEASE_S = 60.0
"""A worker that sends no heartbeat for this long is considered dead."""
MAX_DEATHS_PER_VIDEO = 3
"""A video that was assigned to this many workers when they died is poisoned: it is not assigned again."""

_Entry = tuple[float, int, str]
"""Heap entry: negative length, position in the order of arrival, video id."""


class VideoQueue:
    """Waiting videos and the videos assigned to each worker. A pull takes O(log n).

    The videos of a worker that died return to the queue and are assigned first. Each of them is a suspect, because it
    may have caused the death. A worker has at most one suspect at a time, so that the other videos are processed.

    Args:
        videos: Id and length of each video. The unit of the length does not matter; videos of equal length keep their
            order.
        lease_s: Seconds without a heartbeat after which a worker's lease expires.
    """

    def __init__(self, videos: Iterable[tuple[str, float]], *, lease_s: float = LEASE_S) -> None:
        self._lease_s = lease_s
        self._waiting: list[_Entry] = [(-length, number, name) for number, (name, length) in enumerate(videos)]
        heapq.heapify(self._waiting)
        self._suspects: list[_Entry] = []
        self._remaining = {name for _, _, name in self._waiting}
        self._assigned: dict[str, dict[str, _Entry]] = {}
        self._deaths: Counter[str] = Counter()
        self._lease_ends_s: dict[str, float] = {}
        self._checks: list[tuple[float, str]] = []  # heap with one entry per worker: when to check its lease next
        self._watched: set[str] = set()

    def __len__(self) -> int:
        """Return the number of videos that are neither complete nor poisoned."""
        return len(self._remaining)

    def assigned_to(self, worker: str) -> list[str]:
        """Return the ids of the videos that a worker is processing."""
        return list(self._assigned.get(worker, ()))

    def pull(self, worker: str, now_s: float) -> str | None:
        """Assign the next video to a worker.

        Returns:
            The id of the video, or None if this worker may not have any of the waiting videos at the moment.
        """
        self.renew_lease(worker, now_s)
        assigned = self._assigned.setdefault(worker, {})
        entry = None
        if not any(self._deaths[name] for name in assigned):
            entry = self._pop(self._suspects)
        entry = entry or self._pop(self._waiting)
        if entry is None:
            return None
        assigned[entry[2]] = entry
        return entry[2]

    def renew_lease(self, worker: str, now_s: float) -> None:
        """Record a heartbeat: the worker keeps its videos for another lease."""
        if worker not in self._watched:
            self._watched.add(worker)
            heapq.heappush(self._checks, (now_s + self._lease_s, worker))
        self._lease_ends_s[worker] = now_s + self._lease_s

    def complete(self, worker: str, name: str) -> None:
        """Remove a video that is complete, even if its worker was considered dead in between."""
        self._assigned.get(worker, {}).pop(name, None)
        self._remaining.discard(name)

    def worker_died(self, worker: str) -> list[str]:
        """Return the videos of a dead worker to the queue.

        Returns:
            Ids of the videos that are poisoned instead.
        """
        self._lease_ends_s.pop(worker, None)
        poisoned: list[str] = []
        for name, entry in self._assigned.pop(worker, {}).items():
            if name not in self._remaining:
                continue
            self._deaths[name] += 1
            if self._deaths[name] < MAX_DEATHS_PER_VIDEO:
                heapq.heappush(self._suspects, entry)
            else:
                self._remaining.discard(name)
                poisoned.append(name)
        return poisoned

    def expired_workers(self, now_s: float) -> list[str]:
        """Return the workers whose lease has expired. Each is returned once, until it sends a heartbeat again."""
        expired: list[str] = []
        while self._checks and self._checks[0][0] <= now_s:
            _, worker = heapq.heappop(self._checks)
            end_s = self._lease_ends_s.get(worker, 0.0)
            if end_s > now_s:
                heapq.heappush(self._checks, (end_s, worker))
                continue
            self._watched.remove(worker)
            if self._lease_ends_s.pop(worker, None) is not None:
                expired.append(worker)
        return expired

    def _pop(self, heap: list[_Entry]) -> _Entry | None:
        while heap:
            entry = heapq.heappop(heap)
            if entry[2] in self._remaining:  # a worker that was considered dead may have completed it
                return entry
        return None
