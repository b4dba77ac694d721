"""What earlier runs settled, read from the store itself: there is no second record that could disagree."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..manifests.errors import DecodeError
from .decoding.probing import check_file, content_digest
from .keys import row_key
from .records import Outcome, VideoFile
from .store.folders import Root
from .store.manifest import is_store
from .store.reader import FeatureStore


class Ledger:
    """The latest outcome of every (video, stream) of a store.

    ``retry_failed`` also takes up failures and partial videos that their bytes are to blame for.
    """

    def __init__(self, outcomes: Iterable[Outcome] = (), *, retry_failed: bool = False) -> None:
        self._outcomes = {(outcome.video_id, outcome.stream): outcome for outcome in outcomes}
        self._retry_failed = retry_failed
        self._digests = {
            (outcome.video_id, outcome.size_bytes, outcome.modified_ns): outcome.content_digest
            for outcome in self._outcomes.values()
            if outcome.content_digest and _is_recorded(outcome)
        }

    def outcome(self, video_id: str, stream: str) -> Outcome | None:
        return self._outcomes.get((video_id, stream))

    def is_settled(self, video_id: str, stream: str, key: str) -> bool:
        """Whether nothing is left to do for (video, stream) with these very bytes and settings."""
        outcome = self._outcomes.get((video_id, stream))
        if outcome is None or outcome.key != key:
            return False
        if outcome.kind == "failed":
            return not (outcome.transient or self._retry_failed)
        if outcome.kind == "partial":
            return _is_recorded(outcome) and not self._retry_failed
        return True

    def unrecorded(self, file: VideoFile, streams: Iterable[str], size_bytes: int, modified_ns: int) -> list[Outcome]:
        """Outcomes of whole rows whose writer was killed before it could write them; now they can be written."""
        found = (self._outcomes.get((file.video_id, stream)) for stream in streams)
        return [
            replace(outcome, size_bytes=size_bytes, modified_ns=modified_ns)
            for outcome in found
            if outcome is not None and outcome.kind == "done" and not _is_recorded(outcome)
        ]

    def known_digest(self, file: VideoFile) -> str:
        """The file's content digest from an earlier run, as long as its size and time are as they were; else ``""``."""
        try:
            status = os.stat(file.path)
        except OSError:
            return ""
        return self._digests.get((file.video_id, status.st_size, status.st_mtime_ns), "")

    def has_other_bytes(self, file: VideoFile) -> bool:
        """Whether the store has features of another video under the file's id; reads the file where that is open."""
        kept = {
            end.content_digest for (name, _), end in self._outcomes.items() if name == file.video_id and end.segments
        }
        try:
            check_file(file.path)
            return bool(kept) and content_digest(file.path) not in kept
        except (DecodeError, OSError):
            return False  # a file that cannot be read replaces nothing

    def is_video_settled(self, file: VideoFile, settings_digests: Mapping[str, str]) -> bool:
        """Whether the file need not even be opened. ``settings_digests``: stream → its settings' digest."""
        return not self.open_streams(file, settings_digests)

    def open_streams(self, file: VideoFile, settings_digests: Mapping[str, str]) -> list[str]:
        """Streams that have no end that a glance at the file would show to be its own."""
        digest = self.known_digest(file)
        return [
            stream
            for stream, settings in settings_digests.items()
            if not digest
            or not self.is_settled(file.video_id, stream, row_key(digest, settings))
            or not _is_recorded(self._outcomes[file.video_id, stream])
        ]


def read_ledger(root: Root, *, retry_failed: bool = False) -> Ledger:
    """The ledger of a store, or an empty one where there is no store yet."""
    outcomes = FeatureStore(root, partial=True).outcomes() if is_store(root) else []
    return Ledger(outcomes, retry_failed=retry_failed)


def _is_recorded(outcome: Outcome) -> bool:
    """Whether the outcome was written, and not made up from a row that stands alone."""
    return outcome.modified_ns != 0
