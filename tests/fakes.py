"""Fake extractors and records of videos, for tests of the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from arabesque.extractors.protocol import AudioNeed, FrameNeed, SegmentInput
from arabesque.manifests.streams import Geometry, Record, Sampling, StreamSpec
from arabesque.pipeline.items import Stream
from arabesque.pipeline.records import AudioTrack, VideoMetadata, VideoRecord

PLAIN = Geometry(steps=())
PLAIN_FRAMES = FrameNeed(PLAIN)


class FakeExtractor:
    """An extractor that computes ``row(segment)`` and keeps its inputs."""

    class Settings(Record):
        pass

    version: ClassVar[int] = 1
    weight_roles: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        frames: FrameNeed | None = PLAIN_FRAMES,
        audio: AudioNeed | None = None,
        batch_size: int = 2,
        dim: int = 2,
        row: Callable[[SegmentInput], torch.Tensor | None] | None = None,
    ) -> None:
        self.frames = frames
        self.audio = audio
        self.batch_size = batch_size
        self.dim = dim
        self._row = row or (lambda segment: torch.tensor([float(segment.index), segment.start_s]))
        self.batches: list[int] = []

    def prepare(self, segment: SegmentInput) -> SegmentInput:
        return segment

    def forward(self, prepared: Sequence[Any]) -> list[torch.Tensor | None]:
        self.batches.append(len(prepared))
        return [self._row(segment) for segment in prepared]


def stream(name: str = "fake", *, length: int = 4, fps: Any = "native", **extractor: Any) -> Stream:
    sampling = Sampling(fps=fps, frames_per_segment=length, frames_per_step=length, remainder="drop-tail")
    spec = StreamSpec(extractor="fake", sampling=sampling)
    return Stream(name, spec, FakeExtractor(**extractor), settings_digest=f"settings-of-{name}")


def probe(num_frames: int = 10, fps: float = 10.0, audio: AudioTrack | None = None, **facts: Any) -> VideoMetadata:
    known: dict[str, Any] = {
        "container": "mp4",
        "codec": "h264",
        "width_px": 8,
        "height_px": 6,
        "rotation_deg": 0,
        "fps": fps,
        "frame_times_s": np.arange(num_frames) / fps,
        "end_s": num_frames / fps,
        "declared_end_s": num_frames / fps,
        "audio": audio,
    }
    return VideoMetadata(**(known | facts))


def video(video_id: str = "a", **facts: Any) -> VideoRecord:
    return VideoRecord(video_id, Path(f"{video_id}.mp4"), 1, 1, f"digest-of-{video_id}", probe(**facts))
