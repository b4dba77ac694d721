"""Intact, damaged and fake video files: how to create each, and its expected outcomes."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from clips import X264, Clip, write_clip, write_size_change

MPEG4: dict[str, Any] = {"codec": "mpeg4", "options": {}}
NUM_FRAMES = 40
BEEPS: dict[str, Any] = {"beeps_s": (0.2, 1.1)}
LOSS = {"partial", "failed"}


@dataclass(frozen=True)
class Case:
    """A file name, a function that creates the file, and the accepted outcomes of its pictures and its audio."""

    name: str
    make: Callable[[Path], object]
    pictures: set[str]
    sound: set[str]
    reason: str = ""
    """Text in the reason of the pictures, if their outcome is not `done`."""
    first: int = 0
    """Number in the picture of the first frame."""


def clip(**changes: Any) -> Callable[[Path], object]:
    return lambda path: write_clip(path, Clip(**({"num_frames": NUM_FRAMES} | BEEPS | changes)))


def noise(path: Path) -> None:
    path.write_bytes(random.Random(os.fsencode(path.name)).randbytes(9000))


def spoilt(spoil: Callable[[bytearray], bytes | bytearray], **changes: Any) -> Callable[[Path], object]:
    """Create an intact file with the index before the media, then change its bytes."""

    def make(path: Path) -> None:
        options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
        write_clip(path, Clip(**({"num_frames": NUM_FRAMES} | BEEPS | changes)), **options)
        path.write_bytes(spoil(bytearray(path.read_bytes())))

    return make


def kept(share: float) -> Callable[[bytearray], bytearray]:
    return lambda content: content[: int(share * len(content))]


def flipped(share: float, how_many: int) -> Callable[[bytearray], bytearray]:
    """Flip bits in the 600 bytes after ``share`` of the file."""

    def spoil(content: bytearray) -> bytearray:
        chance, place = random.Random(0), int(share * len(content))
        for _ in range(how_many):
            content[min(len(content) - 1, place + chance.randrange(600))] ^= 1 << chance.randrange(8)
        return content

    return spoil


def without(box: bytes) -> Callable[[bytearray], bytearray]:
    def spoil(content: bytearray) -> bytearray:
        place = content.index(box) - 4
        (length,) = struct.unpack(">I", content[place : place + 4])
        return content[:place] + content[place + length :]

    return spoil


def zero_duration(content: bytearray) -> bytearray:
    """Set the duration to zero in the headers of the movie, its tracks and their media."""
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        place = content.find(box)
        while place >= 0:
            content[place + offset : place + offset + 4] = bytes(4)
            place = content.find(box, place + 1)
    return content


def frame_count(count: int) -> Callable[[bytearray], bytearray]:
    """Set the number of frames in the header of an AVI file and of its first stream."""

    def spoil(content: bytearray) -> bytearray:
        for box, offset in ((b"avih", 24), (b"strh", 40)):
            place = content.index(box) + offset
            content[place : place + 4] = struct.pack("<I", count)
        return content

    return spoil


def reserved(size_bytes: int) -> Callable[[Path], object]:
    """Create the file of an interrupted download: full length, with only the beginning written."""

    def make(path: Path) -> None:
        write_clip(path, Clip(num_frames=NUM_FRAMES, **BEEPS))
        os.truncate(path, size_bytes)

    return make


def large(width_px: int, height_px: int) -> Callable[[Path], object]:
    """Write gray pictures; frame numbers would take long to draw."""

    def make(path: Path) -> None:
        with av.open(path, "w") as container:
            stream: Any = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.full((height_px * 3 // 2, width_px), 128, np.uint8), format="yuv420p")
            for number in range(8):
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    return make


def playlist(target: str) -> Callable[[Path], object]:
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{target}\n#EXT-X-ENDLIST\n"
    return lambda path: path.write_text(text)


def cases(address: str) -> list[Case]:
    """Return all cases. ``address`` is a server that must not receive a connection."""
    done, empty, failed = {"done"}, {"empty"}, {"failed"}
    tall: dict[str, Any] = {"rotation_deg": 90}
    fields = X264 | {"x264-params": "b-adapt=0:scenecut=0:log-level=none:tff=1"}
    slow_start = [*range(16), *range(16, 16 + 4 * 24, 4)]
    return [
        Case("good.mp4", clip(), done, done),
        Case("empty.mp4", Path.touch, failed, failed, "is empty"),
        Case("noise.mp4", noise, failed, failed, "cannot be opened as a video"),
        *(Case(f"cut_{tenth}0.mp4", spoilt(kept(tenth / 10)), LOSS, LOSS) for tenth in range(1, 10)),
        Case("flipped_header.mp4", spoilt(flipped(0.0, 40)), LOSS, LOSS),
        # the audio track is not recognized here
        Case("flipped_index.mp4", spoilt(flipped(0.02, 40)), LOSS, LOSS | empty),
        Case("flipped_stream.mp4", spoilt(flipped(0.5, 40)), LOSS, LOSS | done),
        Case("flipped_cluster.mkv", spoilt(flipped(0.5, 40)), LOSS, LOSS | done),
        Case("headless.mp4", spoilt(without(b"moov")), failed, failed, "cannot be opened as a video"),
        Case("silent.mp4", clip(beeps_s=None), done, empty),
        Case("sound_alone.mp4", clip(num_frames=0, audio_until_s=2.0), failed, failed, "no video stream"),
        Case("short_sound.mp4", clip(audio_until_s=0.7), done, done),
        Case("long_sound.mp4", clip(audio_until_s=6.0), done, done),
        Case("one_frame.mp4", clip(num_frames=1), empty, empty, "shorter than one segment"),
        Case("zero_duration.mp4", spoilt(zero_duration), done, done),
        Case("too_many.avi", spoilt(frame_count(4000), **MPEG4), LOSS, LOSS, "its header states"),
        Case("too_few.avi", spoilt(frame_count(3), **MPEG4), done, done),
        Case("variable.mkv", clip(times=slow_start), done, done),
        Case("negative.mkv", clip(times=range(-10, 30)), done, done),
        Case("negative_edit.mp4", clip(times=range(-10, 30)), done, done, first=10),
        Case("upright.mp4", clip(**tall), done, done),
        Case("odd.mp4", clip(width_px=127, height_px=95, pix_fmt="yuv444p"), done, done),
        Case("pixel.mkv", clip(width_px=1, height_px=1, codec="ffv1", pix_fmt="yuv444p", options={}), done, done),
        Case("8k.mp4", large(7680, 4320), done, empty),
        Case("ten_bit.mp4", clip(pix_fmt="yuv420p10le"), done, done),
        Case("interlaced.mp4", clip(options=fields), done, done),
        Case("size_change.mkv", _size_change, LOSS, empty, "the picture changes from 128×96 to 64×48"),
        Case("playlist.mp4", playlist("good.mp4"), failed, failed, "cannot be opened as a video"),
        Case("remote.mp4", playlist(f"http://{address}/a.mp4"), failed, failed, "cannot be opened as a video"),
        Case("concat.mp4", lambda path: path.write_text("ffconcat version 1.0\nfile good.mp4\n"), failed, failed),
        Case("pipe.mp4", os.mkfifo, failed, failed, "not a regular file"),
        Case("loop.mp4", lambda path: path.symlink_to(path), failed, failed, "symbolic link"),
        Case("folder.mp4", Path.mkdir, failed, failed, "not a regular file"),
        Case("späth ☃\ntwo lines.mp4", clip(), done, done),
        Case("two\nlines \x1b[31mand no video.mp4", noise, failed, failed, r"two\nlines \x1b[31mand"),
        Case(os.fsdecode(b"caf\xe9.mp4"), noise, failed, failed, "caf"),
        Case("reserved.mkv", reserved(64 << 20), failed, failed, "was never written to its end"),
    ]


def _size_change(path: Path) -> None:
    write_size_change(path, Clip(num_frames=NUM_FRAMES), 64, 48)
