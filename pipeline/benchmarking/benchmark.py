"""Benchmark of a recipe: each stage in isolation, then the run end to end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeVar

from ...manifests.errors import ArabesqueError
from ..decoding.decoder_pool import DecoderPool
from ..extraction import Extraction
from ..items import Stream
from ..memory_budget import within_memory
from ..planning.clips import clip_of
from ..planning.metadata_cache import open_metadata_cache
from ..records import Source, VideoFile, VideoMetadata, grouped
from ..stages.decode import read_metadata
from ..streams import made_with
from ..system.accelerators import device_name
from .circumstances import Circumstances
from .clipped_videos import clipped, min_clip_s
from .end_to_end import Bench, EndToEnd, repeated, run_end_to_end, sources_of
from .isolated_stages import FRAME_STAGES, IsolatedStage, Step, measure_isolated
from .report import Report, StageCost, bounds, together
from .resources import memory_in_use
from .workload import Probed, ProbedVideo, Workload, workload

MAX_FILES, MAX_CLIPS = 4, 4
"""Number of files to measure on, and of clips of each, chosen at equal distances."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Effort:
    """Duration of the measurements."""

    stage_s: float = 1.0
    """Duration of the measurement of each isolated stage, after a warm-up pass."""
    end_to_end_s: float = 20.0
    """Approximate duration of the end-to-end run; longer if two segments of every stream take longer."""


@dataclass(frozen=True)
class Sample:
    """Files of the end-to-end run: the first seconds of each video or clip."""

    sources: tuple[Source, ...]
    work: Workload


@dataclass(frozen=True)
class Benchmark:
    """The report, and the objects that it was measured with, for further measurements."""

    report: Report
    bench: Bench
    whole: Workload
    """Workload of the measured videos in full length."""
    sample: Sample
    end_to_end: EndToEnd


def benchmark(
    run: Extraction,
    effort: Effort,
    on_step: Step = lambda _: None,
    choose: Callable[[Sequence[Stream]], Probed] | None = None,
) -> Benchmark:
    """Benchmark a run without writing into its store.

    Args:
        run: A run that has been constructed and not iterated over.
        effort: Duration of the measurements.
        on_step: Called with a description of each step.
        choose: Chooses the videos to measure the streams on; by default some of the run's videos. Streams without
            segments in them are left out.

    Raises:
        ArabesqueError: No stream has segments in these videos.
        UnsuitableVideo: A video cannot be processed completely.
    """
    circumstances = Circumstances()
    on_step("loading the networks")
    began = time.perf_counter()
    streams, loaded_bytes = _load(run)
    setup_s = time.perf_counter() - began
    videos = probed(run, chosen_videos(run.inputs.videos)) if choose is None else choose(streams)
    whole = workload(videos, streams)
    options = within_memory(run.options, streams)
    bench = Bench(run, _shown(streams, whole, on_step), options)
    bare = measure_isolated(bench, videos, effort.stage_s, on_step)
    stages = stage_costs(bare, whole)
    limit = bounds(stages, options.num_cpu_threads)
    sample = choose_sample_of_run(videos, bench.streams, limit.video_s_per_s * effort.end_to_end_s)
    on_step(f"end to end, {sample.work.duration_s:.0f} s of video")
    end_to_end = run_end_to_end(bench, sample.sources)
    report = _report(bench, videos, setup_s, stages, sample, end_to_end)
    warm_up_s = sum(part.first_s for part in bare)
    report = replace(report, warm_up_s=warm_up_s, loaded_bytes=loaded_bytes, circumstances=circumstances.as_dict())
    return Benchmark(report, bench, whole, sample, end_to_end)


def _load(run: Extraction) -> tuple[list[Stream], dict[str, int]]:
    """Load the networks. Return them with the memory of each one, if it can be measured."""
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
    """Return the streams that have segments in these videos."""
    for stream in streams:
        if not work.segments[stream.name]:
            on_step(f"leaving out {stream.name}, which has no segments in these videos")
    shown = [stream for stream in streams if work.segments[stream.name]]
    if not shown:
        raise ArabesqueError("no stream of the recipe has segments in these videos; give longer videos")
    return shown


def probed(run: Extraction, files: Sequence[VideoFile]) -> Probed:
    """Return the videos and clips with their metadata, cached by `metadata_cache`.

    Raises:
        DecodeError: A file cannot be read, or a clip lies outside of its file.
    """
    with (
        open_metadata_cache(run.options.decoder) as cache,
        closing(DecoderPool(1, run.options.decoder)) as pool,
        pool.decoder() as decoder,
    ):
        return [
            probed_clip(file, read_metadata(decoder, cache, file.local_path, frame_rate=file.frame_rate))
            for file in files
        ]


def probed_clip(file: VideoFile, metadata: VideoMetadata) -> ProbedVideo:
    """Return a video or clip with the metadata of its frames, from that of its file."""
    clip = clip_of(file, metadata)
    return (replace(file, start_s=clip.offset_s) if file.is_clip else file), clip.metadata


def chosen_videos(videos: Iterable[VideoFile]) -> list[VideoFile]:
    """Choose up to `MAX_FILES` files, and up to `MAX_CLIPS` clips of each."""
    return [video for source in evenly(grouped(videos), MAX_FILES) for video in evenly(source.videos, MAX_CLIPS)]


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Choose up to ``count`` items at equal distances."""
    count = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]


def choose_sample_of_run(videos: Probed, streams: Sequence[Stream], video_s: float) -> Sample:
    """Choose about ``video_s`` seconds of video: the first seconds of all videos, or all of them repeatedly."""
    lengths_s = [metadata.end_s for _, metadata in videos]
    times, chosen = 1, videos
    if video_s >= sum(lengths_s):
        times = max(1, round(video_s / sum(lengths_s)))
    else:
        clip_s = max(_clip_s(lengths_s, video_s), min_clip_s([metadata for _, metadata in videos], streams))
        chosen = [clipped(video, clip_s) for video in videos]
    passes = [repeated(chosen, number) for number in range(times)]
    sources = tuple(source for each in passes for source in sources_of(each))
    return Sample(sources, workload([video for each in passes for video in each], streams))


def _clip_s(lengths_s: Sequence[float], total_s: float) -> float:
    """Return the length to which videos are clipped so that they last ``total_s`` together."""
    rest_s = total_s
    for number, length_s in enumerate(sorted(lengths_s)):
        share_s = rest_s / (len(lengths_s) - number)
        if length_s > share_s:
            return share_s
        rest_s -= length_s
    return math.inf


def stage_costs(bare: Sequence[IsolatedStage], work: Workload) -> list[StageCost]:
    """Return the costs of all stages. A stage that is measured by stream is followed by its streams' parts."""
    costs: list[StageCost] = []
    for _, group in groupby(bare, key=lambda part: part.stage):
        parts = [_cost(part, work) for part in group]
        costs += [together(parts), *parts] if parts[0].stream else parts
    return costs


def _cost(part: IsolatedStage, work: Workload) -> StageCost:
    of_frames = part.stage in FRAME_STAGES
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
    bench: Bench, videos: Probed, setup_s: float, stages: Sequence[StageCost], sample: Sample, end_to_end: EndToEnd
) -> Report:
    run, options = bench.run, bench.options
    wall_s = end_to_end.spent.wall_s
    return Report(
        recipe=run.recipe.name,
        weights=run.worker_config.weights or "checkpoints",
        device="cpu" if options.device.type == "cpu" else device_name(options.device),
        cores=options.num_cpu_threads,
        decoder=options.decoder,
        num_decoders=options.num_decoders,
        videos=tuple(_described(file, probe) for file, probe in videos),
        setup_s=setup_s,
        video_s=sample.work.duration_s,
        wall_s=wall_s,
        cpu_s=end_to_end.spent.cpu_s,
        stages=tuple(stages),
        utilization={
            stage: busy_s / (wall_s * getattr(options.concurrency, stage, 1))
            for stage, busy_s in end_to_end.busy_s.items()
        },
        memory=end_to_end.memory,
        versions=made_with(options.decoder),
    )


def _described(file: VideoFile, probe: VideoMetadata) -> str:
    audio = "with audio" if probe.audio is not None else "silent"
    size = f"{probe.width_px}×{probe.height_px}"
    return f"{file.video_id}: {probe.end_s:.1f} s, {size}, {probe.fps:g} fps, {probe.codec}, {audio}"
