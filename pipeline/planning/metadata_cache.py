"""Cache of digests and metadata of unchanged files: a SQLite database in the user's cache folder.

Several processes may share it. The cache is not used if the file system has no file locks, as on some network file
systems, or if other users may have written it. A damaged database is deleted, and an entry with invalid values is
ignored. An entry is valid for one path, size, modification time and change time, one decoder and one version of the
code that reads metadata. A file that changed while it was read, or directly before, gets no entry, because its next
change might not change its times.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import InputError
from ..decoding.decoder_process import check_probe
from ..decoding.decoders import BACKENDS
from ..decoding.source_files import Content
from ..records import COPIES_PREFIX, FileState, VideoFile, VideoMetadata, state_of
from ..system.typed_data import from_data, to_data
from ..system.user_cache import is_private, user_cache
from .discovery import file_sizes

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

FILE_NAME = "metadata.sqlite3"
MAX_ENTRIES = 400_000
"""Two entries per video (digest and metadata); about 200 MB on disk."""
FLUSH_ENTRIES, FLUSH_S = 1_000, 30.0
LOCK_TIMEOUT_S = 10.0
CONTENT = "content"
SETTLED_NS = 2_000_000_000
"""Minimum age of a file's last change in ns. The coarsest resolution of file times, that of FAT, is two seconds."""
_FORMAT = 1
_CREATE = """
CREATE TABLE IF NOT EXISTS entries (
    path BLOB, reader TEXT, audio_track TEXT,
    size_bytes INTEGER, modified_ns INTEGER, changed_ns INTEGER, duration_s REAL, data TEXT, times BLOB,
    checksum INTEGER,
    number INTEGER PRIMARY KEY, UNIQUE (path, reader, audio_track)
)
"""
_KEY = "path = ? AND reader = ? AND audio_track = ?"
_MAX_TICKS_PER_S = 200_000
_MAX_STEPS = 64
_MAX_TIMES_BYTES = 128 << 20
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class _Entry(NamedTuple):
    path: bytes
    reader: str
    """`CONTENT`, or the decoder that read the metadata, and its version."""
    audio_track: str
    size_bytes: int
    modified_ns: int
    changed_ns: int
    duration_s: float | None
    data: str
    """JSON without frame times, which are in ``times``."""
    times: bytes

    @property
    def state(self) -> FileState:
        return FileState(self.size_bytes, self.modified_ns, self.changed_ns)


def checksum(*values: object) -> int:
    """Return a checksum of an entry's values, because SQLite does not detect flipped bits."""
    return zlib.crc32(repr(values).encode("utf-8", "backslashreplace"))


class MetadataCache:
    """Digests and metadata of unchanged files. Thread-safe. A cache that cannot be read or written is not an error.

    Args:
        folder: Folder of the database; None: nothing is read or stored.
        decoder: Decoder that reads metadata.
        reader: Decoder and its version; by default those of ``decoder`` and of this package's code.
        settled_ns: Minimum age of a file's last change; `SETTLED_NS` by default.
    """

    def __init__(
        self,
        folder: Path | None = None,
        decoder: str = "pyav",
        *,
        reader: str | None = None,
        settled_ns: int | None = None,
    ) -> None:
        self._folder = folder if decoder in BACKENDS else None  # other decoders have no known version
        self._reader = reader or (_reader(decoder) if self._folder is not None else "")
        self._settled_ns = SETTLED_NS if settled_ns is None else settled_ns
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None  # opened when it is first needed
        self._new: dict[tuple[bytes, str, str], _Entry] = {}
        self._flushed_s = time.monotonic()

    def content(self, path: Path) -> Content | None:
        """Return the digest of an unchanged file; None if it is not known."""
        entry = self._find(path, CONTENT, "")
        return None if entry is None else _content_in(entry)

    def probe(self, path: Path, audio_track: int | str = "best") -> VideoMetadata | None:
        """Return the metadata of an unchanged file; None if they are not known."""
        entry = self._find(path, self._reader, str(audio_track))
        return None if entry is None else _metadata_in(entry)

    def keep(
        self, path: Path, before: FileState | None, found: Content | VideoMetadata, audio_track: int | str = "best"
    ) -> None:
        """Store a file's digest or metadata, unless the file is changing.

        Args:
            path: The file.
            before: State of the file before it was read.
            found: Digest or metadata.
            audio_track: The audio track that the metadata describe.
        """
        state = state_of(path)
        if self._folder is None or state is None or state != before or path.parent.name.startswith(COPIES_PREFIX):
            return
        if time.time_ns() - max(state.modified_ns, state.changed_ns) < self._settled_ns:
            return
        data = json.dumps(to_data(found, []))
        if isinstance(found, Content):
            entry = _Entry(_name(path), CONTENT, "", *state, None, data, b"")
        else:
            times = packed_times(found.frame_times_s)
            entry = _Entry(_name(path), self._reader, str(audio_track), *state, found.end_s, data, times)
        with self._lock:
            self._new[entry[:3]] = entry
            if len(self._new) >= FLUSH_ENTRIES or time.monotonic() - self._flushed_s > FLUSH_S:
                self._flush()

    def durations_s(self, files: Sequence[VideoFile]) -> dict[str, float]:
        """Return video id → duration in seconds of unchanged files with known metadata. Opens no file."""
        self._flush()
        local = [(file, file.path) for file in files if isinstance(file.path, Path)]
        query = (
            "SELECT size_bytes, modified_ns, changed_ns, duration_s FROM entries WHERE path = ? AND reader = ? LIMIT 1"
        )
        rows = self._use(
            lambda database: [database.execute(query, (_name(path), self._reader)).fetchone() for _, path in local], []
        )
        durations = dict[str, float]()
        for (file, _), row in zip(local, rows, strict=False):  # no rows without a database
            if row is not None and FileState(*row[:3]) == (file.state or file.current_state):
                duration_s = row[3]
                if isinstance(duration_s, float) and math.isfinite(duration_s) and duration_s > 0:
                    durations[file.video_id] = duration_s
        for file in files:
            end_s = durations.get(file.video_id) if file.end_s is None else file.end_s
            if file.is_clip and end_s is not None:
                durations[file.video_id] = max(0.0, end_s - (file.start_s or 0.0))
        return durations

    def close(self) -> None:
        """Write new entries and close the database."""
        with self._lock:
            self._flush()
            self._close()

    def _find(self, path: Path, reader: str, audio_track: str) -> _Entry | None:
        key = (_name(path), reader, audio_track)
        query = f"SELECT {', '.join(_Entry._fields)}, checksum FROM entries WHERE {_KEY}"
        with self._lock:
            entry = self._new.get(key)
            row = self._use(lambda database: database.execute(query, key).fetchone(), None) if entry is None else None
        if row is not None:
            stored = _Entry(*row[:-1])
            entry = stored if checksum(*stored) == row[-1] else None
        return entry if entry is not None and entry.state == state_of(path) else None

    def _flush(self) -> None:
        """Write the new entries, and delete the oldest ones if there are too many."""

        def write(database: sqlite3.Connection) -> None:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(f"INSERT OR REPLACE INTO entries VALUES ({', '.join('?' * 10)}, NULL)", rows)
            # SQLite numbers a new or replaced row above all others
            database.execute(
                "DELETE FROM entries WHERE number <= (SELECT max(number) FROM entries) - ?", (MAX_ENTRIES,)
            )

        with self._lock:
            self._flushed_s = time.monotonic()
            rows = [(*entry, checksum(*entry)) for entry in self._new.values()]
            self._new = {}
            if rows:
                self._use(write, None)

    def _use(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Call ``work`` with the database in a transaction. Returns ``otherwise`` if the database cannot be used."""
        with self._lock:
            if self._folder is None:
                return otherwise
            path = self._folder / FILE_NAME
            try:
                if self._connection is None:
                    self._connection = _open(path)
                with self._connection:
                    return work(self._connection)
            except (sqlite3.Error, OSError, InputError) as error:
                self._close()
                if isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in _DAMAGED:
                    _delete(path)
                else:
                    self._folder = None
                _warn_once(str(error) if isinstance(error, InputError) else f"{path}: {error}")
                return otherwise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def open_metadata_cache(decoder: str, *, enabled: bool = True) -> Generator[MetadataCache]:
    """Open this user's cache and close it after the block; without ``enabled``, it is empty and keeps nothing.

    Its folder is ``$ARABESQUE_METADATA_CACHE``, or one in the user's cache. There is none if the variable is empty.
    """
    folder, own = None, os.environ.get("ARABESQUE_METADATA_CACHE")
    if enabled and own is not None:
        folder = Path(own).expanduser() if own else None
    elif enabled:
        with suppress(InputError):  # a process without a home folder
            folder = user_cache() / "metadata"
    cache = MetadataCache(folder, decoder)
    try:
        yield cache
    finally:
        cache.close()


def by_length(files: Sequence[VideoFile], cache: MetadataCache) -> dict[str, float]:
    """Return video id → approximate duration in seconds, from metadata, or estimated from the size.

    If no duration is known the values are sizes in bytes, which suffices to order the videos by length.
    """
    known, sizes = cache.durations_s(files), file_sizes(files)
    known_bytes = sum(sizes.get(video_id, 0.0) for video_id in known)
    per_byte = sum(known.values()) / known_bytes if known_bytes else 1.0
    return {video_id: size * per_byte for video_id, size in sizes.items()} | known


@cache
def _reader(decoder: str) -> str:
    """Return the decoder, its version and a digest of our decoding code. Metadata of other readers are invalid."""
    decoder = "pyav" if decoder == "nvdec" else decoder  # nvdec reads metadata with the same code
    here = Path(__file__).parents[1]
    sources = [*sorted((here / "decoding").glob("*.py")), here / "records.py"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    packages = ", ".join(f"{name} {version(name)}" for name in dict.fromkeys(["av", decoder.replace("pyav", "av")]))
    return f"{decoder} ({packages}) {digest}"


def _name(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))


def _content_in(entry: _Entry) -> Content | None:
    """Parse an entry; None if it is not valid for this file."""
    with suppress(TypeError, ValueError, RecursionError):
        content = from_data(Content, json.loads(entry.data))
        sizes_fit = content.size_bytes == entry.size_bytes and 0 <= content.longest_zeros_bytes <= content.size_bytes
        if sizes_fit and len(content.digest) == 64 and not set(content.digest) - set("0123456789abcdef"):
            return content
    return None


def _metadata_in(entry: _Entry) -> VideoMetadata | None:
    """Parse an entry; None if it is not valid metadata."""
    with suppress(TypeError, ValueError, RecursionError, zlib.error):
        metadata = from_data(VideoMetadata, json.loads(entry.data), unpacked_times(entry.times).tobytes())
        check_probe(metadata)
        return metadata
    return None


def packed_times(times_s: NDArray[np.float64]) -> bytes:
    """Compress frame times without loss, as whole ticks if one number of ticks per second represents all times exactly.

    The times of a regular video take a few dozen bytes.
    """
    steps, per_s = np.diff(times_s), 0
    first = np.unique(np.round(steps, 9), return_index=True)[1]
    if len(first) <= _MAX_STEPS and np.isfinite(times_s).all():
        terms = [Fraction(float(step)).limit_denominator(_MAX_TICKS_PER_S).denominator for step in steps[first]]
        per_s = math.lcm(1, *terms)
        if per_s > _MAX_TICKS_PER_S or not np.array_equal(np.rint(times_s * per_s) / per_s, times_s):
            per_s = 0
    numbers = np.diff(np.rint(times_s * per_s).astype("<i8"), prepend=0) if per_s else times_s.astype("<f8")
    return per_s.to_bytes(4, "little") + zlib.compress(numbers.tobytes())


def unpacked_times(data: bytes) -> NDArray[np.float64]:
    """Restore the input of `packed_times` exactly. Raises `zlib.error` or `ValueError` for other data."""
    unpacking = zlib.decompressobj()
    per_s, numbers = int.from_bytes(data[:4], "little"), unpacking.decompress(data[4:], _MAX_TIMES_BYTES)
    if not unpacking.eof:
        raise ValueError("the frame times are truncated or too long")
    if not per_s:
        return np.frombuffer(numbers, "<f8").astype(np.float64)
    return np.cumsum(np.frombuffer(numbers, "<i8")).astype(np.float64) / per_s


def _open(path: Path) -> sqlite3.Connection:
    """Open the database, and create it if it does not exist. Raises `InputError` if others may have written it."""
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
    if not is_private(path):
        raise InputError(
            f"{path.parent}: other users may write to it; remove the folder, or set ARABESQUE_METADATA_CACHE to a "
            "folder that only you may write to"
        )
    database = sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        with database:
            if database.execute("PRAGMA user_version").fetchone() != (_FORMAT,):
                database.execute("BEGIN IMMEDIATE")
                # no other process has created it in between
                if database.execute("PRAGMA user_version").fetchone() != (_FORMAT,):
                    database.execute("DROP TABLE IF EXISTS entries")
                    database.execute(_CREATE)
                    database.execute(f"PRAGMA user_version = {_FORMAT}")
    except sqlite3.Error:
        database.close()
        raise
    return database


def _delete(path: Path) -> None:
    """Delete a damaged database, and its journal first, which must not be applied to a new one."""
    with suppress(OSError):
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        path.unlink(missing_ok=True)


@cache
def _warn_once(reason: str) -> None:
    _LOG.warning("the metadata cache is not used: %s", reason)
