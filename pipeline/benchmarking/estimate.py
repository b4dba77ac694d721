"""Estimate of a run's time, memory and disk space, from the metadata of its videos and a short benchmark.

Nothing is written into the run's store. The estimate is for a run in one process on one device. Time is the larger one
of the slowest stage's time and of all stages' work on the cores, scaled by the overhead of the benchmark's end-to-end
run. For videos at a URL it is at least the time to fetch them. The time of decoding and preprocessing is assumed to be
proportional to the pixels, that of other stages to the segments. Memory is that of the end-to-end run after the
warm-up, without the peak during compilation.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ...manifests.errors import DecodeError
from ...manifests.streams import Record
from ..decoding.decoder_pool import DecoderPool
from ..extraction import Extraction
from ..items import Stream
from ..planning.clips import clip_of
from ..planning.metadata_cache import open_metadata_cache
from ..records import VideoFile, VideoMetadata
from ..stages.decode import read_metadata, truncation
from ..stages.fetch import is_remote, local_copies
from .benchmark import Benchmark, Effort, benchmark
from .isolated_stages import FRAME_STAGES, Step
from .report import StageCost
from .workload import Probed, UnsuitableVideo, Workload, covering_streams, streams_in, workload

MAX_PROBED = 200
MAX_FETCHED = 8
"""Number of videos at a URL that are fetched to read their metadata."""
MAX_MEASURED = 2
MAX_TRIED = 10
"""Number of unsuitable videos after which the estimate fails."""
EFFORT = Effort(stage_s=0.5, end_to_end_s=8.0)


class StreamEstimate(Record):
    videos: int
    segments: int
    compute_s: float
    """Time of its preparation and network in isolation."""
    memory_bytes: int | None
    """Memory of its network and a full batch; None if it cannot be measured."""
    disk_bytes: int


class Estimate(Record):
    """Estimate of a run, in bytes and seconds."""

    made: str
    recipe: str
    device: str
    num_videos: int
    """Number of videos that are not done."""
    num_probed: int
    num_unreadable: int
    """Number of probed videos that cannot be read."""
    video_s: float
    setup_s: float
    """Time to load networks and libraries and to compile."""
    reading_s: float
    """Time to decode and preprocess frames and audio in isolation."""
    fetching_s: float
    """Time to fetch videos from a URL one after the other, in parallel to the other stages."""
    time_s: float
    """Total time of the command."""
    memory_bytes: int | None
    """Peak of all processes together."""
    device_bytes: int | None
    disk_bytes: int
    streams: dict[str, StreamEstimate]


def estimate_run(run: Extraction, effort: Effort | None = None, on_step: Step = lambda _: None) -> Estimate:
    """Estimate the remaining work of a run.

    Args:
        run: A run that has been constructed and not iterated over.
        effort: Duration of the benchmark; `EFFORT` by default.
        on_step: Called with a description of each step.

    Raises:
        DecodeError: None of the probed videos can be read.
        ValueError: No work remains.
    """
    if not run.remaining:
        raise ValueError("nothing remains to be estimated")
    is_far = any(map(is_remote, run.remaining))
    wanted = sample(run.remaining, MAX_FETCHED if is_far else MAX_PROBED)
    if is_far:
        on_step(f"fetching {len(wanted)} of {len(run.remaining)} videos")
    began = time.perf_counter()
    with local_copies(wanted, run.options.prefetch_bytes) as chosen:
        fetched_s = time.perf_counter() - began if is_far else 0.0
        on_step(f"probing {len(chosen)} of {len(run.remaining)} videos")
        files = probe_all(run, chosen)
        found = [(file, clip) for file, metadata in files if (clip := _clip(file, metadata)) is not None]
        if not found:
            raise DecodeError(
                f"none of {len(chosen)} videos can be read; `arabesque extract` without --dry-run reports why"
            )
        by_path = {
            file.path: (_whole(file), metadata) for file, metadata in files
        }  # stages are measured on whole files
        whole = [video for video in by_path.values() if not truncation(video[1])] or [*by_path.values()]
        measured = _benchmark(run, whole, effort or EFFORT, on_step)
        remaining = {file.video_id: _remaining_streams(run, file, measured) for file, _ in found}
        work = workload(found, measured.bench.streams, remaining)
    share = len(run.remaining) / len(chosen)
    return _estimate(run, measured, work.times(share), fetched_s * share, len(chosen), len(chosen) - len(found))


def _benchmark(run: Extraction, videos: Probed, effort: Effort, on_step: Step) -> Benchmark:
    """Benchmark typical videos. If one has damage that its metadata does not show, other videos are used."""
    tried: Probed = []

    def choose(streams: Sequence[Stream]) -> Probed:
        chosen = typical([video for video in videos if video not in tried], streams, MAX_MEASURED)
        tried.extend(chosen)
        return chosen

    while True:
        try:
            return benchmark(run, effort, on_step, choose)
        except UnsuitableVideo as unfit:
            if len(tried) >= min(len(videos), MAX_TRIED):
                raise
            on_step(f"measuring on other videos: {unfit}")


def sample(files: Sequence[VideoFile], count: int) -> Sequence[VideoFile]:
    """Return all files, or a random sample with a fixed seed."""
    return files if len(files) <= count else random.Random(0).sample(files, count)


def probe_all(run: Extraction, files: Sequence[VideoFile]) -> Probed:
    """Return the readable files with their metadata. Several are probed at once."""
    options = run.options

    def probe(file: VideoFile) -> tuple[VideoFile, VideoMetadata] | None:
        with decoders.decoder() as decoder:
            try:
                return file, read_metadata(decoder, cache, file.local_path, frame_rate=file.frame_rate)
            except DecodeError:
                return None

    with (
        open_metadata_cache(options.decoder) as cache,
        closing(DecoderPool(options.num_decoders, options.decoder)) as decoders,
        ThreadPoolExecutor(options.num_decoders) as pool,
    ):
        return [found for found in pool.map(probe, files) if found is not None]


def _clip(file: VideoFile, metadata: VideoMetadata) -> VideoMetadata | None:
    """Return the metadata of the video or clip; None for a clip outside of its file."""
    try:
        return clip_of(file, metadata).metadata
    except DecodeError:
        return None


def _whole(file: VideoFile) -> VideoFile:
    return replace(file, start_s=None, end_s=None, excluded_s=())


def typical(videos: Probed, streams: Sequence[Stream], count: int) -> Probed:
    """Choose videos with the most streams and a median number of pixels per second.

    More than ``count`` are chosen if necessary to cover every stream that any video has.
    """
    ordered = sorted(videos, key=lambda video: video[1].width_px * video[1].height_px * video[1].fps)
    from_the_middle = sorted(range(len(ordered)), key=lambda place: abs(place - (len(ordered) - 1) / 2))
    nearest = [ordered[place] for place in from_the_middle]
    nearest.sort(key=lambda video: -len(streams_in(video, streams)))
    chosen = covering_streams(nearest, streams)
    return chosen + [video for video in nearest if video not in chosen][: max(0, count - len(chosen))]


@dataclass(frozen=True)
class StageTime:
    """Time of a stage, or of one stream's part of it, in a whole run."""

    cost: StageCost
    wall_s: float
    cpu_s: float | None


def stage_times(stages: Sequence[StageCost], measured: Workload, work: Workload) -> list[StageTime]:
    """Return the times of the stages for ``work``, from the costs that were measured on ``measured``."""
    times: list[StageTime] = []
    for cost in stages:
        if not cost.stream and any(part.stream and part.stage == cost.stage for part in stages):
            continue  # its streams' parts follow
        amount = _video_s_like(cost, measured, work)
        times.append(StageTime(cost, cost.wall_s * amount, None if cost.cpu_s is None else cost.cpu_s * amount))
    return times


def least_time_s(times: Sequence[StageTime], cores: int) -> float:
    """Return the larger one of the slowest stage's time and of all stages' work on the cores."""
    by_stage: dict[str, float] = {}
    for part in times:
        by_stage[part.cost.stage] = by_stage.get(part.cost.stage, 0.0) + part.wall_s
    return max(*by_stage.values(), sum(part.cpu_s or 0.0 for part in times) / cores)


def _video_s_like(cost: StageCost, measured: Workload, work: Workload) -> float:
    """Return the seconds of the measured videos that cost as much as ``work`` in this stage."""
    if cost.stage not in FRAME_STAGES:
        there, here = _segments(measured, cost.stream), _segments(work, cost.stream)
    elif cost.stage == "decode":
        there, here = measured.decoded_pixels, work.decoded_pixels
    else:
        there, here = measured.frame_pixels, work.frame_pixels
    if not there:  # a recipe with audio streams only
        there, here = measured.duration_s, work.duration_s
    return measured.duration_s * here / there


def _segments(work: Workload, stream: str) -> int:
    return work.segments[stream] if stream else sum(work.segments.values())


def _remaining_streams(run: Extraction, file: VideoFile, measured: Benchmark) -> list[Stream]:
    """Return the measured streams that are not done for this video."""
    names = run.resume_index.remaining_streams(file, run.settings_digests)
    return [stream for stream in measured.bench.streams if stream.name in names]


def _estimate(
    run: Extraction, measured: Benchmark, work: Workload, fetching_s: float, num_probed: int, num_unreadable: int
) -> Estimate:
    report = measured.report
    setup_s = report.setup_s + report.warm_up_s
    times = stage_times(report.stages, measured.whole, work)
    stored = measured.end_to_end.stored
    streams = {
        name: StreamEstimate(
            videos=work.rows[name],
            segments=work.segments[name],
            compute_s=sum(time.wall_s for time in times if time.cost.stream == name),
            memory_bytes=_memory(name, report.stages, report.loaded_bytes),
            disk_bytes=stored[name].scaled(work.segments[name], work.rows[name]),
        )
        for name in work.segments
    }
    outcomes = measured.end_to_end.outcomes.scaled(0, work.num_videos * len(streams))
    return Estimate(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=report.recipe,
        device=report.device,
        num_videos=len(run.remaining),
        num_probed=num_probed,
        num_unreadable=num_unreadable,
        video_s=work.duration_s,
        setup_s=setup_s,
        reading_s=sum(time.wall_s for time in times if time.cost.stage in FRAME_STAGES),
        fetching_s=fetching_s,
        time_s=setup_s + max(fetching_s, least_time_s(times, report.cores) / report.shared_cores_ratio),
        memory_bytes=report.memory.total_bytes,
        device_bytes=report.memory.device_bytes,
        disk_bytes=outcomes + sum(stream.disk_bytes for stream in streams.values()),
        streams=streams,
    )


def _memory(stream: str, stages: Sequence[StageCost], loaded_bytes: Mapping[str, int]) -> int | None:
    working = next((cost.working_bytes for cost in stages if cost.stream == stream and cost.stage == "network"), None)
    if working is None or stream not in loaded_bytes:
        return None
    return loaded_bytes[stream] + working
