"""Reading a feature store: videos, streams, features with their time grid, and outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from ...extractors.protocol import PersonBoxes
from ...manifests.optional_packages import require_package
from ...manifests.plurals import plural
from ...manifests.validation import suggestion
from ..records import FeatureRow, Outcome
from .boxes import BoxRun, current_runs, read_boxes
from .files.storage import StorePath, retry_on_missing
from .html import html_table
from .index import Columns, current_places, newest_outcome_columns
from .manifest import MANIFEST, StreamEntry, read_manifest, stream_entries
from .open_shards import OpenShards
from .outcomes import OutcomeTable, read_outcome_table
from .sentences import SentenceRows, read_sentences
from .shards import RowPlace
from .store import Store
from .stream_features import StreamFeatures

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs]


class VideoFeatures(Mapping[str, StreamFeatures]):
    """The streams of one video; features are read on access."""

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
    """A feature store that is open for reading: a mapping from video id to stream to `StreamFeatures`.

    It has the rows with the settings of the store's manifest. It shows the state of the store when a stream was first
    read; `refresh` makes later rows and outcomes visible.

    Args:
        path: The store's folder or URL, or the open store.
        partial: Also show the rows of videos that were only partly decoded.

    Raises:
        StoreError: The path is not a feature store, or the store is damaged.

    Example:
        >>> import arabesque
        >>> store = arabesque.FeatureStore("features")
        >>> store.streams
        ('motion', 'rhythm')
        >>> store["routine"]["motion"].values.dtype
        dtype('float32')
        >>> [features.video_id for features in store.scan("motion")]
        ['another', 'routine']
    """

    def __init__(self, path: Store | StorePath, *, partial: bool = False) -> None:
        self._store = Store.open(path)
        self._storage = self._store.storage
        self.path = self._store.path
        self.partial = partial
        self.refresh()

    def refresh(self) -> None:
        """Discard cached state, so that later rows and outcomes become visible."""
        self.manifest: dict[str, Any] = read_manifest(self._store)
        self._entries: dict[str, StreamEntry] = stream_entries(self.manifest)
        specs = cast(Mapping[str, Mapping[str, Any]], self.manifest["recipe"].get("streams", {}))
        self._extractors = {name: str(spec.get("extractor", "")) for name, spec in specs.items()}
        self._open_shards = OpenShards(self._storage)
        self._rows: dict[str, dict[str, RowPlace]] = {}
        self._outcomes: Columns = None
        self._outcome_table: OutcomeTable | None = None
        self._video_ids: tuple[str, ...] | None = None
        self._box_runs: dict[tuple[str, str, str], BoxRun] | None = None

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams of the manifest, with or without rows."""
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
                raise KeyError(f"video {video_id!r} is partial; use FeatureStore(path, partial=True)")
            raise KeyError(f"no features of video {video_id!r} in {self.path}{_near(video_id, self.video_ids)}")
        return VideoFeatures(self, video_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.video_ids)

    def __len__(self) -> int:
        return len(self.video_ids)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and any(self.holds(video_id, stream) for stream in self.streams)

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}: {plural(len(self), 'video')}; {', '.join(self.streams)})"

    def _repr_html_(self) -> str:
        counts = {name: sum(map(self._shows, self._places(name).values())) for name in self.streams}
        shapes = {name: " × ".join(map(str, entry.row_shape)) for name, entry in self._entries.items()}
        rows = [(name, counts[name], shapes[name], entry.settings_digest[:12]) for name, entry in self._entries.items()]
        caption = f"Feature store {self.path}: {plural(len(self), 'video')}, recipe {self.manifest['recipe']['name']}"
        return html_table(caption, ("stream", "videos", "features", "settings"), rows)

    def holds(self, video_id: str, stream: str) -> bool:
        """Return whether ``store[video_id][stream]`` exists."""
        row = self._places(stream).get(video_id) if stream in self._entries else None
        return row is not None and self._shows(row)

    def read(self, video_id: str, stream: str) -> StreamFeatures:
        """Return ``store[video_id][stream]``."""
        return retry_on_missing(
            lambda: next(self._read_from_disk(stream, [self._place(video_id, stream)])), self._storage
        )

    def scan(self, stream: str) -> Iterator[StreamFeatures]:
        """Yield all features of a stream in storage order, which is the fastest way to read many."""
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
        """Read several videos of a stream. Rows of one shard are decoded together."""

        def read() -> dict[str, StreamFeatures]:
            places = [self._place(video_id, stream) for video_id in wanted]
            return {features.video_id: features for features in self._read_from_disk(stream, places)}

        wanted = list(video_ids)
        return retry_on_missing(read, self._storage)

    def stored_order(self, stream: str) -> list[str]:
        """Return the videos in the order of `scan`."""
        rows = [row for row in self._places(stream).values() if self._shows(row)]
        return [row.video_id for row in sorted(rows, key=lambda row: (row.shard, row.number))]

    def keys(self, stream: str) -> dict[str, str]:
        """Return video_id → key of its row, ``partial`` ones included. Reads key columns only."""
        return {video_id: row.key for video_id, row in self._places(stream).items()}

    def outcomes(self) -> list[Outcome]:
        """Return the outcome of each (video, stream) under the manifest's settings, sorted by video and stream.

        The rows decide: a row without an outcome (its writer was killed in between) is reported, and an outcome whose
        row is absent is omitted, so that a run computes the row again.
        """
        return self.outcome_table.outcomes()

    @property
    def outcome_table(self) -> OutcomeTable:
        """The outcomes in columns, for reading a few of many outcomes."""
        if self._outcome_table is None:
            settings = {stream: entry.settings_digest for stream, entry in self._entries.items()}
            self._outcome_table = retry_on_missing(lambda: read_outcome_table(self._storage, settings), self._storage)
        return self._outcome_table

    def to_pandas(self, stream: str) -> pandas.DataFrame:
        """Return the features of a stream as a table with one row for each segment of each video.

        Args:
            stream: One of `streams`.

        Returns:
            Columns ``video_id``, ``start_s``, ``end_s``, then one for each feature; see `StreamFeatures.to_pandas`.

        Raises:
            KeyError: The store does not have this stream.
            MissingPackageError: pandas is not installed.
        """
        require_package("pandas", "a table of pandas")
        import pandas  # pyright: ignore[reportMissingTypeStubs]

        tables = {features.video_id: features.to_pandas() for features in self.scan(stream)}
        if not tables:
            return pandas.DataFrame(columns=["video_id", "start_s", "end_s"])
        joined = pandas.concat({name: tables[name] for name in sorted(tables)}, names=["video_id"])
        return joined.reset_index("video_id").reset_index(drop=True)

    def sentences(self, stream: str) -> SentenceRows:
        """Return the sentences of a stream's text tower, and their embeddings.

        Args:
            stream: One of `streams`, whose recipe has ``settings.sentences``.

        Returns:
            The sentences, and ``float32 [sentences, dim]``.

        Raises:
            KeyError: The store has no such stream, or the stream has no sentences.
            StoreError: The rows are damaged.

        Example:
            >>> FeatureStore("features").sentences("motion")
            Traceback (most recent call last):
                ...
            KeyError: "stream 'motion' has no sentences; its recipe has no settings.sentences"
        """
        self._places(stream)  # refuses an unknown stream
        entry = self._entries[stream]
        if not entry.sentences:
            raise KeyError(f"stream {stream!r} has no sentences; its recipe has no settings.sentences")
        return read_sentences(entry, self._storage.where(MANIFEST))

    def boxes(self, video_id: str) -> dict[str, PersonBoxes]:
        """Return the people that were detected in a video, and which of them each stream used.

        Args:
            video_id: The video.

        Returns:
            Stream → boxes, for the streams that crop people; empty if the store has no such stream.

        Raises:
            KeyError: The store has no outcome of this video.

        Example:
            >>> FeatureStore("features").boxes("routine")
            {}
        """
        outcomes = self.outcome_table.of_video(video_id)
        if not outcomes:
            raise KeyError(f"no video {video_id!r} in {self.path}{_near(video_id, self.video_ids)}")

        def read() -> dict[str, PersonBoxes]:
            if self._box_runs is None:
                self._box_runs = current_runs(self._storage)
            keys = {one.stream: (video_id, one.stream, one.key) for one in outcomes}
            runs = {stream: self._box_runs[key] for stream, key in keys.items() if key in self._box_runs}
            try:
                return {stream: read_boxes(self._storage, run) for stream, run in runs.items()}
            except FileNotFoundError:
                self._box_runs = None
                raise

        return retry_on_missing(read, self._storage)

    def boxes_to_pandas(self, video_ids: Iterable[str] | None = None) -> pandas.DataFrame:
        """Return the boxes of people as a table with one row for each box.

        A frame without a person has one row without edges.

        Args:
            video_ids: The videos; by default all with an outcome.

        Returns:
            Columns ``video_id``, ``stream``, ``time_s``, ``left``, ``top``, ``right``, ``bottom`` (pixels of frames of
            ``frame_width`` × ``frame_height``), ``confidence``, ``track``, ``chosen``.

        Raises:
            KeyError: The store has no outcome of one of the videos.
            MissingPackageError: pandas is not installed.
        """
        require_package("pandas", "a table of pandas")
        import pandas  # pyright: ignore[reportMissingTypeStubs]

        if video_ids is None:
            video_ids = dict.fromkeys(one.video_id for one in self.outcomes())
        tables = [PersonBoxes.without_people([], 0, 0).to_pandas()]
        for video_id in video_ids:
            for stream, boxes in self.boxes(video_id).items():
                tables.append(boxes.to_pandas())
                tables[-1].insert(0, "stream", stream)
                tables[-1].insert(0, "video_id", video_id)
        if len(tables) == 1:
            tables[0].insert(0, "stream", "")
            tables[0].insert(0, "video_id", "")
        return pandas.concat(tables[len(tables) > 1 :], ignore_index=True)

    def _shows(self, row: RowPlace) -> bool:
        return self.partial or row.outcome == "done"

    def _places(self, stream: str) -> dict[str, RowPlace]:
        if stream not in self._entries:
            raise KeyError(f"no stream {stream!r} in {self.path}; it has {', '.join(self.streams)}")
        if stream not in self._rows:
            settings = self._entries[stream].settings_digest
            self._rows[stream] = current_places(self._storage, stream, settings, self._newest_outcomes())
        return self._rows[stream]

    def _newest_outcomes(self) -> Columns:
        if self._outcomes is None:
            self._outcomes = retry_on_missing(lambda: newest_outcome_columns(self._storage), self._storage)
        return self._outcomes

    def _place(self, video_id: str, stream: str) -> RowPlace:
        row = self._places(stream).get(video_id)
        if row is None:
            known = [name for name in self._places(stream) if self.holds(name, stream)]
            raise KeyError(f"no {stream!r} features of video {video_id!r} in {self.path}{_near(video_id, known)}")
        if not self._shows(row):
            raise KeyError(f"{stream!r} of video {video_id!r} is partial; use FeatureStore(path, partial=True)")
        return row

    def _read_from_disk(self, stream: str, rows: Sequence[RowPlace]) -> Iterator[StreamFeatures]:
        """Read shard by shard. FileNotFoundError if one was merged; the shards are then listed again."""
        numbers: dict[str, list[int]] = {}
        for row in rows:
            numbers.setdefault(row.shard, []).append(row.number)
        try:
            for shard, wanted in numbers.items():
                for _, row in self._open_shards.rows(shard, wanted):
                    yield self._features_of(row)
        except FileNotFoundError:
            self._rows.pop(stream, None)
            raise

    def _features_of(self, row: FeatureRow) -> StreamFeatures:
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
            extractor=self._extractors.get(row.stream, ""),
            holes=self._holes(row) if row.outcome == "partial" else (),
        )

    def _holes(self, row: FeatureRow) -> tuple[tuple[float, float], ...]:
        outcomes = self.outcome_table.of_video(row.video_id)
        return next((one.holes for one in outcomes if (one.stream, one.key) == (row.stream, row.key)), ())


def _near(name: str, known: Sequence[str]) -> str:
    return suggestion(name, known, most=3) or f"; there are {len(known)} others"
