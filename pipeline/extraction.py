"""Extraction of features from videos into a feature store: plan a run, execute it and yield its events."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..extractors.protocol import shape_of
from ..extractors.table import extractor_kind, resolved_recipe
from ..manifests.errors import InputError
from ..manifests.recipes import Recipe
from ..manifests.urls import public_url
from .decoding.decoders import check_backend
from .failure_budget import within
from .items import Event, Notice, PhaseStarted, PoisonedVideo, Stream, VideoSettled, WorkerProgress, common_setting
from .memory_budget import within_memory
from .options import RunOptions
from .planning.discovery import Inputs, checked_id_prefix, file_sizes, inputs_entry, required_videos
from .planning.metadata_cache import by_length, open_metadata_cache
from .planning.partition import Partition
from .planning.resume_index import ResumeIndex, read_resume_index
from .planning.run_claims import OutcomeWatcher
from .planning.sources import refuse_other_sources
from .planning.traits import summarized
from .progress import ProgressTracker
from .records import Outcome, VideoFile, grouped, one_line
from .run_context import open_context
from .runner import process_videos
from .stages.fetch import local_copy
from .store.clip_columns import keep_clip_columns
from .store.concurrency.writer_locks import BusyStore, HeldSettings
from .store.files.storage import StorePath, as_store_path, is_url
from .store.maintenance.compaction import archive_stale_rows, compact
from .store.manifest import is_store, read_manifest, refuse_other_recipe, shape_entry, write_manifest
from .store.sentences import sentence_entry
from .store.shards import streams_in
from .store.store import Store
from .store.writer import StoreWriter
from .streams import build_streams, chosen_weights, code_of, digests_of_settings, made_with, weight_digests
from .system.accelerators import first_line, is_out_of_memory, limit_memory
from .system.logs import current_logs
from .system.stage_timer import StageTimer
from .workers.coordinator import Executor, WorkerConfig

CLOCKS_DIFFER_S = 300.0
"""Entries of a store that are further in the future are reported."""


class Extraction:
    """One run: construct it to check its arguments, then iterate over it to execute it.

    Iterating yields an `Event` for each segment, outcome and video. All rows whose outcome was yielded are kept if the
    run is interrupted; the next run with the same arguments continues.

    Args:
        videos: A folder, file or URL, or several.
        recipe: The recipe.
        out: The feature store, or its folder or URL; it is created if it does not exist.
        streams: Streams of the recipe to extract; by default all.
        weights: ``random:SEED`` for random weights in place of all checkpoints.
        options: How the run is executed.
        executor: Runs several workers; by default this process does the work.
        partition: Part of the videos that this run processes.
        id_prefix: Precedes every video id as ``id_prefix/…``.
        inputs: Result of `find_inputs` for ``videos`` and further options or of `required_videos`, or a part of it.

    Raises:
        ConfigError: The recipe is invalid.
        InputError: ``videos`` or ``out`` is invalid, or rows of other source files would be replaced.
        MissingPackageError: The decoder or an extractor needs an optional package that is not installed.
        WeightsError: A checkpoint is missing.
    """

    def __init__(
        self,
        videos: StorePath | Sequence[StorePath],
        recipe: Recipe,
        out: Store | StorePath,
        *,
        streams: Sequence[str] | None = None,
        weights: str | None = None,
        options: RunOptions | None = None,
        executor: Executor | None = None,
        partition: Partition | None = None,
        id_prefix: str = "",
        inputs: Inputs | None = None,
    ) -> None:
        self.options = options or RunOptions()
        check_backend(self.options.decoder)
        self.store = Store.open(out)
        self.out = self.store.path
        self._roots = [as_store_path(each) for each in ([videos] if isinstance(videos, Path | str) else videos)]
        self._id_prefix = checked_id_prefix(id_prefix) if id_prefix else ""
        if inputs is None:
            inputs = required_videos(self._roots, self._id_prefix)
        self._num_videos = len(inputs.videos)
        self.inputs = inputs if partition is None else partition.of(inputs)
        self.recipe = resolved_recipe(recipe, streams or None)
        self.streams = {name: self.recipe.streams[name] for name in streams or self.recipe.streams}
        self.executor = executor
        self._chosen_weights = weights
        self.weights = chosen_weights(recipe, self.streams, weights)
        self.settings_digests = digests_of_settings(self.streams, self.weights)
        number = "float16" if self.options.float16 else "float32"
        self._held_settings = HeldSettings(number=number, streams=self.settings_digests)
        refuse_other_recipe(self.store, self.recipe.name, self.recipe.changes)
        self._outcome_watcher = OutcomeWatcher(self.store)
        self.resume_index: ResumeIndex = read_resume_index(self.store, retry_failed=self.options.retry_failed)
        self.clock = StageTimer()
        candidates = self.resume_index.sources_to_compare(self.inputs.videos)
        if candidates and not self.options.replaces_sources:
            folder = str(read_manifest(self.store).get("inputs", {}).get("folder", ""))
            with open_metadata_cache(self.options.decoder, enabled=self.options.remembers_files) as cache:
                refuse_other_sources(self.out, candidates, self.resume_index, cache, folder, local_copy)

    @cached_property
    def remaining(self) -> list[VideoFile]:
        """Videos with remaining streams. Completed videos are recognized without being opened."""
        are_done = self.resume_index.are_done(self.inputs.videos, self.settings_digests)
        return [file for file, is_done in zip(self.inputs.videos, are_done, strict=True) if not is_done]

    def tracker(self) -> ProgressTracker:
        """Return a new tracker of this run's progress."""
        with open_metadata_cache(self.options.decoder, enabled=self.options.remembers_files) as cache:
            durations_s = cache.durations_s(self.remaining)
        return ProgressTracker(self.remaining, durations_s, file_sizes(self.remaining))

    @property
    def stream_entries(self) -> dict[str, dict[str, Any]]:
        """Stream → its entry in the store's manifest."""
        return {
            name: {
                "settings_digest": self.settings_digests[name],
                "extractor_version": extractor_kind(spec.extractor).version,
                "weights": weight_digests(self.weights[name]),
                **code_of(spec.extractor),
            }
            for name, spec in self.streams.items()
        }

    def __iter__(self) -> Iterator[Event]:
        if not is_url(self.out):  # before networks are loaded; object storage checks it with a lease, below
            self.store.refuse_other_settings(self._held_settings, self._differences)
        if self.remaining:
            yield PhaseStarted("loading networks")
        streams, described = self._load() if self.remaining or self.inputs.clashes else ([], {})
        has_limit = bool(streams) and self.options.memory_bytes is not None
        options = within_memory(self.options, streams) if has_limit else self.options
        with ExitStack() as stack:
            with self.store.starting(self._held_settings, self._differences):
                refuse_other_recipe(self.store, self.recipe.name, self.recipe.changes)
                changed_code = self._write_manifest(described)
                settings = self.settings_digests if described else {}
                writer = StoreWriter(self.store, settings=settings, float16=self.options.float16)
                if self.inputs.columns is not None:
                    keep_clip_columns(self.store, self.inputs.columns, writer.writer_id)
            stack.callback(writer.close)
            ahead_s = writer.store_stamps.written_us / 1e6 - time.time()
            if ahead_s > CLOCKS_DIFFER_S:
                newest = datetime.fromtimestamp(time.time() + ahead_s, UTC).isoformat(timespec="seconds")
                yield Notice(
                    f"{public_url(self.out)}: contains entries written at {newest}, {ahead_s / 60:.0f} minutes in the "
                    "future of this machine's clock; set the clocks of the machines that write to it. The features "
                    "do not depend on them"
                )
            yield from changed_code
            for video_id, paths in self.inputs.clashes.items():
                same_name = len({path.name for path in paths}) < len(paths)
                names = ", ".join(str(path) if same_name else path.name for path in paths)
                reason = one_line(f"{names} would all have the id {video_id!r}; rename or move all but one")
                for stream in self.streams:
                    outcome = Outcome(video_id, stream, "failed", reason, transient=True)
                    writer.add_outcome(outcome)
                    yield outcome
            if self.remaining:
                yield PhaseStarted("extracting")
                if self.executor is None:
                    context = stack.enter_context(
                        open_context(
                            streams,
                            options,
                            writer,
                            self.resume_index,
                            self._outcome_watcher,
                            self.clock,
                        )
                    )
                    events = process_videos(context, grouped(self.remaining))
                else:
                    events = self._delegate(writer)
                budget = self.options.max_failures
                events = summarized(events, self.streams)
                yield from events if budget is None else within(budget, len(self.remaining), events)
        if self.remaining:
            yield PhaseStarted("merging shards")
        try:
            compact(self.store, writer.writer_id)
        except BusyStore as error:  # all rows are stored; the next run merges the shards
            yield Notice(f"small shards are not merged: {error}")

    def _differences(self, stream: str) -> str:
        """Return how a stream's settings in the store differ from those of this run."""
        from .interop.stored_settings import setting_differences, stored_settings

        entries = {name: entry | {"dim": 0} for name, entry in self.stream_entries.items()}
        mine = {"format": 1, "recipe": self.recipe.model_dump(mode="json", exclude_none=True), "made_with": {}}
        there, here = stored_settings(read_manifest(self.store)), stored_settings(mine | {"streams": entries})
        found = setting_differences(there.get(stream, {}), here.get(stream, {}))
        return ", ".join(f"{each.name} is {each.a} there, {each.b} here" for each in found[:3])

    def _load(self) -> tuple[list[Stream], dict[str, dict[str, Any]]]:
        """Load the networks; return the streams, and the properties of each stream's rows for the manifest.

        With an executor the list is empty, because the workers load their own networks. Each network is still loaded
        once, so that an error is raised before anything is written.
        """
        if self.executor is None and self.options.gpu_memory_bytes is not None:
            limit_memory(self.options.device, self.options.gpu_memory_bytes)
        streams, described = list[Stream](), dict[str, dict[str, Any]]()
        tracks, fields = dict[str, int | str](), dict[str, str]()
        for name in self.streams:
            stream = self.build_stream(name)
            described[name] = shape_entry(shape_of(stream.extractor))
            if (rows := getattr(stream.extractor, "sentence_rows", None)) is not None:
                described[name] |= sentence_entry(stream.spec.settings["sentences"], rows.cpu().numpy())
            if stream.extractor.audio is not None:
                tracks[name] = stream.spec.audio_track
            if stream.extractor.frames is not None:
                fields[name] = stream.spec.deinterlace
            if self.executor is None:
                streams.append(stream)
        common_setting("audio_track", tracks, "best")
        common_setting("deinterlace", fields, "none")
        return streams, described

    @property
    def worker_config(self) -> WorkerConfig:
        """Configuration of the workers that an executor starts."""
        return WorkerConfig(
            self.out,
            self.recipe,
            tuple(self.streams),
            self._chosen_weights,
            self.settings_digests,
            self.options,
            current_logs(),
        )

    def build_stream(self, name: str) -> Stream:
        """Load the network of a stream; on the CPU if an executor's workers do the work."""
        device = self.options.device if self.executor is None else torch.device("cpu")
        spec, engine = {name: self.streams[name]}, self.options.engine
        try:
            (stream,) = build_streams(spec, self.weights, self.settings_digests, device, engine)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"stream {name}: its network does not fit into the memory of {device} ({first_line(error)}); extract "
                "fewer streams at once (--stream), or allow more memory (--gpu-memory)"
            ) from None
        return stream

    def _delegate(self, writer: StoreWriter) -> Generator[Event, None, None]:
        """Run the executor; its workers write to the store themselves."""
        assert self.executor is not None
        with open_metadata_cache(self.options.decoder) as cache:
            lengths = by_length(self.remaining, cache)
        with closing(self.executor.run(self.worker_config, grouped(self.remaining), lengths)) as events:
            for event in events:
                if isinstance(event, PoisonedVideo):
                    yield from self._fail_poisoned(event, writer)
                    continue
                if isinstance(event, WorkerProgress):
                    self.clock.merge(event.busy_s)
                yield event

    def _fail_poisoned(self, event: PoisonedVideo, writer: StoreWriter) -> Iterator[Event]:
        """Mark the remaining streams of a video as failed because too many workers died while they processed it."""
        self._outcome_watcher.refresh(writer.writer_id)
        writer.next_counter(self._outcome_watcher.greatest_counter)
        file = next(file for file in self.remaining if file.video_id == event.video_id)
        for stream in self.resume_index.remaining_streams(file, self.settings_digests):
            if stream not in self._outcome_watcher.of_video(event.video_id):
                outcome = Outcome(
                    event.video_id,
                    stream,
                    "failed",
                    one_line(event.reason),
                    transient=True,
                    source=file.source,
                    input_root=file.input_root,
                )
                writer.add_outcome(outcome)
                yield outcome
        yield VideoSettled(event.video_id)

    def _write_manifest(self, rows: Mapping[str, Mapping[str, Any]]) -> list[Notice]:
        """Write the store's manifest, after archiving rows with other settings.

        Args:
            rows: Stream → properties of its rows, from `_load`; empty if the run has no work.

        Returns:
            A notice for each extractor whose code has changed although its version has not.
        """
        earlier = read_manifest(self.store) if is_store(self.store) else {}
        known: dict[str, Any] = earlier.get("streams", {})
        for name, digest in self.settings_digests.items():
            if name in known and known[name]["settings_digest"] != digest:
                archive_stale_rows(self.store, name, digest)
        entries = self.stream_entries
        described = {name: {**entries[name], **facts} for name, facts in rows.items()}
        write_manifest(
            self.store,
            {
                "format": 1,
                "created": earlier.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
                "recipe": self.recipe.model_dump(mode="json", exclude_none=True),
                "streams": known | described,
                "inputs": inputs_entry(self.inputs, self._roots, self._id_prefix, self._num_videos),
                "made_with": made_with(self.options.decoder),
            },
        )
        if not earlier:  # if there are rows, the manifest was lost, and their settings are unknown
            for name in self.settings_digests.keys() & streams_in(self.store.storage):
                archive_stale_rows(self.store, name, self.settings_digests[name])
        return [
            Notice(
                f"stream {name}: the file that defines {self.streams[name].extractor} has changed since the last run "
                f"on this store, and its version is still {entry['extractor_version']}: stored rows are kept; raise "
                "version if the change affects features"
            )
            for name, entry in described.items()
            if known.get(name, {}).get("settings_digest") == entry["settings_digest"]
            and known[name].get("code_sha256", entry.get("code_sha256")) != entry.get("code_sha256")
        ]
