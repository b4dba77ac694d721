"""The main job: a folder of videos, a recipe and an output folder become a feature store. The page behind the door."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..extractors.table import extractor_class, resolved_recipe
from ..manifests.errors import ManifestError
from ..manifests.recipes import Recipe
from .decoding.slots import SlotPool, SlotSettings
from .executors.dispatching import Executor
from .failure_budget import FailureBudget, within
from .inputs import Inputs, find_videos
from .ledger import Ledger, read_ledger
from .memory import within_memory
from .probe_cache import by_length, open_probe_cache
from .records import Outcome, VideoFile, one_line
from .runner import Concurrency, Event
from .shard import Shard
from .sharing import SharedWork
from .spooling import SPOOL_BYTES
from .stage_clock import StageClock
from .store.compaction import compact, set_aside_stale
from .store.folders import Root, as_root
from .store.manifest import is_free, is_store, read_manifest, write_manifest
from .store.news import OutcomeNews
from .store.writer import StoreWriter
from .work import GivenUp, Stream, VideoSettled, WorkDone
from .worker import Job, Worker, build_streams, chosen_weights, digests_of_settings, made_with, weight_digests


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; none of it changes a feature beyond the stated tolerance."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    decoder: str = "pyav"
    num_decoders: int = 1
    num_cpu_threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    retry_failed: bool = False
    float16: bool = False
    memory_bytes: int | None = None
    """What a worker and its decoders may take; None: as much as it happens to."""
    decoding: SlotSettings | None = None
    """How videos are decoded; None: as suits the device."""
    spool_bytes: int = SPOOL_BYTES
    """The disk that each worker's copies of videos at a URL may take."""
    remembers_files: bool = True
    """Whether digests and probes of files that have not changed may come from an earlier run (`probe_cache`)."""
    max_failures: FailureBudget | None = None
    """Ends the run once more videos fail than this; None: never."""

    @property
    def concurrency(self) -> Concurrency:
        return Concurrency(self.num_decoders, preprocess=1, prepare=self.num_cpu_threads)

    @property
    def slot_settings(self) -> SlotSettings:
        """A GPU takes planes and converts them itself; on a CPU swscale is faster (benchmarks/decoding.py)."""
        return self.decoding or SlotSettings(planar=self.device.type == "cuda")


class Extraction:
    """One run. Construct it (everything that can be refused is refused here), then iterate over it to carry it out.

    Iterating yields an `Event` for each segment, outcome and video; an interruption keeps what they told of. Raises
    `ManifestError` for a recipe, an input or an output folder that cannot be obeyed, `WeightsError` for a checkpoint
    that is not there.
    """

    def __init__(
        self,
        videos: Root | Sequence[Root],
        recipe: Recipe,
        out: Root,
        *,
        streams: Sequence[str] | None = None,
        weights: str | None = None,
        options: RunOptions | None = None,
        executor: Executor | None = None,
        shard: Shard | None = None,
    ) -> None:
        """``videos``: a folder or file, or several. ``streams``: those of the recipe to extract; all by default.

        ``executor``: has several workers do the work; by default this process does it. ``shard``: the part of the
        videos that is this run's.
        """
        self.options = options or RunOptions()
        self.out = as_root(out)
        self._roots = [as_root(each) for each in ([videos] if isinstance(videos, Path | str) else videos)]
        inputs = _inputs(self._roots)
        self._num_videos = len(inputs.videos)
        self.inputs = inputs if shard is None else shard.of(inputs)
        self.recipe = resolved_recipe(recipe)
        self.streams = {name: self.recipe.streams[name] for name in streams or self.recipe.streams}
        self.executor = executor
        self._chosen_weights = weights
        self.weights = chosen_weights(recipe.name, self.streams, weights)
        self.settings_digests = digests_of_settings(self.streams, self.weights)
        _refuse_other_recipe(out, self.recipe)
        self._news = OutcomeNews(out)
        self.ledger: Ledger = read_ledger(out, retry_failed=self.options.retry_failed)
        self.clock = StageClock()

    @cached_property
    def pending(self) -> list[VideoFile]:
        """Videos that still owe something; the settled ones are not opened."""
        settled = self.ledger.settled(self.inputs.videos, self.settings_digests)
        return [file for file, is_settled in zip(self.inputs.videos, settled, strict=True) if not is_settled]

    @property
    def stream_entries(self) -> dict[str, dict[str, Any]]:
        """Stream → what a manifest says of its settings."""
        return {
            name: {
                "settings_digest": self.settings_digests[name],
                "extractor_version": extractor_class(spec.extractor).version,
                "weights": weight_digests(self.weights[name]),
            }
            for name, spec in self.streams.items()
        }

    def __iter__(self) -> Iterator[Event]:
        streams, dims = self._load() if self.pending or self.inputs.clashes else ([], {})
        options = within_memory(self.options, streams) if streams else self.options
        self._write_manifest(dims)
        with ExitStack() as stack:
            writer = stack.enter_context(StoreWriter(self.out, float16=self.options.float16))
            for outcome in self._clashes():
                writer.add_outcome(outcome)
                yield outcome
            if self.pending:
                if self.executor is None:
                    events = self._work(stack, streams, writer, options)
                else:
                    events = self._delegate(writer)
                budget = self.options.max_failures
                yield from events if budget is None else within(budget, len(self.pending), events)
        compact(self.out, writer.writer_id)

    def _load(self) -> tuple[list[Stream], dict[str, int]]:
        """The networks, and how wide each stream's features are; of an executor, whose workers load their own, no
        networks: there they are loaded one by one, so that one that cannot be is told before anything is written."""
        streams, dims = list[Stream](), dict[str, int]()
        for name in self.streams:
            stream = self.build_stream(name)
            dims[name] = stream.extractor.dim
            if self.executor is None:
                streams.append(stream)
        return streams, dims

    def _work(
        self, stack: ExitStack, streams: list[Stream], writer: StoreWriter, options: RunOptions
    ) -> Generator[Event, None, None]:
        shared = SharedWork(self.out, writer, self.ledger, self._news, self.settings_digests)
        probes = stack.enter_context(open_probe_cache(options.decoder, self.pending, enabled=options.remembers_files))
        slots = stack.enter_context(SlotPool(options.num_decoders, options.decoder, options.slot_settings, probes))
        job = replace(self.job, options=options)
        worker = Worker(job, streams, slots=slots, writer=writer, ledger=self.ledger, shared=shared, clock=self.clock)
        return worker.carry_out(self.pending)

    @property
    def job(self) -> Job:
        return Job(
            self.out, self.recipe, tuple(self.streams), self._chosen_weights, self.settings_digests, self.options
        )

    def build_stream(self, name: str) -> Stream:
        """With its network, loaded; on the CPU where workers have their own."""
        device = self.options.device if self.executor is None else torch.device("cpu")
        (stream,) = build_streams({name: self.streams[name]}, self.weights, self.settings_digests, device)
        return stream

    def _delegate(self, writer: StoreWriter) -> Generator[Event, None, None]:
        """Has the executor's workers do it, who write to the store themselves."""
        assert self.executor is not None
        with open_probe_cache(self.options.decoder, self.pending) as probes:
            lengths = by_length(self.pending, probes)
        with closing(self.executor.run(self.job, self.pending, lengths)) as events:
            for event in events:
                if isinstance(event, GivenUp):
                    yield from self._give_up(event, writer)
                    continue
                if isinstance(event, WorkDone):
                    self.clock.merge(event.busy_s, event.tasks)
                yield event

    def _give_up(self, event: GivenUp, writer: StoreWriter) -> Iterator[Event]:
        """The end of a video that costs every worker its life: of the streams that have not ended before."""
        self._news.refresh(writer.writer_id)
        file = next(file for file in self.pending if file.video_id == event.video_id)
        for stream in self.ledger.open_streams(file, self.settings_digests):
            if self._news.get(event.video_id, stream) is None:
                outcome = Outcome(event.video_id, stream, "failed", one_line(event.reason), transient=True)
                writer.add_outcome(outcome)
                yield outcome
        yield VideoSettled(event.video_id)

    def _clashes(self) -> Iterator[Outcome]:
        for video_id, paths in self.inputs.clashes.items():
            names = ", ".join(path.name for path in paths)
            reason = f"{names} would all be video {video_id!r}; rename or move all but one"
            for stream in self.streams:
                yield Outcome(video_id, stream, "failed", one_line(reason), transient=True)

    def _write_manifest(self, dims: Mapping[str, int]) -> None:
        """Says what the store holds, after setting aside what was made with other settings.

        ``dims``: stream → how wide its features are; none where nothing is to be done.
        """
        earlier = read_manifest(self.out) if is_store(self.out) else {}
        known: dict[str, Any] = earlier.get("streams", {})
        for name, digest in self.settings_digests.items():
            if name in known and known[name]["settings_digest"] != digest:
                set_aside_stale(self.out, name, digest)
        entries = self.stream_entries
        described = {name: entries[name] | {"dim": dim} for name, dim in dims.items()}
        write_manifest(
            self.out,
            {
                "format": 1,
                "created": earlier.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
                "recipe": self.recipe.model_dump(mode="json", exclude_none=True),
                "streams": known | described,
                "inputs": {"folder": self._folder(), "videos": self._num_videos},
                "made_with": made_with(self.options.decoder),
            },
        )
        if not earlier:  # new, or it lost its manifest and nobody knows what its rows are of
            for name, digest in self.settings_digests.items():
                set_aside_stale(self.out, name, digest)

    def _folder(self) -> str:
        """Where the videos come from; nothing where that is several places."""
        if len(self._roots) > 1:
            return ""
        root = self._roots[0]
        return str(root.resolve()) if isinstance(root, Path) else root


def _inputs(roots: Sequence[Root]) -> Inputs:
    try:
        inputs = find_videos(*roots)
    except FileNotFoundError as error:
        raise ManifestError(f"{error}: there is no such folder or file; check the path") from None
    if not inputs.videos and not inputs.clashes:
        others = f" among its {inputs.num_other_files} files" if inputs.num_other_files else ""
        others += f", and {inputs.unlisted[0]} cannot be listed" if inputs.unlisted else ""
        where = ", ".join(map(str, roots))
        raise ManifestError(f"{where}: no videos in it{others}; give a folder that holds .mp4, .avi, .webm, … files")
    return inputs


def _refuse_other_recipe(out: Root, recipe: Recipe) -> None:
    """A store belongs to one recipe by name; changed settings of its streams are set aside, another method is not."""
    if not is_store(out):
        if not is_free(out):
            raise ManifestError(f"{out}: is not empty and no feature store; give --out a new or empty folder")
        return
    made_by = read_manifest(out)["recipe"]["name"]
    if made_by != recipe.name:
        raise ManifestError(
            f"{out}: holds features of recipe {made_by!r}, not {recipe.name!r}; give --out another folder"
        )
