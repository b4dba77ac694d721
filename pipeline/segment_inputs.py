"""The segments of one video as input of the extractors of a recipe, without a store."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path

import torch

from ..manifests.errors import DecodeError
from .decoding.decoder_pool import DecoderPool, FrameChunk
from .decoding.decoders import IndexMismatch
from .items import ChunkFailure, DecodedChunk, Notice, SegmentTask, Stream, VideoEnd, shared_settings
from .planning.metadata_cache import open_metadata_cache
from .planning.plan import plan_video, with_segments
from .records import VideoRecord, state_of
from .stages.assemble import SegmentBuilder
from .stages.decode import read_metadata
from .stages.preprocess import preprocess
from .stages.transfer import Transfer


def read_segments(
    path: Path,
    streams: Sequence[Stream],
    choose: Callable[[Stream, int], Sequence[int]],
    device: torch.device,
    decoder: str = "pyav",
) -> Generator[SegmentTask | Notice, None, None]:
    """Decode a video once and yield chosen segments of each stream, as inputs for `Extractor.prepare`.

    Args:
        path: A video file.
        streams: The streams.
        choose: Called with a stream and its number of segments; returns the indices of the segments to yield.
        device: The device of the frames.
        decoder: Name of the decoder backend.

    Yields:
        Segments; those of a stream are in ascending order. A notice for each stream without segments and for each part
            that cannot be decoded.

    Raises:
        DecodeError: The file cannot be read.
    """
    state, settings = state_of(path), shared_settings(streams)
    if state is None:
        raise DecodeError(f"{path}: cannot be read; check the path and its permissions")
    with (
        open_metadata_cache(decoder) as cache,
        closing(DecoderPool(1, decoder)) as pool,
        pool.decoder() as process,
    ):
        for thorough in (False, True):
            metadata = read_metadata(process, cache, path, settings.audio_track, thorough=thorough)
            video = VideoRecord(path.stem, path, state.size_bytes, state.modified_ns, "", metadata)
            plan, outcomes = plan_video(video, streams, {})
            wanted = {name: choose(each.stream, len(each.segments)) for name, each in plan.streams.items()}
            plan = with_segments(plan, wanted)
            builder, transfer, frames_delivered, reached = SegmentBuilder(), Transfer(device), 0, False
            try:
                for item in process.decode(
                    path,
                    metadata,
                    plan.wanted,
                    audio_until_s=plan.audio_until_s,
                    deinterlace=settings.deinterlace,
                ):
                    reached = True
                    if not isinstance(item, FrameChunk):
                        for hole in item.frames:
                            yield Notice(f"{hole.start_s:.2f} to {hole.end_s:.2f} s: {hole.reason}")
                        continue
                    frames_delivered += len(item.indices)
                    moved = transfer(DecodedChunk(plan, item))
                    done = moved if isinstance(moved, ChunkFailure) else preprocess(moved)
                    if isinstance(done, ChunkFailure):
                        raise DecodeError(f"{path}: {done.reason}")
                    yield from (task for task in builder(done) if isinstance(task, SegmentTask))
            except IndexMismatch:
                if thorough or reached:
                    raise
                continue
            end = VideoEnd(plan, frames_delivered, 0.0)
            yield from (task for task in builder(end) if isinstance(task, SegmentTask))
            yield from (Notice(f"{outcome.stream}: {outcome.reason}") for outcome in outcomes)
            return
