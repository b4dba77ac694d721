"""Folders of frames as videos: JPEG and PNG images in natural order, as many data sets are published."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...manifests.errors import DecodeError
from ..records import FileState, Hole, VideoMetadata
from .source_files import Content, FileChangedError

IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png"])
CONTAINER = "frames"
"""`VideoMetadata.container` of a folder of frames."""
_HEAD_BYTES = 64 << 10
_MAX_TICKS = 1_000_000
_DIGITS = re.compile(r"(\d+)")


def is_image(name: str) -> bool:
    """Return whether a name is that of a frame. Hidden files are not frames."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order: ``2.jpg`` before ``10.jpg``."""
    names = [entry.name for entry in os.scandir(folder) if is_image(entry.name)]
    return [folder / name for name in sorted(names, key=_natural)]


def _natural(name: str) -> tuple[list[tuple[int, str]], str]:
    return [(int(part) if part.isdigit() else 0, part) for part in _DIGITS.split(name)], name


def folder_state(folder: Path) -> FileState:
    """Return the total size of the images and the latest of their modification times."""
    states = [os.stat(path) for path in frame_files(folder)]
    times = states or [os.stat(folder)]
    return FileState(
        sum(state.st_size for state in states),
        max(state.st_mtime_ns for state in times),
        max(state.st_ctime_ns for state in times),
    )


def read_folder_content(folder: Path) -> Content:
    """Return digest and size of the images in their order. Their names have no effect."""
    digest, size_bytes = hashlib.sha256(b"frames"), 0
    for path in frame_files(folder):
        content = path.read_bytes()
        digest.update(len(content).to_bytes(8) + content)
        size_bytes += len(content)
    return Content(digest.hexdigest(), size_bytes, 0)


def probe_folder(folder: Path, frame_rate: float, alive: Callable[[], None]) -> VideoMetadata:
    """Read the metadata of a folder of frames from the headers of its images.

    Raises:
        DecodeError: There are no images, none can be read, or their sizes differ.
    """
    paths = frame_files(folder)
    if not paths:
        raise DecodeError(f"{folder}: has no .jpg or .png images; remove the folder, or add its frames")
    first: tuple[Path, tuple[int, int]] | None = None
    for path in paths:
        alive()
        size = _size_px(path)
        if size is None:
            continue
        if first is not None and size != first[1]:
            (width, height), (other_width, other_height) = first[1], size
            raise DecodeError(
                f"{folder}: the size of the frames changes from {width}×{height} ({first[0].name}) to "
                f"{other_width}×{other_height} ({path.name}); scale them to one size"
            )
        first = first or (path, size)
    if first is None:
        raise DecodeError(f"{folder}: no image can be read, such as {paths[0].name}; get the frames again")
    width, height = first[1]
    ticks = _ticks_of(frame_rate)
    times_s = np.arange(len(paths)) * ticks[0] / ticks[1]
    return VideoMetadata(
        container=CONTAINER,
        codec="png" if first[0].suffix.lower() == ".png" else "mjpeg",
        width_px=width,
        height_px=height,
        rotation_deg=0,
        fps=frame_rate,
        frame_times_s=times_s,
        end_s=len(paths) * ticks[0] / ticks[1],
        declared_end_s=None,
        audio=None,
        num_audio_tracks=0,
        tick_s=ticks,
    )


def decode_folder(
    folder: Path, metadata: VideoMetadata, wanted: NDArray[np.int64], alive: Callable[[], None]
) -> Iterator[tuple[int, NDArray[np.uint8]] | Hole]:
    """Decode wanted frames of a folder; see `Decoder.frames`. Only these images are opened."""
    import av
    from av.error import FFmpegError
    from av.video.reformatter import VideoReformatter

    paths, reformatter = frame_files(folder), VideoReformatter()
    if len(paths) != metadata.num_frames:
        raise DecodeError(f"{folder}: has {len(paths)} frames, but had {metadata.num_frames} before; run again")
    edges_s = np.append(metadata.frame_times_s, metadata.end_s)
    for index in map(int, wanted):
        alive()
        path = paths[index]
        try:
            codec: Any = av.CodecContext.create("png" if path.suffix.lower() == ".png" else "mjpeg", "r")
            codec.thread_count = 1
            if codec.name == "mjpeg":
                codec.options = {"err_detect": "explode"}
            frames = [*codec.decode(av.Packet(path.read_bytes())), *codec.decode(None)]
            if not frames or frames[0].is_corrupt:
                raise DecodeError("the picture is damaged")
            picture = cast("NDArray[np.uint8]", reformatter.reformat(frames[0], format="rgb24", threads=1).to_ndarray())
            if picture.shape[:2] != (metadata.height_px, metadata.width_px):
                raise DecodeError(f"has {picture.shape[1]}×{picture.shape[0]} pixels")
        except MemoryError:
            raise
        except (FFmpegError, DecodeError, OSError, ValueError) as error:
            reason = f"frame {index} ({path.name}) cannot be decoded: {error}"
            yield Hole(float(edges_s[index]), float(edges_s[index + 1]), reason)
            continue
        yield index, picture


def _ticks_of(frame_rate: float) -> tuple[int, int]:
    """Return the time between frames as a fraction: 1001/30000 s for 29.97 and 29.970 frames per second."""
    if abs(frame_rate * 1001 / 1000 - round(frame_rate * 1001 / 1000)) < 1e-3 and frame_rate != round(frame_rate):
        return 1001, round(frame_rate * 1001 / 1000) * 1000
    numerator, denominator = float(round(frame_rate, 6)).as_integer_ratio()
    if numerator > _MAX_TICKS:
        numerator, denominator = round(frame_rate * 1_000_000), 1_000_000
    return denominator, numerator


def _size_px(path: Path) -> tuple[int, int] | None:
    """Return (width, height) from the header of an image; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(_HEAD_BYTES)
            if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
                return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
            found = _jpeg_size_px(data)
            return found or (_jpeg_size_px(data + file.read()) if data[:2] == b"\xff\xd8" else None)
    except OSError:
        return None


def _jpeg_size_px(data: bytes) -> tuple[int, int] | None:
    """Return the size of a JPEG image from its frame header (SOF)."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 2 if marker == 0xFF or 0xD0 <= marker <= 0xD8 else 2 + int.from_bytes(data[at + 2 : at + 4])
    return None


class WatchedFolder:
    """A folder of frames, whose images must not change while they are read.

    Args:
        path: The folder.

    Raises:
        OSError: The folder or an image cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state = folder_state(path)

    def check(self) -> None:
        """Raise `FileChangedError` if an image was changed, added or removed."""
        try:
            state = folder_state(self._path)
        except OSError:
            raise FileChangedError from None
        if state != self.state:
            raise FileChangedError

    def close(self) -> None:
        """Do nothing: no file stays open."""
