"""Every stage of a run alone, on inputs that are ready: the bare rates.

The stages are `runner.stages_of`'s own, run by the run's own engine with the run's own number of threads; only that
nothing runs beside them and that what they ask for lies in memory. On a GPU machine stages use different hardware, and
the slowest bare stage is as fast as a run can be. On a CPU all stages share the cores: each bare rate is what the stage
would do if it had all of them, and no run can keep several stages at their bare rates at once. Hence processor time
is measured, too: what all stages need of it for a second of video, on so many cores, is the other bound.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, cycle, islice
from typing import Any

import torch
from spdl.pipeline import PipelineFailure

from ...extractors.protocol import Shared
from ..blas_threads import one_blas_thread
from ..collecting import Collector
from ..decoding.slots import SlotPool
from ..geometries import WindowFailure
from ..heap import give_back
from ..ledger import Ledger
from ..networks import Batch
from ..reading import VideoReader, preprocessed_bytes
from ..records import Outcome
from ..runner import FailureWatch, Recorder, Stage, connect, outputs_of, root_cause, stages_of
from ..stage_clock import StageClock
from ..transfer import DecodedWindow
from ..work import SegmentFailure, SegmentFeature, SegmentWork, Stream, VideoEnd
from .end_to_end import Bench, ScratchStore, repeated, scratch_store, sharing
from .heads import HeadPool, choose_sample, head_of, sample_head_s
from .resources import Spent, Stopwatch, memory_in_use, peak_in_use, reset_peaks
from .workload import Probed, UnfitVideo, plan_of

DECODE_HEAD_S = 10.0
"""Of each video, for decoding alone."""
MAX_GROWTH = 100
"""A measurement that was too short is repeated with at most so many times as many passes."""
OF_FRAMES = ("decode", "transfer", "preprocess")
"""Stages that take windows of frames and sound; the others take segments."""
BY_STREAM = ("prepare", "network")
"""Stages that work for one stream at a time, and are measured for each."""

Step = Callable[[str], None]
"""Is told what comes next."""


@dataclass(frozen=True)
class Bare:
    """A stage alone, or a stream's part of it."""

    stage: str
    stream: str
    """Empty where it works for all streams alike."""
    units: float
    """In one pass: seconds of video for a stage of `OF_FRAMES`, segments for the others."""
    passes: int
    spent: Spent
    """In all passes."""
    working_bytes: int | None = None
    """Of a network: the most that a batch takes beside what was there."""
    first_s: float = 0.0
    """How much longer its first pass took: compiling, loading what is loaded late."""

    @property
    def one_pass(self) -> Spent:
        return self.spent.scaled(1 / self.passes)


def measure_bare(bench: Bench, videos: Probed, measure_s: float, on_step: Step) -> list[Bare]:
    """All stages in their order, each for about ``measure_s`` after a pass that warms it up, compilation included."""
    head_s = sample_head_s([probe for _, probe in videos], bench.streams)
    sample = choose_sample([(file, head_of(probe, head_s)) for file, probe in videos], bench.streams)
    sample_s = sum(probe.end_s for _, probe in sample)
    options = bench.options
    settings = replace(options.slot_settings, num_buffers=_num_windows(sample, bench))
    on_step("decode alone")
    found = [_bare_decode(bench, videos, measure_s)]
    with HeadPool(head_s, replace(options, decoding=settings)) as slots, scratch_store(bench) as store:
        first, *others = _stages(bench, slots, store)
        ready = list(run_alone(first, [file for file, _ in sample]))
        _refuse_failures(ready)
        for stage in others:
            on_step(f"{stage.name} alone")
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
    give_back()
    return found


def run_alone(stage: Stage, items: Any) -> Iterator[Any]:
    """What a stage makes of items, through the run's engine."""
    watch = FailureWatch(lambda: None)
    pipeline = connect(items, [stage], lambda _: [watch])
    try:
        with one_blas_thread():
            yield from outputs_of(pipeline, watch)
    except PipelineFailure as failure:
        raise root_cause(failure) from failure
    finally:
        with suppress(Exception):  # what the stage raised has been raised
            pipeline.stop()


def _stages(bench: Bench, slots: SlotPool, store: ScratchStore) -> list[Stage]:
    reader = VideoReader(slots, bench.streams, Ledger(), {}, sharing(bench, store), StageClock())
    return stages_of(reader, Collector({}), Recorder(store.writer), bench.options.device, bench.options.concurrency)


def _num_windows(sample: Probed, bench: Bench) -> int:
    """More than there can be: all of them are held at once, and one too few would be waited for for ever."""
    count = 0
    for file, probe in sample:
        plan = plan_of(file, probe, bench.streams)
        frame_bytes = max(3 * probe.width_px * probe.height_px, preprocessed_bytes(plan))
        per_buffer = max(1, bench.options.slot_settings.buffer_bytes // frame_bytes)
        count += 4 + 2 * len(plan.wanted) // per_buffer + int(probe.end_s)
    return count


def _bare_decode(bench: Bench, videos: Probed, measure_s: float) -> Bare:
    """From the file to windows, which are given back as soon as they are there."""
    options = bench.options
    heads_s = [head_of(probe, DECODE_HEAD_S).end_s for _, probe in videos]
    with HeadPool(DECODE_HEAD_S, options) as slots, scratch_store(bench) as store:
        stage = _stages(bench, slots, store)[0]
        slots.wait_until_ready()
        passes, spent = _long_enough(
            stage,
            lambda number: [repeated(file, number) for file, _ in videos],
            measure_s,
            lambda: Stopwatch(options.device, slots.pids),
        )
        return Bare("decode", "", sum(heads_s), passes, spent)


@dataclass(frozen=True)
class _Meter:
    """Measures a stage, given the same items again and again."""

    device: torch.device
    stage: Stage
    measure_s: float
    finish: Callable[[], None]
    """Ends what the stage only began."""

    def all_at_once(self, items: Sequence[Any], units: float) -> Bare:
        """``units``: in ``items``."""
        return self._bare("", units, *self._long_enough(lambda _: items))

    def prepare(self, stream: str, work: Sequence[SegmentWork]) -> Bare:
        """Empty ``stream``: of several."""
        return self._bare(stream, len(work), *self._long_enough(lambda _: anew(work)))

    def network(self, stream: str, batch: Batch) -> Bare:
        reset_peaks(self.device)
        before = memory_in_use(self.device)
        found = self._bare(stream, len(batch.work), *self._long_enough(lambda _: [[batch]]))
        peak = peak_in_use(self.device)
        return found if peak is None or before is None else replace(found, working_bytes=max(0, peak - before))

    def _bare(self, stream: str, units: float, passes: int, spent: Spent) -> Bare:
        return Bare(self.stage.name, stream, units, passes, spent)

    def _long_enough(self, make: Callable[[int], Sequence[Any]]) -> tuple[int, Spent]:
        return _long_enough(self.stage, make, self.measure_s, lambda: Stopwatch(self.device), self.finish)


def anew(work: Sequence[SegmentWork]) -> list[SegmentWork]:
    """The same segments, for which nothing has been computed yet: what streams share stays in a segment (`Shared`)."""
    shared = {id(item.segment.shared): Shared() for item in work}
    return [replace(item, segment=replace(item.segment, shared=shared[id(item.segment.shared)])) for item in work]


def shared_out(parts: Sequence[Bare], together: Bare) -> list[Bare]:
    """Streams' parts of a stage, made to add up to what it takes for all: what they share is computed once."""
    whole, each = together.one_pass, [part.one_pass for part in parts]
    wall = whole.wall_s / sum(part.wall_s for part in each)
    cpu = (whole.cpu_s or 0.0) / (sum(part.cpu_s or 0.0 for part in each) or 1.0)
    return [replace(part, spent=part.spent.scaled(wall, cpu)) for part in parts]


def _long_enough(
    stage: Stage,
    make: Callable[[int], Sequence[Any]],
    measure_s: float,
    start: Callable[[], Stopwatch],
    finish: Callable[[], None] = lambda: None,
) -> tuple[int, Spent]:
    """How many passes over what ``make(pass)`` gives took about ``measure_s``, and what they took, found by trying."""
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
    """What fails would count as fast."""
    flat = (part for item in outputs for part in (item if isinstance(item, list) else [item]))
    for item in flat:
        if isinstance(item, SegmentFailure | WindowFailure):
            raise UnfitVideo(item.reason)
        if isinstance(item, VideoEnd) and (reason := item.broke or item.sound_broke):
            raise UnfitVideo(reason)
        if isinstance(item, Outcome) and item.kind in ("failed", "partial"):
            raise UnfitVideo(f"{item.video_id} [{item.stream}]: {item.reason}")


def _discard(outputs: Iterator[Any]) -> None:
    for output in outputs:
        if isinstance(output, DecodedWindow):
            output.window.release()
        elif isinstance(output, Outcome | VideoEnd):
            _refuse_failures([output])


def _parts(
    meter: _Meter, inputs: list[Any], outputs: list[Any], streams: Sequence[Stream], sample_s: float
) -> list[Bare]:
    """What is measured of a stage: all at once, or stream by stream."""
    name = meter.stage.name
    work = _segments(outputs if name == "assemble" else inputs)
    if name not in BY_STREAM:
        return [meter.all_at_once(inputs, sample_s if name in OF_FRAMES else len(work))]
    by_stream = [(stream, [item for item in work if item.stream is stream]) for stream in streams]
    if name == "prepare":
        parts = [meter.prepare(stream.name, mine) for stream, mine in by_stream]
        return shared_out(parts, meter.prepare("", work))
    parts = list[Bare]()
    for stream, mine in by_stream:
        batch = Batch(stream, tuple(islice(cycle(mine), stream.extractor.batch_size)))  # full, however few there are
        if not _has_full_batch(inputs, stream.name):
            _discard(run_alone(meter.stage, [[batch]]))
        parts.append(meter.network(stream.name, batch))
    return parts


def _units_in(ready: list[Any], part: Bare) -> float:
    """That the stage's first pass worked on: of a network's, the segments that there were."""
    return sum(item.stream.name == part.stream for item in _segments(ready)) if part.stream else part.units


def _has_full_batch(ready: list[Any], stream: str) -> bool:
    batches = [part for item in ready for part in item if isinstance(part, Batch) and part.stream.name == stream]
    return any(len(batch.work) >= batch.stream.extractor.batch_size for batch in batches)


def _segments(items: list[Any]) -> list[Any]:
    """Segments, whatever holds them at this place of the pipeline."""
    flat = [part for item in items for part in (item if isinstance(item, list) else [item])]
    flat = [part for item in flat for part in (item.work if isinstance(item, Batch) else [item])]
    return [item for item in flat if isinstance(item, SegmentWork | SegmentFeature)]
