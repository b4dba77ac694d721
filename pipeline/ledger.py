"""What earlier runs settled, read from the store itself: there is no second record that could disagree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..manifests.errors import DecodeError, StoreError
from .decoding.probing import check_file, content_digest
from .keys import row_key
from .records import Outcome, VideoFile
from .spooling import local_copy
from .store.ends import Ends
from .store.folders import Root
from .store.manifest import is_store
from .store.reader import FeatureStore


class Ledger:
    """The latest outcome of every (video, stream) of a store.

    ``retry_failed`` also takes up failures and partial videos that their bytes are to blame for.
    """

    def __init__(self, ends: Ends | None = None, *, retry_failed: bool = False) -> None:
        self._ends = ends or Ends.of([])
        self._retry_failed = retry_failed

    def outcome(self, video_id: str, stream: str) -> Outcome | None:
        return next((end for end in self._ends.of_video(video_id) if end.stream == stream), None)

    def is_settled(self, video_id: str, stream: str, key: str) -> bool:
        """Whether nothing is left to do for (video, stream) with these very bytes and settings."""
        outcome = self.outcome(video_id, stream)
        if outcome is None or outcome.key != key:
            return False
        if outcome.kind == "failed":
            return not (outcome.transient or self._retry_failed)
        if outcome.kind == "partial":
            return _is_recorded(outcome) and not self._retry_failed
        return True

    def has_lasting_end(self, video_id: str, stream: str, settings: str) -> bool:
        """Whether (video, stream) is settled under these settings, whatever bytes the video has now."""
        end = self.outcome(video_id, stream)
        return end is not None and self.is_settled(video_id, stream, row_key(end.content_digest, settings))

    def unrecorded(self, file: VideoFile, streams: Iterable[str], size_bytes: int, modified_ns: int) -> list[Outcome]:
        """Outcomes of whole rows whose writer was killed before it could write them; now they can be written."""
        wanted = set(streams)
        return [
            replace(end, size_bytes=size_bytes, modified_ns=modified_ns)
            for end in self._ends.of_video(file.video_id)
            if end.stream in wanted and end.kind == "done" and not _is_recorded(end)
        ]

    def known_digest(self, file: VideoFile) -> str:
        """The file's content digest from an earlier run, as long as its size and time are as they were; else ``""``."""
        state = file.current_state
        if state is None:
            return ""
        now = state.size_bytes, state.modified_ns
        ends = (end for end in self._ends.of_video(file.video_id) if _is_recorded(end) and end.content_digest)
        return next((end.content_digest for end in ends if (end.size_bytes, end.modified_ns) == now), "")

    def has_other_bytes(self, file: VideoFile) -> bool:
        """Whether the store has features of another video under the file's id; reads the file where that is open."""
        kept = {end.content_digest for end in self._ends.of_video(file.video_id) if end.segments}
        if not kept:
            return False
        try:
            with local_copy(file) as path:
                check_file(path)
                return content_digest(path) not in kept
        except (DecodeError, StoreError, OSError):
            return False  # a file that cannot be read replaces nothing

    def open_streams(self, file: VideoFile, settings_digests: Mapping[str, str]) -> list[str]:
        """Streams that have no end that a glance at the file would show to be its own."""
        digest = self.known_digest(file)
        ends = {end.stream: end for end in self._ends.of_video(file.video_id) if _is_recorded(end)}
        return [
            stream
            for stream, settings in settings_digests.items()
            if not digest or stream not in ends or not self.is_settled(file.video_id, stream, row_key(digest, settings))
        ]

    def settled(self, files: Sequence[VideoFile], settings_digests: Mapping[str, str]) -> NDArray[np.bool_]:
        """Which files need not even be opened. ``settings_digests``: stream → its settings' digest.

        Each is looked at once, and never read. Of an end with the digests of these bytes and these settings the key
        is theirs, too.
        """
        ids, ends = [file.video_id for file in files], self._ends
        sizes, times = _sizes_and_times(files)
        recorded = ends.numbers("modified_ns") != 0
        contents = np.where(ends.are("content_digest", ""), -1, ends.codes("content_digest"))
        known = np.full(len(files), -1)
        for stream in ends.streams:
            at = ends.places_of(ids, stream)
            same = _at(ends.numbers("size_bytes"), at) == sizes
            same &= _at(ends.numbers("modified_ns"), at) == times
            known = np.where((at >= 0) & same & (known < 0) & (times != 0), _at(contents, at), known)
        lasting = recorded & self._are_lasting()
        settled = known >= 0
        for stream, settings in settings_digests.items():
            at = ends.places_of(ids, stream)
            there = _at(lasting & ends.are("settings_digest", settings), at) & (_at(contents, at) == known)
            settled &= (at >= 0) & there
        return settled

    def _are_lasting(self) -> NDArray[np.bool_]:
        """Ends that are final for the bytes and settings that they speak of; see `is_settled`."""
        to_retry = self._ends.are("kind", "failed") & (self._ends.numbers("transient") == 1)
        if self._retry_failed:
            to_retry |= self._ends.are("kind", "failed", "partial")
        return ~to_retry


def read_ledger(root: Root, *, retry_failed: bool = False) -> Ledger:
    """The ledger of a store, or an empty one where there is no store yet."""
    ends = FeatureStore(root, partial=True).ends if is_store(root) else None
    return Ledger(ends, retry_failed=retry_failed)


def _is_recorded(outcome: Outcome) -> bool:
    """Whether the outcome was written, and not made up from a row that stands alone."""
    return outcome.modified_ns != 0


def _sizes_and_times(files: Sequence[VideoFile]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """In bytes and ns; 0 for files that cannot be looked at."""
    states = [file.state or file.current_state for file in files]
    sizes = (0 if state is None else state.size_bytes for state in states)
    times = (0 if state is None else state.modified_ns for state in states)
    return np.fromiter(sizes, np.int64, len(files)), np.fromiter(times, np.int64, len(files))


def _at(values: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """What stands at each place, and anything for -1."""
    return np.append(values, values[:1])[places] if len(values) else np.zeros(len(places), values.dtype)
