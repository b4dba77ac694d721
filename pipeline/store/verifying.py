"""Checking a store: every byte of every file against its stamp, every row against what a row must be.

Files are read one at a time, so that memory grows with the number of rows, not with their size. Runs may go on
meanwhile: a file that is merged while the store is read is looked for under its new name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ...manifests.errors import StoreError
from ...manifests.streams import Sampling
from ..records import Outcome
from .folders import Root, as_root, open_folder
from .manifest import (
    MANIFEST,
    MANIFEST_COPY,
    StreamEntry,
    is_manifest_intact,
    read_manifest,
    stream_entries,
)
from .row_checking import row_problem, samplings
from .shard_reading import ForeignShard, read_journal, read_outcomes, readable_rows
from .shard_writing import is_intact
from .shards import OUTCOMES, PROGRESS, SUPERSEDED, StoredOutcome, StoredRow, shards_in

NOT_AS_WRITTEN = "it is not as it was written"
OnFile = Callable[[int, int], None]
"""``(files checked, files listed)``"""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    file: str
    """Below the store; empty where a row is missing."""
    problem: str
    mended_by: Literal["repair", "extract"]
    video_id: str = ""
    stream: str = ""


@dataclass
class StoreCheck:
    """What a check read, and what it found."""

    root: Root
    num_files: int = 0
    num_bytes: int = 0
    num_rows: int = 0
    num_outcomes: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def damaged_files(self) -> tuple[str, ...]:
        """What a repair has to do with."""
        return tuple(dict.fromkeys(one.file for one in self.findings if one.mended_by == "repair"))

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """(video_id, stream) of rows that outcomes tell of and that are not there, or not whole."""
        return tuple((one.video_id, one.stream) for one in self.findings if one.mended_by == "extract")


def check_store(root: Root, on_file: OnFile = lambda done, total: None) -> StoreCheck:
    """Read the whole store. StoreError where the folder is none, or may not be read."""
    return StoreChecker(root).check(on_file)


class StoreChecker:
    """One look at a store. After `check`, `good_rows` reads the rows of a file that stood the test."""

    def __init__(self, root: Root) -> None:
        """StoreError where the folder is no store: nothing is touched in one that is not."""
        self.folder = open_folder(root)
        if not any(map(self.folder.exists, (MANIFEST_COPY, MANIFEST))):
            read_manifest(root)  # says what is missing
        self.result = StoreCheck(as_root(root))
        self._entries: dict[str, StreamEntry] = {}
        self._samplings: dict[str, Sampling] = {}
        self._ends: dict[tuple[str, str], StoredOutcome] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._rows: dict[tuple[str, str], dict[str, int]] = {}  # (video_id, stream) → key → when it was written

    def check(self, on_file: OnFile) -> StoreCheck:
        self._check_manifest()
        # outcomes first: they tell which rows of a damaged file can be trusted
        self._check_all(lambda: shards_in(self.folder, OUTCOMES), self._check_outcomes, on_file)
        self._check_all(lambda: shards_in(self.folder, PROGRESS), self._check_journal, on_file)
        self._check_all(self._row_shards, self._check_rows, on_file)
        self._find_missing()
        return self.result

    def good_rows(self, shard: str) -> Iterator[StoredRow]:
        """Rows that are what they were when they were written, of a shard whose bytes may not be.

        Of a file that was altered, a row counts if its page and number checksums match, its key is that of its
        digests, and an outcome in an intact file speaks of the same video and key.
        """
        intact = is_intact(self.folder.read(shard))
        for row in readable_rows(self.folder, shard):
            if isinstance(row, StoredRow) and not self._problem(shard, row, intact=intact):
                yield row

    def _check_all(self, names: Callable[[], list[str]], act: Callable[[str, bytes], None], on_file: OnFile) -> None:
        """Lists again until nothing is new: files are merged while they are read."""
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
        """What the disk cannot read counts as damage, as an empty file; what may not be read does not."""
        try:
            return self.folder.read(name)
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise StoreError(f"{self.folder.where(name)}: cannot be read ({error.strerror}); allow it") from error
        except OSError as error:
            self._find(name, f"the disk does not give it back ({error.strerror})")
            return b""

    def _find(self, file: str, problem: str, video_id: str = "", stream: str = "") -> None:
        self.result.findings.append(Finding(file, problem, "repair", video_id, stream))

    def _check_manifest(self) -> None:
        intact = [name for name in (MANIFEST, MANIFEST_COPY) if self._is_manifest_intact(name)]
        if intact:
            manifest = read_manifest(self.folder.root, intact[0])
            self._entries, self._samplings = stream_entries(manifest), samplings(manifest)

    def _is_manifest_intact(self, name: str) -> bool:
        if not self.folder.exists(name):
            if name == MANIFEST and self.folder.exists(MANIFEST_COPY):
                self._find(name, "it is not there")
            return False
        intact = is_manifest_intact(self._read(name))
        if not intact and name not in self.result.damaged_files:
            self._find(name, NOT_AS_WRITTEN)
        return intact

    def _check_outcomes(self, name: str, data: bytes) -> None:
        if not is_intact(data):
            self._find(name, NOT_AS_WRITTEN)
            return
        for stored in read_outcomes(self.folder, name):
            self.result.num_outcomes += 1
            self._told.add((*stored.name, stored.outcome.key))
            if stored.name not in self._ends or stored.written_us > self._ends[stored.name].written_us:
                self._ends[stored.name] = stored

    def _check_journal(self, name: str, data: bytes) -> None:
        if not is_intact(data):
            self._find(name, NOT_AS_WRITTEN)
            return
        for entry in read_journal(self.folder, name):
            if entry.feature is not None and not np.isfinite(entry.feature).all():
                self._find(name, f"segment {entry.segment_index} of {entry.key} is not finite")
                return

    def _row_shards(self) -> list[str]:
        aside = [f"{SUPERSEDED}/{name}" for name in self.folder.folders(SUPERSEDED)]
        homes = [f"{above}/{name}" for above in aside for name in self.folder.folders(above)]
        homes += [name for name in self.folder.folders() if name.startswith("stream=")]
        return [shard for home in homes for shard in shards_in(self.folder, home)]

    def _check_rows(self, name: str, data: bytes) -> None:
        intact = is_intact(data)
        if not intact:
            self._find(name, NOT_AS_WRITTEN)
        for row in readable_rows(self.folder, name):
            if not isinstance(row, StoredRow):
                self._note_unreadable(name, row, intact=intact)
                continue
            problem = self._problem(name, row, intact=intact)
            if problem and intact:
                self._find(name, problem, row.row.video_id, row.row.stream)
            elif not problem:
                self.result.num_rows += 1
                self._rows.setdefault((row.row.video_id, row.row.stream), {})[row.row.key] = row.written_us

    def _note_unreadable(self, name: str, error: StoreError, *, intact: bool) -> None:
        if intact and isinstance(error, ForeignShard):
            raise error
        if intact:  # its bytes are as they were written, and were wrong then
            self._find(name, str(error))

    def _problem(self, shard: str, stored: StoredRow, *, intact: bool) -> str:
        row = stored.row
        stream = shard.split("/")[-2].removeprefix("stream=")
        entry = self._entries.get(stream)
        if entry is not None and entry.settings_digest != row.settings_digest:
            entry = None
        if not intact and (row.video_id, row.stream, row.key) not in self._told:
            return "nothing else vouches for it"
        return row_problem(row, stream, entry, None if entry is None else self._samplings.get(stream))

    def _find_missing(self) -> None:
        """Rows are on disk before the outcomes that speak of them: one that is not there has been lost since."""
        for stored in self._ends.values():
            end = stored.outcome
            entry = self._entries.get(end.stream)
            if end.kind in ("done", "partial") and entry is not None and end.settings_digest == entry.settings_digest:
                self._find_row(end, stored.written_us)

    def _find_row(self, end: Outcome, written_us: int) -> None:
        """A newer row of another key replaces it: its video changed, and its run was killed before the outcome."""
        rows = self._rows.get((end.video_id, end.stream), {})
        if end.key not in rows and not any(row_us > written_us for row_us in rows.values()):
            problem = f"{end.video_id} ended as {end.kind}, but its row is not there"
            self.result.findings.append(Finding("", problem, "extract", end.video_id, end.stream))
