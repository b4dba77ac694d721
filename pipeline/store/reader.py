"""Reading a feature store: videos, streams, features with their time grid, and how everything ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...manifests.complaints import did_you_mean
from ..records import FeatureRow, Outcome
from .ends import Ends, read_ends
from .folders import Root, as_root, open_folder
from .index import current_places, relisting
from .key_columns import Columns, newest_outcome_columns
from .manifest import StreamEntry, read_manifest, stream_entries
from .shard_reading import read_rows
from .shards import RowPlace


@dataclass(frozen=True, eq=False)
class StreamFeatures:
    """One video's features of one stream; ``numpy.asarray`` gives its values."""

    video_id: str
    stream: str
    values: NDArray[np.float32]
    """``[segments, dim]``"""
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    key: str
    content_digest: str
    outcome: str
    """``done`` or ``partial``"""
    provenance: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=copy)


class VideoFeatures(Mapping[str, StreamFeatures]):
    """The streams of one video; features are read when they are asked for."""

    def __init__(self, store: FeatureStore, video_id: str) -> None:
        self._store = store
        self.video_id = video_id

    def __getitem__(self, stream: str) -> StreamFeatures:
        return self._store.read(self.video_id, stream)

    def __iter__(self) -> Iterator[str]:
        return (stream for stream in self._store.streams if self._store.holds(self.video_id, stream))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, stream: object) -> bool:
        return isinstance(stream, str) and self._store.holds(self.video_id, stream)

    def __repr__(self) -> str:
        return f"VideoFeatures({self.video_id!r}: {', '.join(self)})"


class FeatureStore:
    """``store["Ball_001"]["vst"]``: the rows made under the settings of the store's manifest. Opened by path or URL.

    Shows what stood there when a stream was first asked for; `refresh` looks again. Rows of files that break off
    (``partial``) are shown only when asked for. Raises StoreError where the folder is no store or a shard is damaged,
    KeyError where a video or stream is not there.
    """

    def __init__(self, path: Root, *, partial: bool = False) -> None:
        self.path = as_root(path)
        self.partial = partial
        self._folder = open_folder(self.path)
        self.refresh()

    def refresh(self) -> None:
        """Forget what was read, so that rows and outcomes written since are seen."""
        self.manifest: dict[str, Any] = read_manifest(self.path)
        self._entries: dict[str, StreamEntry] = stream_entries(self.manifest)
        self._rows: dict[str, dict[str, RowPlace]] = {}
        self._outcomes: Columns = None
        self._ends: Ends | None = None
        self._video_ids: tuple[str, ...] | None = None

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of the manifest, whether or not they have rows already."""
        return tuple(self._entries)

    @property
    def video_ids(self) -> tuple[str, ...]:
        """The videos that have features of at least one stream, sorted."""
        if self._video_ids is None:
            shown = {name for stream in self.streams for name, row in self._places(stream).items() if self._shows(row)}
            self._video_ids = tuple(sorted(shown))
        return self._video_ids

    def __getitem__(self, video_id: str) -> VideoFeatures:
        if video_id not in self:
            if any(video_id in self._places(stream) for stream in self.streams):
                raise KeyError(f"video {video_id!r} is partial; FeatureStore(path, partial=True) gives it")
            raise KeyError(f"no features of video {video_id!r} in {self.path}{_near(video_id, self.video_ids)}")
        return VideoFeatures(self, video_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.video_ids)

    def __len__(self) -> int:
        return len(self.video_ids)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and any(self.holds(video_id, stream) for stream in self.streams)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}: {len(self)} videos; {', '.join(self.streams)})"

    def holds(self, video_id: str, stream: str) -> bool:
        """Whether ``store[video_id][stream]`` has something to give."""
        row = self._places(stream).get(video_id) if stream in self._entries else None
        return row is not None and self._shows(row)

    def read(self, video_id: str, stream: str) -> StreamFeatures:
        """The same as ``store[video_id][stream]``."""
        return relisting(lambda: next(self._read_from_disk(stream, [self._place(video_id, stream)])), self._folder)

    def scan(self, stream: str) -> Iterator[StreamFeatures]:
        """All features of a stream in the order in which they are stored: the fast way to read many."""
        given = set[str]()
        while True:
            rows = [row for row in self._places(stream).values() if self._shows(row) and row.video_id not in given]
            try:
                for features in self._read_from_disk(stream, rows):
                    given.add(features.video_id)
                    yield features
            except FileNotFoundError:
                continue
            return

    def read_many(self, stream: str, video_ids: Iterable[str]) -> dict[str, StreamFeatures]:
        """The same as `read` of each, at the cost of one: neighbours in a shard are decoded together."""

        def read() -> dict[str, StreamFeatures]:
            places = [self._place(video_id, stream) for video_id in wanted]
            return {features.video_id: features for features in self._read_from_disk(stream, places)}

        wanted = list(video_ids)
        return relisting(read, self._folder)

    def stored_order(self, stream: str) -> list[str]:
        """The videos that `scan` gives, shard by shard."""
        rows = [row for row in self._places(stream).values() if self._shows(row)]
        return [row.video_id for row in sorted(rows, key=lambda row: (row.shard, row.number))]

    def keys(self, stream: str) -> dict[str, str]:
        """video_id → key of its row, ``partial`` ones included; reads key columns only."""
        return {video_id: row.key for video_id, row in self._places(stream).items()}

    def outcomes(self) -> list[Outcome]:
        """How each (video, stream) ended under the manifest's settings, by video and stream.

        Rows are the truth: one without an outcome (its writer was killed in between) is reported as what it is, and
        an outcome that speaks of a row that is not there is left out, so that a run makes it again.
        """
        return self.ends.outcomes()

    @property
    def ends(self) -> Ends:
        """The same in columns, for those who look at a few of very many."""
        if self._ends is None:
            settings = {stream: entry.settings_digest for stream, entry in self._entries.items()}
            self._ends = relisting(lambda: read_ends(self._folder, settings), self._folder)
        return self._ends

    def _shows(self, row: RowPlace) -> bool:
        return self.partial or row.outcome == "done"

    def _places(self, stream: str) -> dict[str, RowPlace]:
        if stream not in self._entries:
            raise KeyError(f"no stream {stream!r} in {self.path}; it has {', '.join(self.streams)}")
        if stream not in self._rows:
            settings = self._entries[stream].settings_digest
            self._rows[stream] = current_places(self._folder, stream, settings, self._newest_outcomes())
        return self._rows[stream]

    def _newest_outcomes(self) -> Columns:
        if self._outcomes is None:
            self._outcomes = relisting(lambda: newest_outcome_columns(self._folder), self._folder)
        return self._outcomes

    def _place(self, video_id: str, stream: str) -> RowPlace:
        row = self._places(stream).get(video_id)
        if row is None:
            known = [name for name in self._places(stream) if self.holds(name, stream)]
            raise KeyError(f"no {stream!r} features of video {video_id!r} in {self.path}{_near(video_id, known)}")
        if not self._shows(row):
            raise KeyError(f"{stream!r} of video {video_id!r} is partial; FeatureStore(path, partial=True) gives it")
        return row

    def _read_from_disk(self, stream: str, rows: Sequence[RowPlace]) -> Iterator[StreamFeatures]:
        """Shard by shard; FileNotFoundError where one has been merged, and then the next look lists them anew."""
        numbers: dict[str, list[int]] = {}
        for row in rows:
            numbers.setdefault(row.shard, []).append(row.number)
        try:
            for shard, wanted in numbers.items():
                for _, stored in read_rows(self._folder, shard, wanted):
                    yield _features_of(stored.row)
        except FileNotFoundError:
            self._rows.pop(stream, None)
            raise


def _features_of(row: FeatureRow) -> StreamFeatures:
    return StreamFeatures(
        video_id=row.video_id,
        stream=row.stream,
        values=row.features,
        start_s=row.start_s,
        end_s=row.end_s,
        key=row.key,
        content_digest=row.content_digest,
        outcome=row.outcome,
        provenance=row.provenance,
    )


def _near(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known, most=3) or f"; there are {len(known)} others"
