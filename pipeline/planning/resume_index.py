"""Resume index: the work that earlier runs have done, read from the store, which is its only record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..digests import row_key
from ..records import PROTECTED_KINDS, Outcome, VideoFile, fragment_of, source_path
from ..store.files.storage import StorePath, retry_on_missing
from ..store.index import numbers, pc, string_array
from ..store.manifest import is_store, read_manifest, stream_entries
from ..store.outcomes import OutcomeTable, read_outcome_table
from ..store.store import Store


class ResumeIndex:
    """The latest outcome of every (video, stream) of a store.

    Args:
        outcomes: Outcomes of the store; None: a new store.
        retry_failed: Whether permanent failures and partial videos count as remaining.
    """

    def __init__(self, outcomes: OutcomeTable | None = None, *, retry_failed: bool = False) -> None:
        self._ends = outcomes
        if outcomes is None:
            return
        failed, partial = outcomes.are("kind", "failed"), outcomes.are("kind", "partial")
        self._are_recorded = outcomes.numbers("modified_ns") != 0
        to_retry = failed | partial if retry_failed else failed & (outcomes.numbers("transient") == 1)
        # the rule for what is done; a partial row without a written outcome has no holes, and is computed again
        self._are_final = ~to_retry & (self._are_recorded | ~partial)

    def outcome(self, video_id: str, stream: str) -> Outcome | None:
        """Return the latest outcome of a (video, stream)."""
        return next((end for end in self.of_video(video_id) if end.stream == stream), None)

    def is_done(self, video_id: str, stream: str, key: str) -> bool:
        """Return whether (video, stream) is done for the content and settings of ``key``."""
        if self._ends is None:
            return False
        span = self._ends.span(video_id)
        for place, end in enumerate(self._ends.outcomes(span), span.start):
            if end.stream == stream:
                # a key may depend on the tracks (`VideoMetadata.tracks`), which follow from content and settings
                is_same = key in (end.key, row_key(end.content_digest, end.settings_digest))
                return is_same and bool(self._are_final[place])
        return False

    def has_final_outcome(self, video_id: str, stream: str, settings: str) -> bool:
        """Return whether (video, stream) is done under these settings, for any content of the file."""
        end = self.outcome(video_id, stream)
        return end is not None and self.is_done(video_id, stream, row_key(end.content_digest, settings))

    def unwritten_outcomes(
        self, file: VideoFile, streams: Iterable[str], size_bytes: int, modified_ns: int
    ) -> list[Outcome]:
        """Return the outcomes of complete rows whose writer was killed before it wrote them."""
        wanted = set(streams)
        return [
            replace(end, size_bytes=size_bytes, modified_ns=modified_ns)
            for end in self.of_video(file.video_id)
            if end.stream in wanted and end.kind == "done" and not _is_recorded(end)
        ]

    def known_digest(self, file: VideoFile) -> str:
        """Return the file's digest from an earlier run if its size and modification time are unchanged, else ``""``."""
        state = file.current_state
        if state is None:
            return ""
        now = state.size_bytes, state.modified_ns
        ends = (
            end
            for end in self.of_video(file.video_id)
            if _is_recorded(end) and end.content_digest and fragment_of(end.content_digest) == file.fragment
        )
        return next((end.content_digest for end in ends if (end.size_bytes, end.modified_ns) == now), "")

    def of_video(self, video_id: str) -> list[Outcome]:
        """Return the outcomes of a video for all streams of the store."""
        return [] if self._ends is None else self._ends.of_video(video_id)

    def sources_to_compare(self, files: Sequence[VideoFile]) -> list[VideoFile]:
        """Return files that may be other sources than the stored videos with the same ids. Opens no file."""
        if self._ends is None:
            return []
        ids, ends = [file.video_id for file in files], self._ends
        sizes, times = _sizes_and_times(files)
        paths = string_array([source_path(file) for file in files])
        protected, stored = ends.are("kind", *PROTECTED_KINDS), ends.source_paths()
        stored_sizes, stored_times = ends.numbers("size_bytes"), ends.numbers("modified_ns")
        found = np.zeros(len(files), bool)
        for stream in ends.streams:
            at = ends.places_of(ids, stream)
            known = np.flatnonzero((at >= 0) & _at(protected, at))
            same = (_at(stored_sizes, at) == sizes) & (_at(stored_times, at) == times)
            of_stored, of_files = pa.array(at[known], pa.int64()), pa.array(known, pa.int64())
            elsewhere = numbers(pc.not_equal(stored.take(of_stored), paths.take(of_files)))
            found[known] |= (elsewhere == 1) & ~(same & (times != 0))[known]
        return [file for file, is_found in zip(files, found, strict=True) if is_found]

    def remaining_streams(self, file: VideoFile, settings_digests: Mapping[str, str]) -> list[str]:
        """Return the streams without a final outcome for this file, judged by its size and modification time."""
        digest = self.known_digest(file)
        ends = {end.stream: end for end in self.of_video(file.video_id) if _is_recorded(end)}
        return [
            stream
            for stream, settings in settings_digests.items()
            if not digest or stream not in ends or not self.is_done(file.video_id, stream, row_key(digest, settings))
        ]

    def are_done(self, files: Sequence[VideoFile], settings_digests: Mapping[str, str]) -> NDArray[np.bool_]:
        """Return which files are done for all streams, judged by size and modification time. Opens no file.

        Args:
            files: The files.
            settings_digests: Stream → settings digest. Content and settings digest determine the key.

        Returns:
            ``bool [files]``.
        """
        if self._ends is None:
            return np.zeros(len(files), bool)
        ids, ends = [file.video_id for file in files], self._ends
        sizes, times = _sizes_and_times(files)
        contents = np.where(ends.are("content_digest", ""), -1, ends.codes("content_digest"))
        known = np.full(len(files), -1)
        stored_fragments, fragments = ends.fragments(), np.array([file.fragment for file in files], object)
        for stream in ends.streams:
            at = ends.places_of(ids, stream)
            same = _at(ends.numbers("size_bytes"), at) == sizes
            same &= _at(ends.numbers("modified_ns"), at) == times
            same &= _at(stored_fragments, at) == fragments
            known = np.where((at >= 0) & same & (known < 0) & (times != 0), _at(contents, at), known)
        final = self._are_recorded & self._are_final
        settled = known >= 0
        for stream, settings in settings_digests.items():
            at = ends.places_of(ids, stream)
            there = _at(final & ends.are("settings_digest", settings), at) & (_at(contents, at) == known)
            settled &= (at >= 0) & there
        return settled


def read_resume_index(place: Store | StorePath, *, retry_failed: bool = False) -> ResumeIndex:
    """Read the resume index of a store; it is empty if the store does not exist."""
    store = Store.open(place)
    if not is_store(store):
        return ResumeIndex(retry_failed=retry_failed)
    settings = {name: entry.settings_digest for name, entry in stream_entries(read_manifest(store)).items()}
    outcomes = retry_on_missing(lambda: read_outcome_table(store.storage, settings), store.storage)
    return ResumeIndex(outcomes, retry_failed=retry_failed)


def _is_recorded(outcome: Outcome) -> bool:
    """Return whether the outcome was written, not derived from a row without an outcome."""
    return outcome.modified_ns != 0


def _sizes_and_times(files: Sequence[VideoFile]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sizes in bytes and modification times in ns; 0 for files without a known state."""
    states = [file.state or file.current_state for file in files]
    sizes = (0 if state is None else state.size_bytes for state in states)
    times = (0 if state is None else state.modified_ns for state in states)
    return np.fromiter(sizes, np.int64, len(files)), np.fromiter(times, np.int64, len(files))


def _at(values: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
    """Return the value at each place; arbitrary for place -1."""
    return np.append(values, values[:1])[places] if len(values) else np.zeros(len(places), values.dtype)
