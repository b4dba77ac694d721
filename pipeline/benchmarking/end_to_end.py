"""The run itself, from files to a store that is thrown away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ..extraction import Extraction, RunOptions
from ..ledger import Ledger
from ..records import Outcome, VideoFile
from ..sharing import SharedWork
from ..stage_clock import StageClock
from ..store.manifest import write_manifest
from ..store.news import OutcomeNews
from ..store.shards import OUTCOMES, stream_folder
from ..store.writer import StoreWriter
from ..work import SegmentFeature, Stream
from ..worker import Worker, made_with
from .heads import HeadPool
from .resources import PeakMemory, Spent, Stopwatch, peaks, reset_peaks
from .stored_bytes import StoredBytes, stored_bytes
from .workload import UnfitVideo


@dataclass(frozen=True)
class Bench:
    """What is measured: a run that is set up and not carried out, and its networks."""

    run: Extraction
    streams: Sequence[Stream]
    options: RunOptions
    """The run's, as its memory allowance lets them be."""

    def of(self, name: str) -> Bench:
        """The same with one stream alone."""
        return replace(self, streams=[stream for stream in self.streams if stream.name == name])


@dataclass(frozen=True)
class EndToEnd:
    spent: Spent
    segments: int
    busy_s: dict[str, float]
    """Stage → how long its tasks took, those that go on at once added up."""
    memory: PeakMemory
    stored: dict[str, StoredBytes]
    """By stream."""
    outcomes: StoredBytes


def run_end_to_end(bench: Bench, files: Iterable[VideoFile], head_s: float) -> EndToEnd:
    """All stages together, up to the last byte on the disk. Decoders are started and networks loaded before.

    Raises `UnfitVideo` for one that comes to no good end.
    """
    options, clock = bench.options, StageClock()
    with HeadPool(head_s, options) as slots, scratch_store(bench) as store:
        slots.wait_until_ready()
        worker = Worker(
            replace(bench.run.job, out=store.root, options=options),
            list(bench.streams),
            slots=slots,
            writer=store.writer,
            ledger=Ledger(),
            shared=sharing(bench, store),
            clock=clock,
        )
        reset_peaks(options.device)
        watch = Stopwatch(options.device, slots.pids)
        segments = 0
        for event in worker.carry_out(list(files)):
            segments += isinstance(event, SegmentFeature)
            if isinstance(event, Outcome) and event.kind in ("failed", "partial"):
                raise UnfitVideo(f"{event.video_id} [{event.stream}]: {event.reason}")
        store.writer.flush()
        spent, memory = watch.spent(), peaks(options.device, slots.pids)
        stored = {stream.name: stored_bytes(store.root, stream_folder(stream.name)) for stream in bench.streams}
        outcomes = stored_bytes(store.root, OUTCOMES)
        return EndToEnd(spent, segments, dict(clock.busy_s), memory, stored, outcomes)


@dataclass(frozen=True)
class ScratchStore:
    root: Path
    writer: StoreWriter


@contextmanager
def scratch_store(bench: Bench) -> Iterator[ScratchStore]:
    """A new store that goes when the block ends."""
    run = bench.run
    entries = run.stream_entries
    with TemporaryDirectory(prefix="arabesque-bench-") as folder:
        described = {stream.name: entries[stream.name] | {"dim": stream.extractor.dim} for stream in bench.streams}
        manifest = {"format": 1, "recipe": run.recipe.model_dump(mode="json", exclude_none=True), "streams": described}
        write_manifest(Path(folder), manifest | {"made_with": made_with(bench.options.decoder)})
        with StoreWriter(Path(folder), float16=bench.options.float16) as writer:
            yield ScratchStore(Path(folder), writer)


def sharing(bench: Bench, store: ScratchStore) -> SharedWork:
    """As in a run that has the store to itself."""
    digests = {stream.name: stream.settings_digest for stream in bench.streams}
    return SharedWork(store.root, store.writer, Ledger(), OutcomeNews(store.root), digests)


def repeated(file: VideoFile, number: int) -> VideoFile:
    """The same file as another video."""
    return replace(file, video_id=f"{file.video_id} ({number})")
