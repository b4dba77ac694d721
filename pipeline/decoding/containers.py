"""Opening a video file with FFmpeg's libraries, and nothing but a video file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from ...manifests.errors import DecodeError
from .probing import check_file

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts"
"""None of them reads another file or an address, unlike playlists (m3u8, ffconcat, sdp), whatever their name says."""


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Raises `DecodeError` for what is no video file."""
    check_file(path)
    with _name_for_ffmpeg(path) as name:
        try:
            options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
            container = av.open(name, options=options, metadata_errors="replace")
        except MemoryError:
            raise
        except FFmpegError as error:
            raise DecodeError(
                f"{path}: is no video file that can be opened ({reason(error)}); "
                "mp4, mov, avi, mkv, webm and ts are, when whole at their head and, in old mp4 files, at their end"
            ) from error
        with container:
            yield container


@contextmanager
def _name_for_ffmpeg(path: Path) -> Iterator[str]:
    """An absolute name, which FFmpeg cannot mistake for a protocol; by descriptor where the name is no UTF-8."""
    name = os.path.abspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            yield f"/dev/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        yield name


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first stream of moving pictures; cover art is none."""
    for stream in container.streams.video:
        if Disposition.attached_pic in stream.disposition:
            continue
        if stream.codec_context is None:
            raise DecodeError(f"{path}: no decoder for its video codec; convert it (ffmpeg -i IN OUT.mp4)")
        return stream
    raise DecodeError(f"{path}: no video stream; there is nothing to see in this file")


def audio_stream(container: InputContainer, path: Path) -> AudioStream | None:
    """The first audio stream."""
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    if stream.codec_context is None or stream.rate <= 0 or stream.channels <= 0:
        raise DecodeError(
            f"{path}: no decoder for its sound; convert it, or leave it out (ffmpeg -i IN -c copy -an OUT)"
        )
    return stream


def packets(container: InputContainer, *streams: Stream, alive: Callable[[], None]) -> Iterator[Packet]:
    """The packets of some streams, without the empty ones that end them. Raises `FFmpegError`."""
    for other in container.streams:
        if other not in streams:
            other.discard = Discard.all
    for packet in container.demux(*streams):
        alive()
        if packet.size:
            yield packet


def reason(error: FFmpegError) -> str:
    return (error.strerror or str(error)).lower()
