"""Functions that build decoders and read clips with them, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import Clip, number_of, write_clip

from arabesque.manifests.errors import DecodeError
from arabesque.pipeline.decoding.decoders import Decoder, IndexMismatch, build_decoder
from arabesque.pipeline.records import Hole, VideoMetadata

MPEG4 = {"codec": "mpeg4", "options": {"bf": "2", "g": "12", "b": "3M"}}
VP9 = {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}}


def build(backend: str) -> Decoder:
    if backend == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this platform")
    return build_decoder(backend, alive=lambda: None)


class Writer:
    """``write("a.mp4", num_frames=…)`` → the clip's path."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str, *, muxer: dict[str, str] | None = None, **clip: Any) -> Path:
        return write_clip(self._folder / name, Clip(**clip), **(muxer or {}))


def deliver(
    decoder: Decoder, path: Path, wanted: Any = None, metadata: VideoMetadata | None = None
) -> tuple[list[int], str]:
    """Return the numbers in the delivered frames, and the reasons for missing ones."""
    metadata = metadata or decoder.probe(path)
    wanted = np.arange(metadata.num_frames) if wanted is None else np.asarray(wanted)
    numbers: list[int] = []
    complaint = ""
    try:
        left = iter(wanted.tolist())
        for item in decoder.frames(path, metadata, wanted):
            if isinstance(item, Hole):
                complaint += f"{item.reason}; "
                continue
            index, picture = item
            assert index in left  # ascending, each at most once
            assert picture.shape == (metadata.height_px, metadata.width_px, 3)
            numbers.append(number_of(picture))
    except DecodeError as error:
        complaint += str(error)
        named = str(path) in complaint
        assert named
    return numbers, complaint


def deliver_with_holes(decoder: Decoder, path: Path) -> tuple[dict[int, int], list[Hole], VideoMetadata]:
    """Return index → number in the delivered frame, for every delivered frame, and the holes."""
    pictures, holes, metadata = pictures_and_holes(decoder, path)
    return {index: number_of(picture) for index, picture in pictures.items()}, holes, metadata


def pictures_and_holes(decoder: Decoder, path: Path) -> tuple[dict[int, Any], list[Hole], VideoMetadata]:
    """Return index → picture for every delivered frame, and the holes. Like a run, this may probe twice."""
    for thorough in (False, True):
        metadata, pictures, holes = decoder.probe(path, thorough), dict[int, Any](), list[Hole]()
        try:
            for item in decoder.frames(path, metadata, np.arange(metadata.num_frames)):
                if isinstance(item, Hole):
                    holes.append(item)
                else:
                    pictures[item[0]] = np.array(item[1])
            break
        except IndexMismatch:
            assert not thorough
    assert not any(hole.start_s <= metadata.frame_times_s[index] < hole.end_s for index in pictures for hole in holes)
    lost = set(range(metadata.num_frames)) - pictures.keys()
    assert all(any(hole.start_s <= metadata.frame_times_s[index] < hole.end_s for hole in holes) for index in lost)
    return pictures, holes, metadata
