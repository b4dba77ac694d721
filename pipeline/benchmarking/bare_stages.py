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

from ...manifests.errors import ArabesqueError
from ..blas_threads import one_blas_thread
from ..collecting import Collector
from ..decoding.slots import SlotPool
from ..geometries import WindowFailure
from ..heap import give_back
from ..ledger import Ledger
from ..networks import Batch
from ..reading import VideoReader, preprocessed_bytes
from ..records import Outcome, Probe
from ..runner import FailureWatch, Recorder, Stage, connect, outputs_of, stages_of
from ..stage_clock import StageClock
from ..transfer import DecodedWindow
from ..work import SegmentFailure, SegmentFeature, SegmentWork, Stream, VideoEnd
from .end_to_end import Bench, ScratchStore, repeated, scratch_store, sharing
from .heads import HeadPool, head_of
from .resources import Spent, Stopwatch, memory_in_use, peak_in_use, reset_peaks
from .workload import Probed, plan_of, showing_all, workload

DECODE_HEAD_S = 10.0
"""Of each video, for decoding alone."""
SAMPLE_VIDEOS = 2
SAMPLE_BYTES = 512 << 20
"""Pictures that lie ready at once, of no more videos than that unless some stream is in none of them."""
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
    """Seconds of video for a stage of `OF_FRAMES`, segments for the others."""
    spent: Spent
    working_bytes: int | None = None
    """Of a network: the most that a batch takes beside what was there."""
    first_s: float = 0.0
    """How much longer its first pass took: compiling, loading what is loaded late."""


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
            parts: list[Bare] = []
            finish = store.writer.flush if stage.name == "write" else lambda: None
            for stream, items, segments in _parts(stage.name, ready, outputs, bench.streams):
                units = sample_s if stage.name in OF_FRAMES else segments
                if stage.name == "network" and not _has_full_batch(ready, stream):
                    _discard(run_alone(stage, items))
                parts.append(_measured(options.device, stage, stream, items, units, measure_s, finish))
                first_s -= parts[-1].spent.wall_s * _units_in(ready, stream, units) / parts[-1].units
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
    finally:
        with suppress(Exception):  # what the stage raised has been raised
            pipeline.stop()


def sample_head_s(probes: Sequence[Probe], streams: Sequence[Stream]) -> float:
    """How long heads must be for two segments of every stream and the frame after them, where videos are as long."""
    until_s = 0.0
    for stream in streams:
        sampling = stream.spec.sampling
        frames = sampling.frames_per_segment + sampling.frames_per_step + sampling.frames_after + 1
        slowest = min(probe.fps for probe in probes) if sampling.fps == "native" else sampling.fps
        until_s = max(until_s, (frames + 1) / slowest)
    return until_s


def _stages(bench: Bench, slots: SlotPool, store: ScratchStore) -> list[Stage]:
    reader = VideoReader(slots, bench.streams, Ledger(), {}, sharing(bench, store), StageClock())
    return stages_of(reader, Collector({}), Recorder(store.writer), bench.options.device, bench.options.concurrency)


def choose_sample(heads: Probed, streams: Sequence[Stream]) -> Probed:
    """As many as it takes to show every stream, and up to `SAMPLE_VIDEOS` as long as they fit `SAMPLE_BYTES`."""
    sample = showing_all(heads, streams)
    for head in heads:
        fits = 3 * workload([*sample, head], streams).frame_pixels <= SAMPLE_BYTES
        if head not in sample and len(sample) < SAMPLE_VIDEOS and fits:
            sample.append(head)
    return sample


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
        return Bare("decode", "", passes * sum(heads_s), spent)


def _measured(
    device: torch.device,
    stage: Stage,
    stream: str,
    items: Sequence[Any],
    units: float,
    measure_s: float,
    finish: Callable[[], None],
) -> Bare:
    """``units``: in ``items``, which are given again and again. ``finish`` ends what the stage only began."""
    if stage.name != "network":
        passes, spent = _long_enough(stage, lambda _: items, measure_s, lambda: Stopwatch(device), finish)
        return Bare(stage.name, stream, units * passes, spent)
    reset_peaks(device)
    before = memory_in_use(device)
    passes, spent = _long_enough(stage, lambda _: items, measure_s, lambda: Stopwatch(device), finish)
    peak = peak_in_use(device)
    working = None if peak is None or before is None else max(0, peak - before)
    return Bare(stage.name, stream, units * passes, spent, working)


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
            raise ArabesqueError(item.reason)
        if isinstance(item, VideoEnd) and (reason := item.broke or item.sound_broke):
            raise ArabesqueError(reason)
        if isinstance(item, Outcome) and item.kind in ("failed", "partial"):
            raise ArabesqueError(f"{item.video_id} [{item.stream}]: {item.reason}")


def _discard(outputs: Iterator[Any]) -> None:
    for output in outputs:
        if isinstance(output, DecodedWindow):
            output.window.release()
        elif isinstance(output, Outcome | VideoEnd):
            _refuse_failures([output])


def _parts(
    name: str, inputs: list[Any], outputs: list[Any], streams: Sequence[Stream]
) -> Iterator[tuple[str, list[Any], int]]:
    """``(stream, inputs, segments in them)`` of what is measured of a stage: all at once, or stream by stream."""
    work = _segments(outputs if name == "assemble" else inputs)
    if name not in BY_STREAM:
        yield "", inputs, len(work)
        return
    for stream in streams:
        if mine := [item for item in work if item.stream is stream]:
            if name == "network":  # full batches, however few segments the sample has
                mine = list(islice(cycle(mine), stream.extractor.batch_size))
                yield stream.name, [[Batch(stream, tuple(mine))]], len(mine)
            else:
                yield stream.name, mine, len(mine)


def _units_in(ready: list[Any], stream: str, units: float) -> float:
    """Units that a pass over what is ready works on: segments of the stream where it is one stream's part."""
    return sum(item.stream.name == stream for item in _segments(ready)) if stream else units


def _has_full_batch(ready: list[Any], stream: str) -> bool:
    batches = [part for item in ready for part in item if isinstance(part, Batch) and part.stream.name == stream]
    return any(len(batch.work) >= batch.stream.extractor.batch_size for batch in batches)


def _segments(items: list[Any]) -> list[Any]:
    """Segments, whatever holds them at this place of the pipeline."""
    flat = [part for item in items for part in (item if isinstance(item, list) else [item])]
    flat = [part for item in flat for part in (item.work if isinstance(item, Batch) else [item])]
    return [item for item in flat if isinstance(item, SegmentWork | SegmentFeature)]
