"""Verification of a store: the bytes of every file against its stamp, and every row against the rules for rows.

Files are read one at a time, so that memory grows with the number of rows, not with their size. Runs may write at the
same time: if a file is merged during the check, its rows are checked in the new file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ....manifests.errors import StoreError
from ....manifests.streams import Sampling
from ...records import Outcome
from ..boxes import box_runs, boxes_problem
from ..files.storage import StorePath
from ..manifest import MANIFEST, MANIFEST_COPY, StreamEntry, is_manifest_intact, read_manifest, stream_entries
from ..row_validation import row_problem, samplings
from ..shard_reading import ForeignShard, read_logged_segments, read_outcomes, readable_rows
from ..shard_stamp import is_intact
from ..shards import ARCHIVE, BOXES, OUTCOMES, PROGRESS, StoredOutcome, StoredRow, shards_in, stream_folder, streams_in
from ..store import Store

NOT_AS_WRITTEN = "it is not as it was written"
OnFile = Callable[[int, int], None]
"""``(files checked, files listed)``"""


@dataclass(frozen=True)
class StoreFinding:
    """A problem of a store."""

    file: str
    """Name relative to the store; empty for a missing row."""
    problem: str
    fixed_by: Literal["repair", "extract"]
    video_id: str = ""
    stream: str = ""


@dataclass
class StoreCheck:
    """Result of a check: numbers of files and rows, and the findings."""

    root: StorePath
    num_files: int = 0
    num_bytes: int = 0
    num_rows: int = 0
    num_outcomes: int = 0
    findings: list[StoreFinding] = field(default_factory=list[StoreFinding])

    @property
    def damaged_files(self) -> tuple[str, ...]:
        """The files that `arabesque repair` handles."""
        return tuple(dict.fromkeys(one.file for one in self.findings if one.fixed_by == "repair"))

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """(video_id, stream) pairs of rows that have an outcome but are absent or damaged."""
        return tuple((one.video_id, one.stream) for one in self.findings if one.fixed_by == "extract")


def check_store(place: Store | StorePath, on_file: OnFile = lambda done, total: None) -> StoreCheck:
    """Read and verify the whole store.

    Args:
        place: The store, or its folder or URL.
        on_file: Called with (files checked, files listed).

    Raises:
        StoreError: The folder is not a store, or cannot be read.
    """
    return StoreChecker(Store.open(place)).check(on_file)


class StoreChecker:
    """Check of one store. After `check`, `good_rows` reads the valid rows of a file.

    Raises:
        StoreError: The folder is not a store; nothing in it is changed.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.storage = store.storage
        if not any(map(self.storage.exists, (MANIFEST_COPY, MANIFEST))):
            read_manifest(store)  # raises the specific error
        self.result = StoreCheck(store.path)
        self._entries: dict[str, StreamEntry] = {}
        self._samplings: dict[str, Sampling] = {}
        self._newest: dict[tuple[str, str], StoredOutcome] = {}
        self._outcome_keys: set[tuple[str, str, str]] = set()
        self._box_keys: set[str] = set()
        self._rows: dict[tuple[str, str], dict[str, tuple[int, int]]] = {}  # (video_id, stream) → key → its age

    def check(self, on_file: OnFile) -> StoreCheck:
        self._check_manifest()
        # outcomes first: they show which rows of a damaged file are valid
        self._check_all(lambda: shards_in(self.storage, OUTCOMES), self._check_outcomes, on_file)
        self._check_all(lambda: shards_in(self.storage, PROGRESS), self._check_log, on_file)
        self._check_all(lambda: shards_in(self.storage, BOXES), self._check_boxes, on_file)
        self._check_all(self._row_shards, self._check_rows, on_file)
        self._find_missing()
        return self.result

    def good_rows(self, shard: str) -> Iterator[StoredRow]:
        """Yield the unchanged rows of a shard that may be damaged.

        A row of an altered file is valid if the checksums of its pages and values match, its key follows from its
        digests, and an outcome in an intact file has the same video and key.
        """
        intact = is_intact(self.storage.read(shard))
        for row in readable_rows(self.storage, shard):
            if isinstance(row, StoredRow) and not self._problem(shard, row, intact=intact):
                yield row

    def _check_all(self, names: Callable[[], list[str]], act: Callable[[str, bytes], None], on_file: OnFile) -> None:
        """Check all files. List again until no file is new, because files may be merged during the check."""
        seen = set[str]()
        while unseen := [name for name in names() if name not in seen]:
            for name in unseen:
                seen.add(name)
                try:
                    data = self._read(name)
                    act(name, data)
                except FileNotFoundError:
                    continue
                self.result.num_files += 1
                self.result.num_bytes += len(data)
                on_file(len(seen), len(seen) + len(unseen))

    def _read(self, name: str) -> bytes:
        """Read a file. A disk error counts as damage (the result is empty); denied permission is an error."""
        try:
            return self.storage.read(name)
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise StoreError(f"{self.storage.where(name)}: cannot be read ({error.strerror}); allow it") from error
        except OSError as error:
            self._report(name, f"the disk cannot read it ({error.strerror})")
            return b""

    def _report(self, file: str, problem: str, video_id: str = "", stream: str = "") -> None:
        self.result.findings.append(StoreFinding(file, problem, "repair", video_id, stream))

    def _check_manifest(self) -> None:
        intact = [name for name in (MANIFEST, MANIFEST_COPY) if self._is_manifest_intact(name)]
        if intact:
            manifest = read_manifest(self._store, intact[0])
            self._entries, self._samplings = stream_entries(manifest), samplings(manifest)

    def _is_manifest_intact(self, name: str) -> bool:
        if not self.storage.exists(name):
            if name == MANIFEST and self.storage.exists(MANIFEST_COPY):
                self._report(name, "it is missing")
            return False
        intact = is_manifest_intact(self._read(name))
        if not intact and name not in self.result.damaged_files:
            self._report(name, NOT_AS_WRITTEN)
        return intact

    def _check_outcomes(self, name: str, data: bytes) -> None:
        if not is_intact(data):
            self._report(name, NOT_AS_WRITTEN)
            return
        for stored in read_outcomes(self.storage, name):
            self.result.num_outcomes += 1
            self._outcome_keys.add((*stored.name, stored.outcome.key))
            if stored.name not in self._newest or stored.age > self._newest[stored.name].age:
                self._newest[stored.name] = stored

    def _check_log(self, name: str, data: bytes) -> None:
        if not is_intact(data):
            self._report(name, NOT_AS_WRITTEN)
            return
        for entry in read_logged_segments(self.storage, name):
            if entry.feature is not None and not np.isfinite(entry.feature).all():
                self._report(name, f"segment {entry.segment_index} of {entry.key} is not finite")
                return

    def _check_boxes(self, name: str, data: bytes) -> None:
        if not is_intact(data):
            self._report(name, NOT_AS_WRITTEN)
        elif problem := boxes_problem(self.storage, name):
            self._report(name, problem)
        else:
            self._box_keys |= set(box_runs(self.storage, [name]).column("key").to_pylist())

    def _row_shards(self) -> list[str]:
        aside = [f"{ARCHIVE}/{name}" for name in self.storage.folders(ARCHIVE)]
        homes = [f"{above}/{name}" for above in aside for name in self.storage.folders(above)]
        homes += map(stream_folder, streams_in(self.storage))
        return [shard for home in homes for shard in shards_in(self.storage, home)]

    def _check_rows(self, name: str, data: bytes) -> None:
        intact = is_intact(data)
        if not intact:
            self._report(name, NOT_AS_WRITTEN)
        for row in readable_rows(self.storage, name):
            if not isinstance(row, StoredRow):
                self._note_unreadable(name, row, intact=intact)
                continue
            problem = self._problem(name, row, intact=intact)
            if problem and intact:
                self._report(name, problem, row.row.video_id, row.row.stream)
            elif not problem:
                self.result.num_rows += 1
                self._rows.setdefault((row.row.video_id, row.row.stream), {})[row.row.key] = row.counter, row.written_us

    def _note_unreadable(self, name: str, error: StoreError, *, intact: bool) -> None:
        if intact and isinstance(error, ForeignShard):
            raise error
        if intact:  # its bytes are unchanged: the file was written incorrectly
            self._report(name, str(error))

    def _problem(self, shard: str, stored: StoredRow, *, intact: bool) -> str:
        row = stored.row
        stream = shard.split("/")[-2].removeprefix("stream=")
        entry = self._entries.get(stream)
        if entry is not None and entry.settings_digest != row.settings_digest:
            entry = None
        if not intact and (row.video_id, row.stream, row.key) not in self._outcome_keys:
            return "no intact outcome confirms it"
        return row_problem(row, stream, entry, None if entry is None else self._samplings.get(stream))

    def _find_missing(self) -> None:
        """Find outcomes without a row. Rows are written before their outcome, so that an absent row was lost."""
        for stored in self._newest.values():
            end = stored.outcome
            entry = self._entries.get(end.stream)
            if entry is None or end.settings_digest != entry.settings_digest:
                continue
            if end.kind in ("done", "partial"):
                self._find_row(end, (stored.counter, stored.written_us))
            if end.frames_seen and end.key not in self._box_keys:
                problem = f"{end.video_id} ended as {end.kind}, but the boxes of its people are missing"
                self.result.findings.append(StoreFinding("", problem, "extract", end.video_id, end.stream))

    def _find_row(self, end: Outcome, age: tuple[int, int]) -> None:
        """Accept a newer row with another key: the video changed, and its run was killed before it wrote an outcome."""
        rows = self._rows.get((end.video_id, end.stream), {})
        if end.key not in rows and not any(row_age > age for row_age in rows.values()):
            problem = f"{end.video_id} ended as {end.kind}, but its row is missing"
            self.result.findings.append(StoreFinding("", problem, "extract", end.video_id, end.stream))
