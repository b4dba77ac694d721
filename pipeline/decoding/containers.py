"""Opening of video files, and only of video files, with FFmpeg's libraries."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from ...manifests.errors import DecodeError
from .codecs import AUDIO_DECODERS, VIDEO_DECODERS, WHITELIST
from .decoders import IndexMismatch
from .signatures import format_of, head_of, is_moving
from .source_files import check_file

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,mpegts,mpeg,flv,live_flv,asf,ogg,mxf,dv"
"""FFmpeg's demuxers that may open a file, regardless of its name.

They do not open other files or addresses, unlike the demuxers of playlists (hls, concat, sdp) and subtitles (vobsub).
MOV's references to other files are followed only with the option ``enable_drefs``, which is never set. Matroska's
linked segments, MXF's locators and ASF's script commands are never followed. ``test_containers.py`` checks every file
that
is opened.
"""


WITHOUT_MEMORY = ("pcm_", "flac", "alac", "wavpack", "tta")
"""Prefixes of the names of audio decoders that need no earlier packet and have no encoder delay."""
AUDIO_RATES_HZ = 1_000, 768_000
"""Lowest and highest sampling rate in use. A header may state any number."""


@contextmanager
def open_container(path: Path, card: HWAccel | None = None) -> Generator[InputContainer]:
    """Open a video file. Raises `DecodeError` for other files. ``card``: decodes the video; None: the CPU does."""
    check_file(path)
    with _name_for_ffmpeg(path) as name:
        try:
            options = {"format_whitelist": FORMATS, "codec_whitelist": WHITELIST, "protocol_whitelist": "file"}
            options["scan_all_pmts"] = "1"  # otherwise later programs of a transport stream have no codecs
            container = av.open(name, options=options, metadata_errors="replace", hwaccel=card)
        except MemoryError:
            raise
        except FFmpegError as error:
            raise DecodeError(f"{path}: {_why_not_opened(path, error)}") from error
        with container:
            yield container


def _why_not_opened(path: Path, error: FFmpegError) -> str:
    head = head_of(path)
    known = format_of(head)
    what = "its first bytes are not of a known format"
    if known is not None:
        is_animated = known.name in ("GIF", "WebP") and is_moving(head)
        what = f"its format is {'animated ' if is_animated else ''}{known.name}"
    is_excluded = isinstance(error, ArgumentError)  # FFmpeg's error for a format that is not among `FORMATS`
    if is_excluded or (known is not None and not known.is_video):
        return (
            f"cannot be opened as a video: {what}, and MP4, MOV, AVI, Matroska, WebM, MPEG-TS, MPEG-PS, FLV, ASF, Ogg, "
            "MXF and DV are read; convert the file (ffmpeg -i IN OUT.mp4) or remove it"
        )
    return (
        f"cannot be opened as a video: {what}, and FFmpeg reports {reason(error)!r}; a damaged beginning, or the "
        "missing index of a truncated MP4 file, has this effect; get the file again"
    )


@contextmanager
def _name_for_ffmpeg(path: Path) -> Generator[str]:
    """Yield an absolute name, which FFmpeg cannot mistake for a protocol, or a descriptor if the name is not UTF-8."""
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


def video_candidates(container: InputContainer) -> list[VideoStream]:
    """Return all video streams except cover art."""
    return [stream for stream in container.streams.video if Disposition.attached_pic not in stream.disposition]


def choose_video(container: InputContainer, path: Path) -> VideoStream:
    """Return the video stream that FFmpeg considers the best one; cover art is never chosen."""
    candidates = video_candidates(container)
    if not candidates:
        raise DecodeError(f"{path}: no video stream; remove the file")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in candidates else candidates[0]
    if stream.codec_context is None:  # pyright: ignore[reportUnnecessaryComparison]  # PyAV's stub is wrong
        raise DecodeError(f"{path}: no decoder for its video codec; convert it (ffmpeg -i IN OUT.mp4)")
    check_codec(stream, path)
    return stream


def choose_audio(
    container: InputContainer, path: Path, video: VideoStream, audio_track: int | str
) -> AudioStream | None:
    """Return the audio stream to decode, or None if the file has no such stream.

    Args:
        container: An open file.
        path: Its path, for errors.
        video: The chosen video stream. In a transport stream, audio of the same program is preferred.
        audio_track: See `StreamSpec.audio_track`.
    """
    best = container.streams.best("audio", related=video)
    if isinstance(audio_track, int):
        candidates = container.streams.audio[audio_track : audio_track + 1]
    elif audio_track == "best":
        candidates = container.streams.audio
    else:
        candidates = [each for each in container.streams.audio if (each.language or "").lower() == audio_track.lower()]
    if not candidates:
        return None
    return checked_audio(best if isinstance(best, AudioStream) and best in candidates else candidates[0], path)


def video_stream(container: InputContainer, path: Path, index: int) -> VideoStream:
    """Return the video stream with the index in the metadata. Raises `IndexMismatch`."""
    stream = container.streams[index] if index < len(container.streams) else None
    if not isinstance(stream, VideoStream) or stream.codec_context is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise IndexMismatch(f"{path}: stream {index} is not a video stream, but is one in the metadata")
    return stream


def audio_stream(container: InputContainer, path: Path, index: int) -> AudioStream:
    """Return the audio stream with the index in the metadata. Raises `IndexMismatch`."""
    stream = container.streams[index] if index < len(container.streams) else None
    if not isinstance(stream, AudioStream):
        raise IndexMismatch(f"{path}: stream {index} is not an audio stream, but is one in the metadata")
    return checked_audio(stream, path)


def checked_audio(stream: AudioStream, path: Path) -> AudioStream:
    """Return the stream. Raises `DecodeError` if FFmpeg cannot decode it or its rate is outside of `AUDIO_RATES_HZ`."""
    no_decoder = stream.codec_context is None  # pyright: ignore[reportUnnecessaryComparison]
    if no_decoder or stream.rate <= 0 or stream.channels <= 0:
        raise DecodeError(f"{path}: no decoder for its audio; convert it, or remove it (ffmpeg -i IN -c copy -an OUT)")
    check_codec(stream, path)
    if not AUDIO_RATES_HZ[0] <= stream.rate <= AUDIO_RATES_HZ[1]:
        raise DecodeError(
            f"{path}: its header states {stream.rate:,} Hz of audio, but only {AUDIO_RATES_HZ[0]:,} to "
            f"{AUDIO_RATES_HZ[1]:,} are supported; correct it, or remove the audio (ffmpeg -i IN -c copy -an OUT)"
        )
    return stream


def check_codec(stream: VideoStream | AudioStream, path: Path) -> None:
    """Raise `DecodeError` for a decoder that is not accepted (`codecs`)."""
    kind, accepted = ("video", VIDEO_DECODERS) if isinstance(stream, VideoStream) else ("audio", AUDIO_DECODERS)
    if stream.codec_context.name not in accepted:
        raise DecodeError(
            f"{path}: its {kind} codec, {stream.codec_context.name}, is not accepted, because rare "
            "decoders are not safe for files of unknown origin; convert the file (ffmpeg -i IN OUT.mp4)"
        )


def check_all_codecs(path: Path) -> None:
    """Raise `DecodeError` if any stream needs a decoder that is not accepted, for readers that open all streams."""
    with open_container(path) as container:
        for stream in (*container.streams.video, *container.streams.audio):
            if stream.codec_context is not None:  # pyright: ignore[reportUnnecessaryComparison]
                check_codec(stream, path)


def packets(container: InputContainer, *streams: Stream, alive: Callable[[], None]) -> Iterator[Packet[Any]]:
    """Yield the packets of some streams, without the empty ones at their ends. Raises `FFmpegError`."""
    for other in container.streams:
        if other not in streams:
            other.discard = Discard.all
    is_over = False
    while not is_over:
        with suppress(IndexError):  # raised by PyAV for a packet of a stream that starts later; the next call continues
            for packet in container.demux(*streams):
                alive()
                if packet.size:
                    yield packet
            is_over = True


def reason(error: FFmpegError) -> str:
    """Return FFmpeg's error text. Decoders return -1 for any failure, which is the number of a denied permission."""
    if error.errno == errno.EPERM:
        return "error -1, without a cause"
    return (error.strerror or str(error)).lower()


def rejection(error: FFmpegError) -> str:
    """Describe the error of a decoder that rejects a packet."""
    return f"the decoder rejects a packet, and FFmpeg reports {reason(error)!r}"
