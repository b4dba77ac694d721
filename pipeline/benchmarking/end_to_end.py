"""The end-to-end run of a benchmark, into a temporary store."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ...extractors.protocol import shape_of
from ..decoding.decoder_pool import DecoderPool
from ..extraction import Extraction
from ..items import SegmentFeature, Stream
from ..options import RunOptions
from ..planning.metadata_cache import MetadataCache
from ..planning.resume_index import ResumeIndex
from ..planning.run_claims import OutcomeWatcher, RunClaims
from ..records import Outcome, Source, VideoFile, grouped
from ..run_context import RunContext
from ..runner import process_videos
from ..store.manifest import shape_entry, write_manifest
from ..store.shards import OUTCOMES, stream_folder
from ..store.writer import StoreWriter
from ..streams import made_with
from ..system.stage_timer import StageTimer
from .resources import PeakMemory, Spent, Stopwatch, peaks, reset_peaks
from .stored_bytes import StoredBytes, stored_bytes
from .workload import Probed, UnsuitableVideo


@dataclass(frozen=True)
class Bench:
    """The measured run and its networks."""

    run: Extraction
    streams: Sequence[Stream]
    options: RunOptions
    """The run's options, reduced to its memory limit."""

    def of(self, name: str) -> Bench:
        """Return a copy with one stream only."""
        return replace(self, streams=[stream for stream in self.streams if stream.name == name])


@dataclass(frozen=True)
class EndToEnd:
    spent: Spent
    segments: int
    busy_s: dict[str, float]
    """Stage → total duration of its tasks; concurrent tasks are added up."""
    memory: PeakMemory
    stored: dict[str, StoredBytes]
    """Stream → size of its rows."""
    outcomes: StoredBytes


def run_end_to_end(bench: Bench, sources: Sequence[Source]) -> EndToEnd:
    """Measure all stages together, until all rows are on disk. Decoders are started and networks loaded before.

    Raises:
        UnsuitableVideo: A video failed or is partial.
    """
    options, timer = bench.options, StageTimer()
    with closing(decoder_pool_of(options)) as decoder_pool, scratch_store(bench) as store:
        decoder_pool.wait_until_ready()
        context = context_of(bench, decoder_pool, store, timer)
        reset_peaks(options.device)
        watch = Stopwatch(options.device, decoder_pool.pids)
        segments = 0
        for event in process_videos(context, sources):
            segments += isinstance(event, SegmentFeature)
            if isinstance(event, Outcome) and event.kind in ("failed", "partial"):
                raise UnsuitableVideo(f"{event.video_id} [{event.stream}]: {event.reason}")
        store.writer.flush()
        spent, memory = watch.spent(), peaks(options.device, decoder_pool.pids)
        stored = {stream.name: stored_bytes(store.root, stream_folder(stream.name)) for stream in bench.streams}
        outcomes = stored_bytes(store.root, OUTCOMES)
        return EndToEnd(spent, segments, dict(timer.busy_s), memory, stored, outcomes)


@dataclass(frozen=True)
class ScratchStore:
    root: Path
    writer: StoreWriter


@contextmanager
def scratch_store(bench: Bench) -> Generator[ScratchStore]:
    """Create a store that is removed at the end of the block."""
    run = bench.run
    entries = run.stream_entries
    with TemporaryDirectory(prefix="arabesque-bench-") as folder:
        shapes = {stream.name: shape_of(stream.extractor) for stream in bench.streams}
        described = {name: entries[name] | shape_entry(shape) for name, shape in shapes.items()}
        manifest = {"format": 1, "recipe": run.recipe.model_dump(mode="json", exclude_none=True), "streams": described}
        write_manifest(Path(folder), manifest | {"made_with": made_with(bench.options.decoder)})
        with StoreWriter(Path(folder), float16=bench.options.float16) as writer:
            yield ScratchStore(Path(folder), writer)


def context_of(bench: Bench, decoder_pool: DecoderPool, store: ScratchStore, timer: StageTimer) -> RunContext:
    """Return the context of a run into a new store, without concurrent runs and without a metadata cache."""
    digests = {stream.name: stream.settings_digest for stream in bench.streams}
    claims = RunClaims(store.writer, ResumeIndex(), OutcomeWatcher(store.writer.store), digests)
    return RunContext(
        bench.streams, bench.options, store.writer, ResumeIndex(), claims, decoder_pool, MetadataCache(), timer
    )


def decoder_pool_of(options: RunOptions) -> DecoderPool:
    """Return a pool of decoders that the next measurement starts and ends."""
    return DecoderPool(options.num_decoders, options.decoder, options.decoder_settings)


def sources_of(videos: Probed) -> list[Source]:
    """Return the files to read: all clips of a file are read in one pass."""
    return grouped(file for file, _ in videos)


def repeated(videos: Probed, number: int) -> Probed:
    """Return the same files with other video ids."""
    return [(_renamed(file, number), metadata) for file, metadata in videos]


def _renamed(file: VideoFile, number: int) -> VideoFile:
    return replace(file, video_id=f"{file.video_id} ({number})")
