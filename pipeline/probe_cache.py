"""What earlier runs found in files that have not changed since: digests and probes, in the user's cache folder.

Whole Parquet files, added and never changed: any number of processes may share a folder, on a network file system, too,
without a lock. A damaged file is as good as none. An entry holds for one path, size, time of modification and time of
change, one decoder and one state of the code that probes; a file that was changed while it was read, or right before,
leaves none, as the next change might not show in its times.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .decoding.decoders import BACKENDS
from .decoding.probing import Content
from .frame_times import packed_times, unpacked_times
from .inputs import file_sizes
from .records import COPIES_PREFIX, AudioTrack, FileState, Probe, VideoFile, state_of
from .store.key_columns import Columns, newest, numbers, pc, texts
from .store.shard_writing import is_intact, shard_bytes
from .user_cache import user_cache

MAX_ENTRIES = 400_000
"""Two to a video, its digest and its probe: some 10 MB on disk for regular videos."""
MAX_PARTS = 8
FLUSH_ENTRIES, FLUSH_S = 1_000, 30.0
CONTENT = "content"
_SETTLED_NS = 2_000_000_000
"""FAT's clock, the coarsest, ticks every two seconds."""
_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("what", pa.string()),
        ("size_bytes", pa.int64()),
        ("modified_ns", pa.int64()),
        ("changed_ns", pa.int64()),
        ("end_s", pa.float64()),
        ("told", pa.string()),
        ("times", pa.binary()),
        ("kept_us", pa.int64()),
    ],
    metadata={"arabesque.kind": "probes"},
)


class _Entry(NamedTuple):
    path: str
    what: str
    """`CONTENT`, or the decoder that probed."""
    size_bytes: int
    modified_ns: int
    changed_ns: int
    end_s: float
    told: str
    """JSON; a probe's times are apart."""
    times: bytes
    kept_us: int

    @property
    def state(self) -> FileState:
        return FileState(self.size_bytes, self.modified_ns, self.changed_ns)


class ProbeCache:
    """Safe to call from several threads. Whatever the folder refuses costs nothing but the work that it would save."""

    def __init__(
        self,
        folder: Path | None = None,
        decoder: str = "pyav",
        files: Sequence[VideoFile] | None = None,
        *,
        settled_ns: int = _SETTLED_NS,
    ) -> None:
        """Without a ``folder`` nothing is kept nor found. What is known of others than ``files`` is not held."""
        paths = (os.path.abspath(file.path) for file in files or () if isinstance(file.path, Path))
        self._paths = None if files is None else texts([path for path in paths if path.isprintable()])
        self._folder = folder if decoder in BACKENDS else None  # others have no version to go by
        self._probed_by = _probed_by(decoder) if self._folder is not None else ""
        self._settled_ns = settled_ns
        self._lock = threading.Lock()
        self._known: Columns | None = None  # by path; read when it is first asked for
        self._new: dict[tuple[str, str], _Entry] = {}
        self._flushed_s = time.monotonic()

    def content(self, path: Path) -> Content | None:
        entry = self._find(path, CONTENT)
        return None if entry is None else Content(**json.loads(entry.told))

    def probe(self, path: Path, *, thorough: bool) -> Probe | None:
        entry = self._find(path, self._what(thorough))
        if entry is None:
            return None
        facts = json.loads(entry.told)
        audio = None if facts["audio"] is None else AudioTrack(**facts["audio"])
        changed = {"audio": audio, "lost_at": tuple(facts["lost_at"]), "frame_times_s": unpacked_times(entry.times)}
        return Probe(**(facts | changed))

    def keep_content(self, path: Path, before: FileState | None, content: Content) -> None:
        """``before``: the file's state before it was read."""
        self._keep(path, before, CONTENT, float("nan"), json.dumps(asdict(content)), b"")

    def keep_probe(self, path: Path, before: FileState | None, probe: Probe, *, thorough: bool) -> None:
        facts = {name: value for name, value in vars(probe).items() if name not in ("frame_times_s", "audio")}
        told = json.dumps(facts | {"audio": None if probe.audio is None else asdict(probe.audio)})
        self._keep(path, before, self._what(thorough), probe.end_s, told, packed_times(probe.frame_times_s))

    def durations_s(self, files: Iterable[VideoFile]) -> dict[str, float]:
        """Video id → seconds, of those that were probed and have not changed. Opens none of them."""
        table, ends = self._table(), dict[str, tuple[FileState, float]]()
        part = table.filter(pc.starts_with(table.column("what"), self._probed_by))
        names = ("path", "size_bytes", "modified_ns", "changed_ns", "end_s")
        for path, *state, end_s in zip(*(part.column(name).to_pylist() for name in names), strict=True):
            ends[path] = FileState(*state), end_s
        with self._lock:
            ends |= {new.path: (new.state, new.end_s) for new in self._new.values() if new.what != CONTENT}
        found = ((file, ends.get(os.path.abspath(file.path))) for file in files if isinstance(file.path, Path))
        return {
            file.video_id: end[1]
            for file, end in found
            if end is not None and end[0] == (file.state or file.current_state)
        }

    def close(self) -> None:
        """Writes what is new, and puts the folder in order where it has many files."""
        with self._lock:
            self._flush()
        if self._folder is not None:
            with suppress(OSError):
                parts = _parts(self._folder)
                if len(parts) > MAX_PARTS:
                    _merge(self._folder, parts)

    def _what(self, thorough: bool) -> str:
        return f"{self._probed_by}{' thorough' if thorough else ''}"

    def _find(self, path: Path, what: str) -> _Entry | None:
        name, state = os.path.abspath(path), state_of(path)
        with self._lock:
            entry = self._new.get((name, what))
        entry = entry or _entry_in(self._table(), name, what)
        return entry if entry is not None and entry.state == state else None

    def _keep(self, path: Path, before: FileState | None, what: str, end_s: float, told: str, times: bytes) -> None:
        state, now_ns = state_of(path), time.time_ns()
        if self._folder is None or state is None or state != before or path.parent.name.startswith(COPIES_PREFIX):
            return
        if now_ns - max(state.modified_ns, state.changed_ns) < self._settled_ns:
            return
        name = os.path.abspath(path)
        if not name.isprintable():
            return  # bytes that are no UTF-8 are no text for Parquet
        entry = _Entry(name, what, *state, end_s, told, times, now_ns // 1000)
        with self._lock:
            self._new[name, what] = entry
            if len(self._new) >= FLUSH_ENTRIES or time.monotonic() - self._flushed_s > FLUSH_S:
                self._flush()

    def _flush(self) -> None:
        self._flushed_s = time.monotonic()
        if self._folder is None or not self._new:
            return
        with suppress(OSError):
            _write(self._folder, _table_of(self._new.values()))
        self._new = {}

    def _table(self) -> Columns:
        with self._lock:
            if self._known is None:
                parts = [] if self._folder is None else _parts(self._folder)
                self._known = _newest([self._mine(table) for part in parts if (table := _read(part)) is not None])
            return self._known

    def _mine(self, table: Columns) -> Columns:
        return table if self._paths is None else table.filter(pc.is_in(table.column("path"), value_set=self._paths))


@contextmanager
def open_probe_cache(
    decoder: str, files: Sequence[VideoFile] | None = None, *, enabled: bool = True
) -> Iterator[ProbeCache]:
    """This user's cache, as long as the block runs; one that knows and keeps nothing where it is not ``enabled``."""
    probes = ProbeCache(cache_folder() if enabled else None, decoder, files)
    try:
        yield probes
    finally:
        probes.close()


def cache_folder() -> Path | None:
    """``$ARABESQUE_PROBES``, or the platform's folder for things that can be made again; none where that is empty."""
    own = os.environ.get("ARABESQUE_PROBES")
    if own is not None:
        return Path(own).expanduser() if own else None
    with suppress(RuntimeError):  # a process of nobody's: it has no home
        return user_cache() / "probes"
    return None


def by_length(files: Sequence[VideoFile], probes: ProbeCache) -> dict[str, float]:
    """Video id → about how many seconds, of all that can be looked at: as probed, or by their size.

    Bytes in place of seconds where none was ever probed: enough to begin with the longest.
    """
    known, sizes = probes.durations_s(files), file_sizes(files)
    known_bytes = sum(sizes.get(video_id, 0.0) for video_id in known)
    per_byte = sum(known.values()) / known_bytes if known_bytes else 1.0
    return {video_id: size * per_byte for video_id, size in sizes.items()} | known


@cache
def _probed_by(decoder: str) -> str:
    """The decoder, its version, and a digest of our code around it: any change of that makes probes new work."""
    here = Path(__file__).parent
    sources = [*sorted((here / "decoding").glob("*.py")), here / "records.py"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    packages = ", ".join(f"{name} {version(name)}" for name in dict.fromkeys(["av", decoder.replace("pyav", "av")]))
    return f"{decoder} ({packages}) {digest}"


def _parts(folder: Path) -> list[Path]:
    """Newest last."""
    return sorted(folder.glob("part-*.parquet"))


def _write(folder: Path, table: Columns) -> None:
    """There whole or not at all; not forced to the disk, as what a power cut tears is noticed."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".tmp-{secrets.token_hex(6)}"
    try:
        temporary.write_bytes(shard_bytes(table))
        temporary.replace(folder / f"part-{time.time_ns():020d}-{secrets.token_hex(4)}.parquet")
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _read(part: Path) -> Columns | None:
    """None where it is gone, or not to a bit as it was written; then it goes."""
    with suppress(OSError, pa.ArrowException, ValueError):
        data = part.read_bytes()
        if is_intact(data):
            table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
            if table.schema.names == _SCHEMA.names:
                return table
        part.unlink(missing_ok=True)
    return None


def _merge(folder: Path, parts: Sequence[Path]) -> None:
    """The newest entries of these files in one. Two that merge at once leave the entries twice, and lose none."""
    tables = [_read(part) for part in parts]
    whole = _newest([table for table in tables if table is not None])
    if len(whole) > MAX_ENTRIES:
        latest = np.argsort(numbers(whole.column("kept_us")), kind="stable")[-MAX_ENTRIES:]
        whole = whole.take(pa.array(np.sort(latest)))
    _write(folder, whole)
    for part in parts:
        part.unlink(missing_ok=True)


def _newest(tables: Sequence[Columns]) -> Columns:
    """The newest entry for each path and purpose, by path."""
    whole = pa.concat_tables([_SCHEMA.empty_table(), *tables]).combine_chunks()
    return newest(whole, ("path", "what"), ("kept_us",)).combine_chunks()


def _entry_in(table: Columns, path: str, what: str) -> _Entry | None:
    paths = table.column("path")
    first = bisect_left(range(len(paths)), path, key=lambda number: paths[number].as_py())
    for number in range(first, len(paths)):
        if paths[number].as_py() != path:
            break
        if table.column("what")[number].as_py() == what:
            return _Entry(*(table.column(name)[number].as_py() for name in _SCHEMA.names))
    return None


def _table_of(entries: Iterable[_Entry]) -> Columns:
    columns = zip(*entries, strict=True)
    arrays: list[Any] = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=_SCHEMA)
