"""Which video comes next, and who has it: longest first, on leases. It has no clock and no threads of its own."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

LEASE_S = 60.0
"""A worker that gives no sign of life for this long is taken for lost."""
LOSSES_ALLOWED = 3
"""A video that was in hand as often as this when a worker was lost is taken to be the reason."""

_Entry = tuple[float, int, str]
"""Minus the length, the place in the order of arrival, the id: the heap's order."""


class VideoQueue:
    """Videos that are waiting, and those that workers have in hand. A pull takes O(log n).

    What a lost worker had in hand goes back and comes first; nothing else is done again. Such a video is suspected of
    having been the reason: no worker has two of these at a time, so that the innocent ones get through.
    """

    def __init__(self, videos: Iterable[tuple[str, float]], *, lease_s: float = LEASE_S) -> None:
        """``videos``: id and length of each, in whatever unit; equally long ones keep their order."""
        self._lease_s = lease_s
        self._waiting: list[_Entry] = [(-length, number, name) for number, (name, length) in enumerate(videos)]
        heapq.heapify(self._waiting)
        self._suspects: list[_Entry] = []
        self._open = {name for _, _, name in self._waiting}
        self._in_hand: dict[str, dict[str, _Entry]] = {}
        self._losses: Counter[str] = Counter()
        self._alive_until_s: dict[str, float] = {}
        self._ends: list[tuple[float, str]] = []  # one for each worker: when to look whether its lease has ended
        self._watched: set[str] = set()

    def __len__(self) -> int:
        """How many videos have not come to an end."""
        return len(self._open)

    def in_hand(self, worker: str) -> list[str]:
        return list(self._in_hand.get(worker, ()))

    def pull(self, worker: str, now_s: float) -> str | None:
        """The next video for this worker; None where nothing waits that it may have, for now."""
        self.extend(worker, now_s)
        mine = self._in_hand.setdefault(worker, {})
        entry = None
        if not any(self._losses[name] for name in mine):
            entry = self._first(self._suspects)
        entry = entry or self._first(self._waiting)
        if entry is None:
            return None
        mine[entry[2]] = entry
        return entry[2]

    def extend(self, worker: str, now_s: float) -> None:
        """The worker lives: what it has in hand is its own for another lease."""
        if worker not in self._watched:
            self._watched.add(worker)
            heapq.heappush(self._ends, (now_s + self._lease_s, worker))
        self._alive_until_s[worker] = now_s + self._lease_s

    def settle(self, worker: str, name: str) -> None:
        """The video has come to an end, even if the worker that says so was taken for lost meanwhile."""
        self._in_hand.get(worker, {}).pop(name, None)
        self._open.discard(name)

    def lose(self, worker: str) -> list[str]:
        """The worker is gone, and what it had in hand goes back; returns the videos that are given up instead."""
        self._alive_until_s.pop(worker, None)
        given_up: list[str] = []
        for name, entry in self._in_hand.pop(worker, {}).items():
            if name not in self._open:
                continue
            self._losses[name] += 1
            if self._losses[name] < LOSSES_ALLOWED:
                heapq.heappush(self._suspects, entry)
            else:
                self._open.discard(name)
                given_up.append(name)
        return given_up

    def overdue(self, now_s: float) -> list[str]:
        """Workers whose lease has ended; each is named once, until it gives a sign of life again."""
        found: list[str] = []
        while self._ends and self._ends[0][0] <= now_s:
            _, worker = heapq.heappop(self._ends)
            until_s = self._alive_until_s.get(worker, 0.0)
            if until_s > now_s:
                heapq.heappush(self._ends, (until_s, worker))
                continue
            self._watched.remove(worker)
            if self._alive_until_s.pop(worker, None) is not None:
                found.append(worker)
        return found

    def _first(self, heap: list[_Entry]) -> _Entry | None:
        while heap:
            entry = heapq.heappop(heap)
            if entry[2] in self._open:  # else a worker that was taken for lost has finished it all the same
                return entry
        return None
