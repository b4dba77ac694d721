"""Rates of each stage of a run in isolation, with its inputs in memory.

The stages come from `runner.stages_of` and run in the same engine with the same number of threads as in a run, but one
at a time. On a GPU machine stages use different hardware, and the slowest isolated stage is an upper bound of a run's
speed. On a CPU all stages share the cores, and no run can keep several stages at their isolated rates at once.
Processor time is therefore measured, too: the time that all stages need for a second of video, divided by the number of
cores, gives the other bound.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from typing import Any

import torch
from spdl.pipeline import PipelineFailure

from ...extractors.protocol import Shared
from ..decoding.decoder_pool import DecoderPool
from ..items import (
    Batch,
    BatchResult,
    ChunkFailure,
    DecodedChunk,
    SegmentFailure,
    SegmentFeature,
    SegmentTask,
    Stream,
    VideoEnd,
)
from ..records import Outcome
from ..runner import Stage, StageWatch, open_pipeline, outputs_of, root_cause, stages_of
from ..stages.collect import RowCollector
from ..stages.decode import preprocessed_bytes
from ..stages.write import StoreSink
from ..system.process_resources import malloc_trim, one_blas_thread
from ..system.stage_timer import StageTimer
from .clipped_videos import choose_sample, clipped, min_clip_s
from .end_to_end import Bench, ScratchStore, context_of, decoder_pool_of, repeated, scratch_store, sources_of
from .resources import Spent, Stopwatch, memory_in_use, peak_in_use, reset_peaks
from .workload import Probed, UnsuitableVideo, plan_of

DECODE_CLIP_S = 10.0
"""Length to which videos are clipped for the isolated decode stage."""
MAX_GROWTH = 100
"""A measurement that is too short is repeated with more passes, at most this many times as many."""
FRAME_STAGES = ("decode", "transfer", "preprocess")
"""Stages that process chunks of frames and audio. The others process segments."""
STREAM_STAGES = ("prepare", "network")
"""Stages that process one stream at a time, and are measured for each stream."""

Step = Callable[[str], None]
"""Called with a description of the next step."""


@dataclass(frozen=True)
class IsolatedStage:
    """Measurement of an isolated stage, or of one stream's part of it."""

    stage: str
    stream: str
    """Empty for a stage that processes all streams together."""
    units: float
    """Amount of one pass: seconds of video for a stage of `FRAME_STAGES`, segments for the others."""
    passes: int
    spent: Spent
    """Total of all passes."""
    working_bytes: int | None = None
    """Peak memory of a batch in addition to the loaded network; only for networks."""
    first_s: float = 0.0
    """Additional time of the first pass, for compilation and lazy loading."""

    @property
    def one_pass(self) -> Spent:
        return self.spent.scaled(1 / self.passes)


def measure_isolated(bench: Bench, videos: Probed, measure_s: float, on_step: Step) -> list[IsolatedStage]:
    """Measure all stages in their order, each for about ``measure_s`` after a warm-up pass with compilation."""
    clip_s = min_clip_s([probe for _, probe in videos], bench.streams)
    sample = choose_sample([clipped(video, clip_s) for video in videos], bench.streams)
    sample_s = sum(probe.end_s for _, probe in sample)
    options = bench.options
    settings = replace(options.decoder_settings, num_buffers=_num_windows(sample, bench))
    on_step("decode in isolation")
    found = [isolated_decode(bench, videos, measure_s)]
    with closing(decoder_pool_of(replace(options, decoding=settings))) as decoder_pool, scratch_store(bench) as store:
        first, *others = _stages(bench, decoder_pool, store)
        ready = list(run_alone(first, sources_of(sample)))
        _refuse_failures(ready)
        for stage in others:
            on_step(f"{stage.name} in isolation")
            watch = Stopwatch(options.device)
            outputs = list(run_alone(stage, ready))
            first_s = watch.spent().wall_s
            _refuse_failures(outputs)
            finish = store.writer.flush if stage.name == "write" else lambda: None
            meter = _Meter(options.device, stage, measure_s, finish)
            parts = _parts(meter, ready, outputs, bench.streams, sample_s)
            first_s -= sum(part.one_pass.wall_s * _units_in(ready, part) / part.units for part in parts)
            found += [replace(part, first_s=max(0.0, first_s) / len(parts)) for part in parts]
            ready = outputs
            del outputs
    del ready
    gc.collect()
    malloc_trim()
    return found


def run_alone(stage: Stage[Any], items: Any) -> Generator[Any, None, None]:
    """Yield the outputs of a stage for these items, computed by the engine of a run."""
    watch = StageWatch()
    with open_pipeline(items, [stage], watch) as pipeline:
        try:
            with one_blas_thread():
                yield from outputs_of(pipeline, watch)
        except PipelineFailure as failure:
            raise root_cause(failure) from failure
        finally:
            with suppress(Exception):  # the stage's exception has been raised already
                pipeline.stop()


def _stages(bench: Bench, decoder_pool: DecoderPool, store: ScratchStore) -> list[Stage[Any]]:
    context = context_of(bench, decoder_pool, store, StageTimer())
    return stages_of(context, {}, RowCollector({}), StoreSink(store.writer))


def _num_windows(sample: Probed, bench: Bench) -> int:
    """Return an upper bound of the number of chunks. All exist at once; with fewer the decoder would wait forever."""
    count = 0
    plans = [plan_of(file, metadata, bench.streams) for file, metadata in sample]
    later_bytes = max(map(preprocessed_bytes, plans))  # the same for all, because clips of one file share their chunks
    for plan, (_, metadata) in zip(plans, sample, strict=True):
        frame_bytes = max(3 * metadata.width_px * metadata.height_px, later_bytes)
        per_buffer = max(1, bench.options.decoder_settings.buffer_bytes // frame_bytes)
        count += 4 + 2 * len(plan.wanted) // per_buffer + int(metadata.end_s)
    return count


def isolated_decode(bench: Bench, videos: Probed, measure_s: float) -> IsolatedStage:
    """Decode files into chunks, which are released immediately."""
    options = bench.options
    clips = [clipped(video, DECODE_CLIP_S) for video in videos]
    with closing(decoder_pool_of(options)) as decoder_pool, scratch_store(bench) as store:
        stage = _stages(bench, decoder_pool, store)[0]
        decoder_pool.wait_until_ready()
        passes, spent = repeat_until(
            stage,
            lambda number: sources_of(repeated(clips, number)),
            measure_s,
            lambda: Stopwatch(options.device, decoder_pool.pids),
        )
        return IsolatedStage("decode", "", sum(metadata.end_s for _, metadata in clips), passes, spent)


@dataclass(frozen=True)
class _Meter:
    """Measures a stage on the same items repeatedly."""

    device: torch.device
    stage: Stage[Any]
    measure_s: float
    finish: Callable[[], None]
    """Completes work that the stage started asynchronously."""

    def all_at_once(self, items: Sequence[Any], units: float) -> IsolatedStage:
        """Measure all items in one pass. ``units``: amount of the items."""
        return self._result("", units, *self.repeat_until(lambda _: items))

    def prepare(self, stream: str, work: Sequence[SegmentTask]) -> IsolatedStage:
        """Measure `prepare` for one stream, or for all streams if ``stream`` is empty."""
        return self._result(stream, len(work), *self.repeat_until(lambda _: uncomputed(work)))

    def network(self, stream: str, batch: Batch) -> IsolatedStage:
        reset_peaks(self.device)
        before = memory_in_use(self.device)
        found = self._result(stream, len(batch.tasks), *self.repeat_until(lambda _: [batch]))
        peak = peak_in_use(self.device)
        return found if peak is None or before is None else replace(found, working_bytes=max(0, peak - before))

    def _result(self, stream: str, units: float, passes: int, spent: Spent) -> IsolatedStage:
        return IsolatedStage(self.stage.name, stream, units, passes, spent)

    def repeat_until(self, make: Callable[[int], Sequence[Any]]) -> tuple[int, Spent]:
        return repeat_until(self.stage, make, self.measure_s, lambda: Stopwatch(self.device), self.finish)


def uncomputed(work: Sequence[SegmentTask]) -> list[SegmentTask]:
    """Copy segments without cached results: inputs that streams share are stored in a segment (`Shared`)."""
    shared = {id(item.segment.shared): Shared() for item in work}
    return [replace(item, segment=replace(item.segment, shared=shared[id(item.segment.shared)])) for item in work]


def scaled_to_total(parts: Sequence[IsolatedStage], together: IsolatedStage) -> list[IsolatedStage]:
    """Scale the streams' parts of a stage to the total of all streams together, which computes shared inputs once."""
    whole, each = together.one_pass, [part.one_pass for part in parts]
    wall = whole.wall_s / sum(part.wall_s for part in each)
    cpu = (whole.cpu_s or 0.0) / (sum(part.cpu_s or 0.0 for part in each) or 1.0)
    return [replace(part, spent=part.spent.scaled(wall, cpu)) for part in parts]


def repeat_until(
    stage: Stage[Any],
    make: Callable[[int], Sequence[Any]],
    measure_s: float,
    start: Callable[[], Stopwatch],
    finish: Callable[[], None] = lambda: None,
) -> tuple[int, Spent]:
    """Find the number of passes over the items of ``make(pass)`` that take about ``measure_s``.

    Returns:
        The number of passes and their total cost.
    """
    passes, first = 1, 0
    while True:
        watch = start()
        _discard(run_alone(stage, chain.from_iterable(make(first + number) for number in range(passes))))
        finish()
        spent = watch.spent()
        if spent.wall_s >= measure_s / 2:
            return passes, spent
        first += passes
        passes = min(MAX_GROWTH * passes, math.ceil(passes * measure_s / spent.wall_s))


def _refuse_failures(outputs: list[Any]) -> None:
    """Raise `UnsuitableVideo` for failures, which would otherwise count as fast."""
    flat = (part for item in outputs for part in (item.results if isinstance(item, BatchResult) else (item,)))
    for item in flat:
        if isinstance(item, SegmentFailure | ChunkFailure):
            raise UnsuitableVideo(item.reason)
        if isinstance(item, VideoEnd):
            for reason in (item.error, *(hole.reason for hole in item.holes + item.audio_holes)):
                if reason:
                    raise UnsuitableVideo(f"{item.plan.video.path}: {reason}")
        if isinstance(item, Outcome) and item.kind in ("failed", "partial"):
            raise UnsuitableVideo(f"{item.video_id} [{item.stream}]: {item.reason}")


def _discard(outputs: Generator[Any, None, None]) -> None:
    with closing(outputs):  # end the threads first, because they would restart decoders
        for output in outputs:
            if isinstance(output, DecodedChunk):
                output.chunk.release()
            elif isinstance(output, Outcome | VideoEnd):
                _refuse_failures([output])


def _parts(
    meter: _Meter, inputs: list[Any], outputs: list[Any], streams: Sequence[Stream], sample_s: float
) -> list[IsolatedStage]:
    """Measure a stage for all streams at once or for each stream."""
    name = meter.stage.name
    work = _segments(outputs if name == "assemble" else inputs)
    if name not in STREAM_STAGES:
        return [meter.all_at_once(inputs, sample_s if name in FRAME_STAGES else len(work))]
    by_stream = [(stream, [item for item in work if item.stream is stream]) for stream in streams]
    if name == "prepare":
        parts = [meter.prepare(stream.name, mine) for stream, mine in by_stream]
        return scaled_to_total(parts, meter.prepare("", work))
    parts = list[IsolatedStage]()
    for stream, mine in by_stream:
        full = islice(cycle(mine), stream.extractor.batch_size)  # repeats segments up to a full batch
        batch = Batch(stream, tuple(full))
        if not _has_full_batch(inputs, stream.name):
            _discard(run_alone(meter.stage, [batch]))
        parts.append(meter.network(stream.name, batch))
    return parts


def _units_in(ready: list[Any], part: IsolatedStage) -> float:
    """Return the amount that the stage's first pass processed."""
    return sum(item.stream.name == part.stream for item in _segments(ready)) if part.stream else part.units


def _has_full_batch(ready: list[Any], stream: str) -> bool:
    batches = [item for item in ready if isinstance(item, Batch) and item.stream.name == stream]
    return any(len(batch.tasks) >= batch.stream.extractor.batch_size for batch in batches)


def _segments(items: list[Any]) -> list[Any]:
    """Return segments, and those of batches, in one list."""
    found: list[Any] = []
    for item in items:
        of_batch = item.tasks if isinstance(item, Batch) else item.results if isinstance(item, BatchResult) else (item,)
        found += [part for part in of_batch if isinstance(part, SegmentTask | SegmentFeature)]
    return found
