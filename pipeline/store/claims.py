"""Claims: which of the runs on a store has a video in hand, so that little is done twice.

A claim is a small file of the store's ``.claims`` folder, named for the video, that tells the writer who holds it. It
counts as long as that writer lives, which the kernel knows (see `writer_locks`): those of a killed run are free at
once, whatever the clock says. Claims save work, nothing else: two runs that do the same video do no harm.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .atomic_files import explained
from .writer_locks import is_living, open_lock

_CLAIMS = ".claims"


class Claims:
    """The claims of one writer, who must live (hold its lock). Safe to call from several threads."""

    def __init__(self, root: Path, writer_id: str) -> None:
        self._root = root
        self._folder = root / _CLAIMS
        self._writer_id = writer_id

    def take(self, video_id: str) -> bool:
        """Whether the video is this writer's now; StoreError where claims cannot be written."""
        path = self._path(video_id)
        with _alone(self._folder):
            if not _is_free(self._root, path, self._writer_id):
                return False
            with explained(path):
                _write(path, json.dumps({"writer": self._writer_id, "video_id": video_id}).encode())
        return True

    def is_free(self, video_id: str) -> bool:
        return _is_free(self._root, self._path(video_id), self._writer_id)

    def give_back(self, video_ids: Iterable[str]) -> None:
        """The caller must have taken them."""
        for video_id in video_ids:
            _remove(self._path(video_id))

    def _path(self, video_id: str) -> Path:
        name = hashlib.sha256(os.fsencode(video_id)).hexdigest()[:32]
        return self._folder / f"{name}.json"


def sweep_claims(root: Path) -> None:
    """Remove the claims of dead writers."""
    folder = root / _CLAIMS
    if folder.exists():
        with _alone(folder):
            for path in folder.glob("*.json"):
                if _is_free(root, path, ""):
                    _remove(path)


def _is_free(root: Path, path: Path, own_writer: str) -> bool:
    try:
        owner = str(json.loads(path.read_bytes())["writer"])
    except (OSError, ValueError, LookupError, TypeError):
        return True  # nobody's, or of a run that was killed while it wrote it
    return owner == own_writer or not is_living(root, owner)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One at a time looks whether a claim is free and takes it."""
    descriptor = open_lock(folder / "lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    """Not forced to the disk: no claim outlives a power cut anyway."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
