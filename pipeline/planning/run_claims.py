"""Division of the work among several runs that write to the same store.

A run claims each video before it decodes it. Videos claimed by other runs are deferred; when this run has no other
work, it waits for them and takes over those whose run has died.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum

from ...manifests.errors import InputError, StoreError
from ...manifests.urls import public_url
from ..digests import row_key
from ..items import Awaiting, VideoSettled
from ..records import Outcome, Source, VideoFile, source_path
from ..store.files.storage import StorePath
from ..store.shard_reading import read_outcomes
from ..store.shards import OUTCOMES, StoredOutcome, shards_in
from ..store.store import Store
from ..store.writer import StoreWriter
from .resume_index import ResumeIndex
from .sources import is_other_source, is_same_file, is_same_part, refusal

POLL_S = 0.5


class Claim(Enum):
    """Result of an attempt to claim a video."""

    GRANTED = "granted"
    HELD_BY_OTHER = "held by another run"
    ALREADY_DONE = "completed by another run"


class OutcomeWatcher:
    """Reads outcomes of other writers from files that were written after this object was created. Thread-safe."""

    def __init__(self, place: Store | StorePath) -> None:
        self._storage = Store.open(place).storage
        self._fresh_until_s = 0.0
        self._seen = set(shards_in(self._storage, OUTCOMES))
        self._newest: dict[str, dict[str, StoredOutcome]] = {}  # by video and stream
        self._lock = threading.Lock()
        self.greatest_counter = 0
        """Greatest counter of the outcomes that were read."""

    def refresh(self, own_writer: str, *, at_once: bool = False) -> None:
        """Read the new files. Files that are merged at the same time are read under their new name.

        If listing files is slow, it is repeated only every ``relist_after_s``, unless ``at_once`` is True.
        """
        with self._lock:
            if time.monotonic() < self._fresh_until_s and not at_once:
                return
            self._fresh_until_s = time.monotonic() + self._storage.relist_after_s
            for shard in shards_in(self._storage, OUTCOMES):
                if shard not in self._seen:
                    with suppress(FileNotFoundError):
                        self._read(shard, own_writer)
                    self._seen.add(shard)

    def of_video(self, video_id: str) -> dict[str, Outcome]:
        """Return the newest outcome of each stream, including streams that this run does not extract.

        Merged files repeat old outcomes.
        """
        return {stream: found.outcome for stream, found in list(self._newest.get(video_id, {}).items())}

    def _read(self, shard: str, own_writer: str) -> None:
        for stored in read_outcomes(self._storage, shard):
            video_id, stream = stored.name
            known = self._newest.get(video_id, {}).get(stream)
            self.greatest_counter = max(self.greatest_counter, stored.counter)
            if stored.writer != own_writer and (known is None or stored.age > known.age):
                self._newest.setdefault(video_id, {})[stream] = stored


@dataclass(eq=False)
class RunClaims:
    """Claims videos for one run, and tracks which videos other runs complete.

    The decode stage calls `claim`, `refuse_other_source` and `has_read` from several threads; all other methods may
    only be called from the thread that drives the run.
    """

    writer: StoreWriter
    """This run's writer. Its id identifies the owner of a claim."""
    resume_index: ResumeIndex
    """Outcomes of earlier runs."""
    outcome_watcher: OutcomeWatcher
    """Outcomes of other runs since it was opened. Open it *before* reading ``resume_index``: an outcome that is written
    in between is then seen twice rather than missed."""
    settings_digests: Mapping[str, str]
    """Stream → settings digest."""
    replaces_sources: bool = False
    """Whether another source file may replace the rows of a video with the same id."""
    has_read: Callable[[Source], None] = lambda source: None
    """Called when the decode stage has read a file."""
    deferred: list[VideoFile] = field(default_factory=list[VideoFile], init=False)
    """Videos that other runs hold."""
    read_without_claims: dict[str, tuple[VideoFile, str]] = field(
        default_factory=dict[str, tuple[VideoFile, str]], init=False
    )
    """On object storage: video id → file and content digest of each video that this run has begun."""

    def claim(self, file: VideoFile) -> Claim:
        """Try to claim a video. A video that another run holds is deferred; see `remaining`."""
        if not self.writer.lease.take(file.video_id):
            self.deferred.append(file)
            return Claim.HELD_BY_OTHER
        self.outcome_watcher.refresh(self.writer.writer_id)
        if not self._is_complete(file):
            counter = self.writer.next_counter(self.outcome_watcher.greatest_counter)
            self.writer.begin_reading(file.video_id, self.writer.lease.advance(file.video_id, counter))
            return Claim.GRANTED
        self.writer.lease.release([file.video_id])
        return Claim.ALREADY_DONE

    def refuse_other_source(self, file: VideoFile, content_digest: str) -> None:
        """Raise `InputError` if the store has rows of another source file with the same id and other bytes.

        The run must have claimed the video, so that no other run adds rows for it. `sources` has compared the inputs
        with the store before the run; this method checks the rows that concurrent runs have stored since.
        """
        if self.replaces_sources:
            return
        if not self.writer.store.coordination.exclusive:
            self.read_without_claims[file.video_id] = file, content_digest
        newer = self.outcome_watcher.of_video(file.video_id)
        for outcome in (*self.resume_index.of_video(file.video_id), *newer.values()):
            if outcome.source and is_other_source(outcome, file) and outcome.content_digest != content_digest:
                raise InputError(refusal(self.writer.store.path, [(outcome, file)]))

    def is_free(self, source: Source) -> bool:
        """Return whether `claim` would probably be granted for a video of the file."""
        return any(self.writer.lease.is_free(file.video_id) for file in source.videos)

    def remaining(self) -> Iterator[VideoFile | VideoSettled | Awaiting]:
        """Wait for the deferred videos and yield the ones that this run has to take over.

        Yields:
            `VideoSettled` for a video that another run completed, `Awaiting` on every poll while other runs are
            working, and finally the `VideoFile` of each video whose run died.

        Raises:
            StoreError: A concurrent run has stored another source file under the id of a video of this run.
        """
        self.writer.flush()  # other runs may be waiting for what this one has finished
        if self.read_without_claims:
            self._report_other_sources()
        waiting, self.deferred = self.deferred, []
        while waiting:
            self.outcome_watcher.refresh(self.writer.writer_id)
            complete = {file for file in waiting if self._is_complete(file)}
            yield from (VideoSettled(file.video_id) for file in waiting if file in complete)
            waiting = [file for file in waiting if file not in complete]
            if free := {file for file in waiting if self.writer.lease.is_free(file.video_id)}:
                self.deferred = [file for file in waiting if file not in free]
                yield from (file for file in waiting if file in free)
                return
            if waiting:
                yield Awaiting(len(waiting))
                time.sleep(POLL_S)

    def _report_other_sources(self) -> None:
        """Raise `StoreError` if a concurrent run has stored another source of a video of this run.

        Without claims (on object storage), two runs may read a video with the same id at the same time. The later one
        reports it.
        """
        read, self.read_without_claims = self.read_without_claims, {}
        self.outcome_watcher.refresh(self.writer.writer_id, at_once=True)
        for file, digest in read.values():
            for outcome in self.outcome_watcher.of_video(file.video_id).values():
                if is_other_source(outcome, file) and outcome.content_digest != digest:
                    raise StoreError(
                        f"{public_url(self.writer.store.path)}: two concurrent runs stored {file.video_id!r}, one from "
                        f"{source_path(outcome)} and one from {source_path(file)}; the newer row counts: extract the "
                        "right file again with --replace"
                    )

    def _is_complete(self, file: VideoFile) -> bool:
        """Return whether another run has written an outcome for every stream that this run still needs.

        Transient failures count as complete: the next run retries them, not every concurrent run. An outcome of another
        source file does not count, unless its size and time are those of this file.
        """
        video_id = file.video_id
        newest = self.outcome_watcher.of_video(video_id)
        fresh: dict[str, Outcome] = {}  # written after the resume index was read, under this run's settings
        for stream, settings in self.settings_digests.items():
            outcome = newest.get(stream)
            is_ours = outcome is not None and outcome.settings_digest in ("", settings)
            if outcome is not None and is_ours and self.resume_index.outcome(video_id, stream) != outcome:
                fresh[stream] = outcome
        if any(outcome.source and not is_same_file(outcome, file) for outcome in fresh.values()):
            return False
        if any(outcome.content_digest and not is_same_part(outcome, file) for outcome in fresh.values()):
            return False
        digest = next((outcome.content_digest for outcome in fresh.values() if outcome.content_digest), "")
        return bool(fresh) and all(
            stream in fresh or self.resume_index.is_done(video_id, stream, row_key(digest, settings))
            for stream, settings in self.settings_digests.items()
        )
