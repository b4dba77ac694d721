"""The benchmark: every stage of a recipe's run alone, then all of them from end to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

import torch

from ...manifests.errors import ArabesqueError
from ..decoding.slots import SlotPool
from ..extraction import Extraction
from ..memory import within_memory
from ..probe_cache import open_probe_cache
from ..records import Probe, VideoFile
from ..work import Stream
from ..worker import made_with
from .bare_stages import OF_FRAMES, Bare, Step, measure_bare
from .circumstances import Circumstances
from .end_to_end import Bench, EndToEnd, repeated, run_end_to_end
from .heads import head_of, sample_head_s
from .report import Report, StageCost, bounds, together
from .resources import memory_in_use
from .workload import Probed, Workload, workload

MAX_VIDEOS = 4
"""Of those given, evenly chosen."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    stage_s: float = 1.0
    """Each stage alone, after a pass that warms it up."""
    end_to_end_s: float = 20.0
    """The run from end to end, about; longer where two segments of every stream take longer."""


@dataclass(frozen=True)
class Take:
    """What a run from end to end goes through: the first ``head_s`` of each file."""

    files: tuple[VideoFile, ...]
    head_s: float
    work: Workload


@dataclass(frozen=True)
class Benchmark:
    """The report, and what it was made with, for those who go on from there."""

    report: Report
    bench: Bench
    whole: Workload
    """Of the videos that were measured on, whole."""
    take: Take
    end_to_end: EndToEnd


def benchmark(
    run: Extraction,
    effort: Effort,
    on_step: Step = lambda _: None,
    choose: Callable[[Sequence[Stream]], Probed] | None = None,
) -> Benchmark:
    """Measures a run that is set up and not carried out: nothing is written into its store.

    ``choose``: the videos to measure the streams on; by default some of the run's own. Streams that find nothing to
    extract in them are left out. Raises `ArabesqueError` where none is left, `UnfitVideo` where one does not go
    through.
    """
    circumstances = Circumstances()
    on_step("loading the networks")
    began = time.perf_counter()
    streams, loaded_bytes = _load(run)
    setup_s = time.perf_counter() - began
    videos = probed(run, evenly(run.inputs.videos, MAX_VIDEOS)) if choose is None else choose(streams)
    whole = workload(videos, streams)
    options = within_memory(run.options, streams)
    bench = Bench(run, _shown(streams, whole, on_step), options)
    bare = measure_bare(bench, videos, effort.stage_s, on_step)
    stages = stage_costs(bare, whole)
    limit = bounds(stages, options.num_cpu_threads)
    take = choose_take(videos, bench.streams, limit.video_s_per_s * effort.end_to_end_s)
    on_step(f"end to end, {take.work.duration_s:.0f} s of video")
    end_to_end = run_end_to_end(bench, take.files, take.head_s)
    report = _report(bench, videos, setup_s, stages, take, end_to_end)
    warm_up_s = sum(part.first_s for part in bare)
    report = replace(report, warm_up_s=warm_up_s, loaded_bytes=loaded_bytes, circumstances=circumstances.told())
    return Benchmark(report, bench, whole, take, end_to_end)


def _load(run: Extraction) -> tuple[list[Stream], dict[str, int]]:
    """The networks, and what each takes up, where that can be known."""
    streams: list[Stream] = []
    loaded_bytes: dict[str, int] = {}
    for name in run.streams:
        before = memory_in_use(run.options.device)
        streams.append(run.build_stream(name))
        after = memory_in_use(run.options.device)
        if before is not None and after is not None:
            loaded_bytes[name] = max(0, after - before)
    return streams, loaded_bytes


def _shown(streams: Sequence[Stream], work: Workload, on_step: Step) -> list[Stream]:
    """Those that find something to extract."""
    for stream in streams:
        if not work.segments[stream.name]:
            on_step(f"leaving out {stream.name}, which finds nothing to extract in these videos")
    shown = [stream for stream in streams if work.segments[stream.name]]
    if not shown:
        raise ArabesqueError("no stream of the recipe finds anything to extract in these videos; give longer ones")
    return shown


def probed(run: Extraction, files: Sequence[VideoFile]) -> Probed:
    """Once probed, a file is known (`probe_cache`)."""
    with (
        open_probe_cache(run.options.decoder, files) as probes,
        SlotPool(1, run.options.decoder, probes=probes) as slots,
        slots.slot() as slot,
    ):
        return [(file, slot.probe(file.local_path)) for file in files]


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """``count`` of the items, or all, as far apart as they can be."""
    count = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def choose_take(videos: Probed, streams: Sequence[Stream], video_s: float) -> Take:
    """About so many seconds of video: heads of all, or all of them as often as it takes."""
    lengths_s = [probe.end_s for _, probe in videos]
    if video_s >= sum(lengths_s):
        times, head_s = round(video_s / sum(lengths_s)), math.inf
    else:
        times, head_s = 1, _head_s(lengths_s, video_s)
        head_s = max(head_s, sample_head_s([probe for _, probe in videos], streams))
    chosen = [
        (repeated(file, number), head_of(probe, head_s)) for number in range(max(1, times)) for file, probe in videos
    ]
    return Take(tuple(file for file, _ in chosen), head_s, workload(chosen, streams))


def _head_s(lengths_s: Sequence[float], total_s: float) -> float:
    """The length to which videos are cut so that they last ``total_s`` together."""
    left_s = total_s
    for number, length_s in enumerate(sorted(lengths_s)):
        share_s = left_s / (len(lengths_s) - number)
        if length_s > share_s:
            return share_s
        left_s -= length_s
    return math.inf


def stage_costs(bare: Sequence[Bare], work: Workload) -> list[StageCost]:
    """Each measured part, and before a stage's parts by stream the stage as a whole."""
    costs: list[StageCost] = []
    for _, group in groupby(bare, key=lambda part: part.stage):
        parts = [_cost(part, work) for part in group]
        costs += [together(parts), *parts] if parts[0].stream else parts
    return costs


def _cost(part: Bare, work: Workload) -> StageCost:
    of_frames = part.stage in OF_FRAMES
    unit = "frames" if of_frames else "segments"
    units_per_video_s = work.per_video_s(unit, part.stream)
    spent = part.one_pass.scaled((1 if of_frames else units_per_video_s) / part.units)
    return StageCost(
        part.stage,
        part.stream,
        unit,
        units_per_video_s,
        wall_s=spent.wall_s,
        cpu_s=spent.cpu_s,
        working_bytes=part.working_bytes,
    )


def _report(
    bench: Bench, videos: Probed, setup_s: float, stages: Sequence[StageCost], take: Take, end_to_end: EndToEnd
) -> Report:
    run, options = bench.run, bench.options
    wall_s = end_to_end.spent.wall_s
    return Report(
        recipe=run.recipe.name,
        weights=run.job.weights or "checkpoints",
        device=torch.cuda.get_device_name(options.device) if options.device.type == "cuda" else "cpu",
        cores=options.num_cpu_threads,
        decoder=options.decoder,
        num_decoders=options.num_decoders,
        videos=tuple(_described(file, probe) for file, probe in videos),
        setup_s=setup_s,
        video_s=take.work.duration_s,
        wall_s=wall_s,
        cpu_s=end_to_end.spent.cpu_s,
        stages=tuple(stages),
        utilisation={
            stage: busy_s / (wall_s * getattr(options.concurrency, stage, 1))
            for stage, busy_s in end_to_end.busy_s.items()
        },
        memory=end_to_end.memory,
        versions=made_with(options.decoder),
    )


def _described(file: VideoFile, probe: Probe) -> str:
    sound = "with sound" if probe.audio is not None else "silent"
    size = f"{probe.width_px}×{probe.height_px}"
    return f"{file.video_id}: {probe.end_s:.1f} s, {size}, {probe.fps:g} fps, {probe.codec}, {sound}"
