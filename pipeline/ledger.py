"""What earlier runs settled, read from the store itself: there is no second record that could disagree."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from .keys import row_key
from .records import Outcome, VideoFile


@dataclass(frozen=True)
class Ledger:
    """Keys of whole rows and the latest outcome of every (video, stream) of a store."""

    row_keys: frozenset[str] = frozenset()
    outcomes: dict[tuple[str, str], Outcome] = field(default_factory=dict[tuple[str, str], Outcome])
    retry_failed: bool = False
    """Also take up failures and partial videos that their bytes are to blame for."""

    def is_settled(self, video_id: str, stream: str, key: str) -> bool:
        """Whether nothing is left to do for (video, stream) with these very bytes and settings."""
        outcome = self.outcomes.get((video_id, stream))
        if outcome is None or outcome.key != key:
            return False  # a row without its outcome was cut off between the two: see `lacks_only_outcome`
        if outcome.kind == "failed":
            return not (outcome.transient or self.retry_failed)
        if outcome.kind == "partial" and self.retry_failed:
            return False
        return outcome.kind == "empty" or key in self.row_keys

    def known_digest(self, file: VideoFile) -> str:
        """The file's content digest from an earlier run, as long as its size and time are as they were; else ``""``."""
        try:
            status = os.stat(file.path)
        except OSError:
            return ""
        return self._digests.get((file.video_id, status.st_size, status.st_mtime_ns), "")

    def is_video_settled(self, file: VideoFile, settings_digests: dict[str, str]) -> bool:
        """Whether the file need not even be opened. ``settings_digests``: stream → its settings' digest."""
        digest = self.known_digest(file)
        return bool(digest) and all(
            self.is_settled(file.video_id, stream, row_key(digest, settings))
            for stream, settings in settings_digests.items()
        )

    @property
    def _digests(self) -> dict[tuple[str, int, int], str]:
        return {
            (outcome.video_id, outcome.size_bytes, outcome.modified_ns): outcome.content_digest
            for outcome in self.outcomes.values()
            if outcome.content_digest
        }
