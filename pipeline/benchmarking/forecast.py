"""What a run will take, before it starts, without writing into its store: its videos, or a sample of them, are probed,
and a short benchmark measures what a second of such video costs.

It is about a run as one process does it on one device. Time is that of the slowest stage, or of all stages' work on
the cores where that is more, and what the benchmark's run from end to end took beyond it; where videos lie at a URL,
and fetching them takes longer, it is that. Decoding and preparing pictures are taken to cost by the pixel, the rest by
the segment. Memory is what that run took once everything was warm: what compiling takes for a moment at a run's start
is not in it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from ...manifests.errors import DecodeError
from ...manifests.streams import Record
from ..decoding.slots import SlotPool
from ..extraction import Extraction
from ..probe_cache import open_probe_cache
from ..reading import cut_short
from ..records import Probe, VideoFile
from ..spooling import is_remote, local_copies
from ..work import Stream
from .bare_stages import OF_FRAMES, Step
from .benchmark import Benchmark, Effort, benchmark
from .report import StageCost
from .workload import Probed, UnfitVideo, Workload, showing_all, streams_in, workload

MAX_PROBED = 200
MAX_FETCHED = 8
"""Of videos at a URL."""
MAX_MEASURED = 2
MAX_TRIED = 10
"""Where none of so many goes through, it is not they that are at fault."""
EFFORT = Effort(stage_s=0.5, end_to_end_s=8.0)


class StreamForecast(Record):
    videos: int
    segments: int
    compute_s: float
    """Of its preparation and its network, with all cores or the device to itself."""
    memory_bytes: int | None
    """Of its network and a full batch; None where that cannot be known."""
    disk_bytes: int


class Forecast(Record):
    """Bytes and seconds."""

    made: str
    recipe: str
    device: str
    num_videos: int
    """That the run owes something."""
    num_probed: int
    num_unreadable: int
    """Of those probed."""
    video_s: float
    setup_s: float
    """To load networks and libraries, and to compile."""
    reading_s: float
    """Of decoding and preparing pictures and sound, if nothing ran beside it."""
    fetching_s: float
    """Of copying videos from a URL, one after the other; the rest goes on meanwhile."""
    time_s: float
    """In all, from the command to its end."""
    memory_bytes: int | None
    """Of all processes together, at most."""
    device_bytes: int | None
    disk_bytes: int
    streams: dict[str, StreamForecast]


def forecast(run: Extraction, effort: Effort = EFFORT, on_step: Step = lambda _: None) -> Forecast:
    """Of what is left to do. Raises `DecodeError` where not one of the probed videos can be read, ``ValueError`` where
    nothing is left."""
    if not run.pending:
        raise ValueError("nothing is left to do, and nothing to foresee")
    is_far = any(map(is_remote, run.pending))
    wanted = sample(run.pending, MAX_FETCHED if is_far else MAX_PROBED)
    if is_far:
        on_step(f"fetching {len(wanted)} of {len(run.pending)} videos")
    began = time.perf_counter()
    with local_copies(wanted, run.options.spool_bytes) as chosen:
        fetched_s = time.perf_counter() - began if is_far else 0.0
        on_step(f"probing {len(chosen)} of {len(run.pending)} videos")
        found = probe_all(run, chosen)
        if not found:
            more = "`arabesque extract` without --dry-run says why"
            raise DecodeError(f"none of {len(chosen)} videos can be read; {more}")
        whole = [video for video in found if not cut_short(video[1])] or found
        measured = _measured(run, whole, effort, on_step)
        owed = {file.video_id: _owed(run, file, measured) for file, _ in found}
        work = workload(found, measured.bench.streams, owed)
    share = len(run.pending) / len(chosen)
    return _foreseen(run, measured, work.times(share), fetched_s * share, len(chosen), len(chosen) - len(found))


def _measured(run: Extraction, videos: Probed, effort: Effort, on_step: Step) -> Benchmark:
    """On typical ones; where such a video is damaged in a way that probing does not show, on others."""
    tried: Probed = []

    def choose(streams: Sequence[Stream]) -> Probed:
        chosen = typical([video for video in videos if video not in tried], streams, MAX_MEASURED)
        tried.extend(chosen)
        return chosen

    while True:
        try:
            return benchmark(run, effort, on_step, choose)
        except UnfitVideo as unfit:
            if len(tried) >= min(len(videos), MAX_TRIED):
                raise
            on_step(f"measuring on other videos, for {unfit}")


def sample(files: Sequence[VideoFile], count: int) -> Sequence[VideoFile]:
    """All, or so many drawn by chance; the same every time."""
    return files if len(files) <= count else random.Random(0).sample(files, count)


def probe_all(run: Extraction, files: Sequence[VideoFile]) -> Probed:
    """Those that can be read, several at once."""
    options = run.options

    def probe(file: VideoFile) -> tuple[VideoFile, Probe] | None:
        with slots.slot() as slot:
            try:
                return file, slot.probe(file.local_path)
            except DecodeError:
                return None

    with (
        open_probe_cache(options.decoder, files) as probes,
        SlotPool(options.num_decoders, options.decoder, probes=probes) as slots,
        ThreadPoolExecutor(options.num_decoders) as pool,
    ):
        return [found for found in pool.map(probe, files) if found is not None]


def typical(videos: Probed, streams: Sequence[Stream], count: int) -> Probed:
    """The videos in the middle by pixels a second, of those that show most streams.

    More of them where it takes more to show every stream that any video shows.
    """
    ordered = sorted(videos, key=lambda video: video[1].width_px * video[1].height_px * video[1].fps)
    from_the_middle = sorted(range(len(ordered)), key=lambda place: abs(place - (len(ordered) - 1) / 2))
    nearest = [ordered[place] for place in from_the_middle]
    nearest.sort(key=lambda video: -len(streams_in(video, streams)))
    chosen = showing_all(nearest, streams)
    return chosen + [video for video in nearest if video not in chosen][: max(0, count - len(chosen))]


@dataclass(frozen=True)
class StageTime:
    """A stage's share of a whole run, or one stream's part of it."""

    cost: StageCost
    wall_s: float
    cpu_s: float | None


def stage_times(stages: Sequence[StageCost], measured: Workload, work: Workload) -> list[StageTime]:
    """What a run over ``work`` takes in each stage, at the costs that were found on ``measured``."""
    times: list[StageTime] = []
    for cost in stages:
        if not cost.stream and any(part.stream and part.stage == cost.stage for part in stages):
            continue  # the streams' parts of it follow
        amount = _video_s_like(cost, measured, work)
        times.append(StageTime(cost, cost.wall_s * amount, None if cost.cpu_s is None else cost.cpu_s * amount))
    return times


def least_time_s(times: Sequence[StageTime], cores: int) -> float:
    """Of the slowest stage, or of all stages' work on the cores where that is more."""
    by_stage: dict[str, float] = {}
    for part in times:
        by_stage[part.cost.stage] = by_stage.get(part.cost.stage, 0.0) + part.wall_s
    return max(*by_stage.values(), sum(part.cpu_s or 0.0 for part in times) / cores)


def _video_s_like(cost: StageCost, measured: Workload, work: Workload) -> float:
    """As how many seconds of the measured videos ``work`` counts in this stage."""
    if cost.stage not in OF_FRAMES:
        there, here = _segments(measured, cost.stream), _segments(work, cost.stream)
    elif cost.stage == "decode":
        there, here = measured.decoded_pixels, work.decoded_pixels
    else:
        there, here = measured.frame_pixels, work.frame_pixels
    if not there:  # a recipe that only listens
        there, here = measured.duration_s, work.duration_s
    return measured.duration_s * here / there


def _segments(work: Workload, stream: str) -> int:
    return work.segments[stream] if stream else sum(work.segments.values())


def _owed(run: Extraction, file: VideoFile, measured: Benchmark) -> list[Stream]:
    """Of the streams that were measured."""
    names = run.ledger.open_streams(file, run.settings_digests)
    return [stream for stream in measured.bench.streams if stream.name in names]


def _foreseen(
    run: Extraction, measured: Benchmark, work: Workload, fetching_s: float, num_probed: int, num_unreadable: int
) -> Forecast:
    report = measured.report
    setup_s = report.setup_s + report.warm_up_s
    times = stage_times(report.stages, measured.whole, work)
    stored = measured.end_to_end.stored
    streams = {
        name: StreamForecast(
            videos=work.rows[name],
            segments=work.segments[name],
            compute_s=sum(time.wall_s for time in times if time.cost.stream == name),
            memory_bytes=_memory(name, report.stages, report.loaded_bytes),
            disk_bytes=stored[name].scaled(work.segments[name], work.rows[name]),
        )
        for name in work.segments
    }
    outcomes = measured.end_to_end.outcomes.scaled(0, work.num_videos * len(streams))
    return Forecast(
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        recipe=report.recipe,
        device=report.device,
        num_videos=len(run.pending),
        num_probed=num_probed,
        num_unreadable=num_unreadable,
        video_s=work.duration_s,
        setup_s=setup_s,
        reading_s=sum(time.wall_s for time in times if time.cost.stage in OF_FRAMES),
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
