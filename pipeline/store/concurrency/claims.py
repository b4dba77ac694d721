"""Claims: which of the runs on a store processes a video, so that little work is done twice.

A claim is a small file in the store's ``.claims`` folder. Its name derives from the video and its content names the
writer. A claim is valid while its writer lives, which the kernel knows (see `writer_locks`), and makes progress: the
writer's process renews the time of its lock file every few seconds. An observer compares this time with the one it read
before and measures by its own monotonic clock, so that clocks need not agree. A claim is free if its writer's lock file
has not changed for `PATIENCE_S` (a stopped process, a frozen node). If that writer continues later, what it adds has an
older counter than what the run that took over has added (see `index`).

Claims only save work: two runs that process the same video do no harm.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..files.local import disk_errors, inside
from .writer_locks import PATIENCE_S, heartbeat, holding, is_living

_CLAIMS = ".claims"
_LONGEST_CLAIM = 1 << 16  # bytes
MAX_LEAD = 1 << 32
"""A claim whose counter is this far ahead of the store's is damaged or forged."""


class Claims:
    """The claims of one writer, which must hold its lock. Thread-safe."""

    def __init__(self, root: Path, writer_id: str, *, patience_s: float = PATIENCE_S) -> None:
        self._root = root
        # A process that is stopped while it holds the lock does not block others: at worst two claim one video.
        self._lock = root / _CLAIMS / "lock"
        self._writer_id = writer_id
        self._stalls = _Stalls(root, patience_s)

    def take(self, video_id: str) -> bool:
        """Try to claim a video; return whether this writer holds it. Raises StoreError if claims cannot be written."""
        path = self._path(video_id)
        with holding(self._lock, PATIENCE_S / 10):
            owner, counter = _read(path)
            if not self._is_free(owner):
                return False
            self._write(path, video_id, counter)
        return True

    def advance(self, video_id: str, counter: int) -> int:
        """Return the counter for a look at a video that this writer has taken: at least ``counter``, and greater than
        that of each look under an earlier claim of the video that was not given back."""
        path = self._path(video_id)
        with holding(self._lock, PATIENCE_S / 10):
            _, earlier = _read(path)
            if earlier is not None and earlier < counter + MAX_LEAD:
                counter = max(counter, earlier + 1)
            self._write(path, video_id, counter)
        return counter

    def is_free(self, video_id: str) -> bool:
        return self._is_free(_read(self._path(video_id))[0])

    def release(self, video_ids: Iterable[str]) -> None:
        """Release claims of this writer. Claims that another run has taken over are kept."""
        with holding(self._lock, PATIENCE_S / 10):
            for video_id in video_ids:
                path = self._path(video_id)
                if _read(path)[0] == self._writer_id:
                    with suppress(FileNotFoundError):
                        os.unlink(path)

    def _is_free(self, owner: str) -> bool:
        return owner == self._writer_id or not is_living(self._root, owner) or self._stalls.has_stalled(owner)

    def _write(self, path: Path, video_id: str, counter: int | None) -> None:
        """Write without fsync: claims do not survive a power cut anyway."""
        claim = {"writer": self._writer_id, "video_id": video_id, "counter": counter}
        with disk_errors(path):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o666)
            try:
                os.write(descriptor, json.dumps(claim).encode())
            finally:
                os.close(descriptor)

    def _path(self, video_id: str) -> Path:
        name = hashlib.sha256(os.fsencode(video_id)).hexdigest()[:32]
        return inside(self._root, f"{_CLAIMS}/{name}.json")


class _Stalls:
    """Tracks whether other writers make progress, as observed by this process."""

    def __init__(self, root: Path, patience_s: float) -> None:
        self._root = root
        self._patience_s = patience_s
        self._seen: dict[str, tuple[int, float, float]] = {}  # writer → heartbeat, still for, looked at
        self._lock = threading.Lock()

    def has_stalled(self, writer_id: str) -> bool:
        """Return whether a writer has made no progress for the whole patience.

        The time between two calls counts up to a tenth of the patience only: this process may have been stopped too.
        """
        beat, now_s = heartbeat(self._root, writer_id), time.monotonic()
        with self._lock:
            known, still_s, looked_s = self._seen.get(writer_id, (beat, 0.0, now_s))
            still_s = still_s + min(now_s - looked_s, self._patience_s / 10) if beat == known else 0.0
            self._seen[writer_id] = beat, still_s, now_s
        return still_s >= self._patience_s


def sweep_claims(root: Path) -> None:
    """Remove the claims of dead writers."""
    folder = inside(root, f"{_CLAIMS}/lock").parent
    if folder.exists():
        with holding(folder / "lock", PATIENCE_S / 10):
            for path in folder.glob("*.json"):
                if not is_living(root, _read(path)[0]):
                    with suppress(FileNotFoundError):
                        os.unlink(path)


def _read(path: Path) -> tuple[str, int | None]:
    """Return writer and counter of a claim; no writer if there is none or its writer was killed while writing it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return "", None
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            claim: dict[str, object] = json.loads(os.read(descriptor, _LONGEST_CLAIM))
            counter = claim.get("counter")
            return str(claim.get("writer")), counter if isinstance(counter, int) else None
    except (OSError, ValueError, RecursionError, AttributeError):  # AttributeError: the text is not that of a claim
        pass
    finally:
        os.close(descriptor)
    return "", None
