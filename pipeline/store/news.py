"""What other runs have written to a store since this one looked at it."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from ..records import Outcome
from .folders import Root, open_folder
from .shard_reading import read_outcomes
from .shards import OUTCOMES, StoredOutcome, shards_in


class OutcomeNews:
    """Outcomes of other writers in files that were not there when this object was made. For several threads."""

    def __init__(self, root: Root) -> None:
        self._folder = open_folder(root)
        self._fresh_until_s = 0.0
        self._seen = set(shards_in(self._folder, OUTCOMES))
        self._ends: dict[tuple[str, str], StoredOutcome] = {}
        self._lock = threading.Lock()

    def refresh(self, own_writer: str) -> None:
        """Read the files that are new; those that are merged meanwhile come under their new name."""
        with self._lock:
            if time.monotonic() < self._fresh_until_s:
                return
            self._fresh_until_s = time.monotonic() + self._folder.relist_after_s
            for shard in shards_in(self._folder, OUTCOMES):
                if shard not in self._seen:
                    with suppress(FileNotFoundError):
                        self._read(shard, own_writer)
                    self._seen.add(shard)

    def get(self, video_id: str, stream: str) -> Outcome | None:
        """The newest of them for (video, stream); merged files repeat what is old."""
        found = self._ends.get((video_id, stream))
        return None if found is None else found.outcome

    def _read(self, shard: str, own_writer: str) -> None:
        for stored in read_outcomes(self._folder, shard):
            known = self._ends.get(stored.name)
            if stored.writer != own_writer and (known is None or stored.written_us > known.written_us):
                self._ends[stored.name] = stored
