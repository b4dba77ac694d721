"""Records of the pipeline. Times are seconds since a video's first presented frame."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..manifests.errors import InputError
from ..manifests.urls import public_text, public_url

if TYPE_CHECKING:  # decoder processes import this module, but neither torch nor pydantic
    from ..extractors.protocol import PersonBoxes

FieldOrder = Literal["progressive", "top-first", "bottom-first", "interlaced"]
Deinterlace = Literal["none", "bwdif"]
"""Same as in `StreamSpec`, because decoder processes do not import pydantic."""
Exclude = Literal["cut", "mask"]
"""Handling of the excluded stretches of a clip.

``cut``: each remaining stretch is divided into segments separately. ``mask``: the whole clip is divided into segments,
and those that touch an excluded stretch are masked: they have no features, and training treats them as padding."""
OutcomeKind = Literal["done", "empty", "partial", "failed"]
KINDS: tuple[OutcomeKind, ...] = ("done", "empty", "partial", "failed")
PROTECTED_KINDS: tuple[OutcomeKind, ...] = ("done", "empty", "partial")
"""Kinds of outcomes that are not replaced by those of another source file (`planning.sources`)."""


def one_line(text: str) -> str:
    """Escape control characters and bytes that are not UTF-8, and remove credentials from URLs.

    The result is valid in terminals and Parquet files.
    """
    shown = "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)
    return public_text(shown)


class FileState(NamedTuple):
    """Size and times of a file, which reveal changes without opening it."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    """Time of the last change of the inode. Programs cannot set it, unlike the modification time."""


def state_of(path: Path | os.DirEntry[str]) -> FileState | None:
    """Return the current state of a file, following links; None if it cannot be read."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


COPIES_PREFIX = "arabesque-spool-"
"""Prefix of the names of temporary folders with copies of remote files."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """URL of a file that has to be fetched before it can be read. Its string form has no credentials."""

    url: str
    """URL with the credentials and the query that are needed to fetch the file."""

    @property
    def name(self) -> str:
        """Last part of the URL's path."""
        return str(self).rpartition("/")[2]

    def __str__(self) -> str:
        return public_url(self.url)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A video file of the inputs, or a clip of one, before it is opened."""

    video_id: str
    """Path below the input folder without suffix, with POSIX separators, or the id of a clip. It is unique in a run."""
    path: Path | RemotePath
    state: FileState | None = field(default=None, compare=False)
    """State when the folder was listed; None if unknown. Remote files always have one."""
    source: str = field(default="", compare=False)
    """Path below ``input_root``, with suffix."""
    input_root: str = field(default="", compare=False)
    """The input folder's absolute path, or its URL without credentials and query."""
    start_s: float | None = None
    """Start of a clip in its file; None: start of the file."""
    end_s: float | None = None
    """End of a clip in its file; None: end of the file."""
    excluded_s: tuple[tuple[float, float], ...] = ()
    """``(start_s, end_s)`` in the file of the excluded stretches of a clip, ascending and without overlap."""
    exclude: Exclude = "cut"
    frame_rate: float | None = None
    """Frames per second of a folder of frames; None for a file."""

    @property
    def videos(self) -> tuple[VideoFile, ...]:
        """The videos in the file: only this one, unlike in `ClippedFile`."""
        return (self,)

    @property
    def is_clip(self) -> bool:
        return self.start_s is not None or self.end_s is not None or bool(self.excluded_s)

    @property
    def fragment(self) -> str:
        """Part of the file as a media fragment, such as ``#t=12.5,20``; empty for a whole file.

        Excluded stretches follow, as in ``#t=12.5,20&cut=14,15.2,17,18``.

        The content digest of a clip is that of its file, followed by the fragment.
        """
        parts = [] if self.frame_rate is None else [f"fps={_seconds(self.frame_rate)}"]
        if self.is_clip:
            end = "" if self.end_s is None else f",{_seconds(self.end_s)}"
            parts.append(f"t={_seconds(self.start_s or 0.0)}{end}")
        if self.excluded_s:
            parts.append(f"{self.exclude}={','.join(_seconds(edge_s) for part in self.excluded_s for edge_s in part)}")
        return f"#{'&'.join(parts)}" if parts else ""

    def at(self, path: Path) -> VideoFile:
        """Return the video with its file at another path."""
        return replace(self, path=path)

    @property
    def local_path(self) -> Path:
        """Path of a local file. Raises `InputError` for a remote file, which only runs fetch."""
        if isinstance(self.path, RemotePath):
            raise InputError(f"{self.path}: only runs read videos at a URL; copy a few to a disk for this")
        return self.path

    @property
    def current_state(self) -> FileState | None:
        """Current state of a local file; for a remote file the state when it was listed."""
        return state_of(self.path) if isinstance(self.path, Path) else self.state


@dataclass(frozen=True, slots=True)
class ClippedFile:
    """A file with several clips, which are decoded in one pass."""

    videos: tuple[VideoFile, ...]
    """Clips of one file, at least one."""

    @property
    def video_id(self) -> str:
        """Id of the first clip, which names the file in a queue."""
        return self.videos[0].video_id

    @property
    def path(self) -> Path | RemotePath:
        return self.videos[0].path

    @property
    def state(self) -> FileState | None:
        return self.videos[0].state

    def at(self, path: Path) -> ClippedFile:
        """Return the clips with their file at another path."""
        return ClippedFile(tuple(clip.at(path) for clip in self.videos))


Source = VideoFile | ClippedFile
"""A file that is read once: a video, or all clips of a file."""


def grouped(files: Iterable[VideoFile]) -> list[Source]:
    """Group the clips of each file. Files are in the order of their first clips."""
    clips: dict[Path | RemotePath, list[VideoFile]] = {}
    found: list[VideoFile | list[VideoFile]] = []
    for file in files:
        if not file.is_clip:
            found.append(file)
        elif file.path in clips:
            clips[file.path].append(file)
        else:
            found.append(clips.setdefault(file.path, [file]))
    return [_one_or_several(each) if isinstance(each, list) else each for each in found]


def _one_or_several(clips: list[VideoFile]) -> Source:
    return clips[0] if len(clips) == 1 else ClippedFile(tuple(clips))


def fragment_of(content_digest: str) -> str:
    """Return the fragment in the content digest of a clip; see `VideoFile.fragment`."""
    _, mark, fragment = content_digest.partition("#")
    return mark + fragment


def _seconds(time_s: float) -> str:
    return f"{time_s:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class AudioTrack:
    """The audio stream of a file that is decoded."""

    rate_hz: int
    channels: int
    start_s: float
    """Time of the first sample, relative to the first presented frame; may be negative."""
    duration_s: float | None
    """Duration that the container states; None if it does not state one."""
    stream_index: int = 1
    """Index among all streams of the file, in FFmpeg's order."""
    lost_at: tuple[int, ...] = ()
    clock: tuple[tuple[int, int], ...] = ()
    """``lost_at`` and ``clock`` as in `VideoMetadata`, for the packets of this stream."""


@dataclass(frozen=True)
class Hole:
    """A part of a video whose frames or audio cannot be decoded."""

    start_s: float
    end_s: float
    reason: str
    """Cause as a phrase."""


@dataclass(frozen=True, eq=False)
class VideoMetadata:
    """Metadata of a video: frame size, rotation and the time of each frame, from the container and a few frames."""

    container: str
    codec: str
    width_px: int
    """After rotation."""
    height_px: int
    rotation_deg: int
    """Counter-clockwise rotation in degrees that turns stored frames upright: 0, 90, 180 or 270."""
    fps: float
    """Average frame rate. It is nominal; `frame_times_s` is exact."""
    frame_times_s: NDArray[np.float64]
    """Time of each frame that a decoder presents, ascending from 0."""
    end_s: float
    """End of the last frame."""
    declared_end_s: float | None
    """End that the container's header states; None if it does not state one."""
    audio: AudioTrack | None
    start_s: float = 0.0
    """Time of the first presented frame in the container; all other times are relative to it."""
    timed_by: Literal["packets", "frames", "counting"] = "packets"
    """Source of `frame_times_s`: time stamps of packets; of decoded frames, if packets and frames do not correspond; or
    the count of decoded frames, if time stamps are missing or not in order (AVI)."""
    lost_at: tuple[int, ...] = ()
    """Positions of lost bytes in the file, ascending. If a position is inside a packet of the video stream, the packet
    is damaged; if it is between two packets, other packets are lost between them."""
    clock: tuple[tuple[int, int], ...] = ()
    """Corrections of the stream's time stamps, ascending: ``(position in the file, ticks)``. Packets from this position
    to the next correction are presented this number of ticks later than their time stamps state. Joined recordings
    restart their clock, and the time stamps of AVI files do not count lost frames."""

    can_resume: bool = True
    """Whether frames and audio after damage have certain times. This is not so in AVI files without an index, and in
    containers in which not every packet has a time stamp."""

    mirrored: bool = False
    """Whether the stored frames, after rotation, are also flipped horizontally."""
    field_order: FieldOrder = "progressive"
    """Whether pictures are interlaced, and which of their fields is shown first (``"interlaced"``: not stated)."""
    pixel_aspect: float = 1.0
    """Width ÷ height of a pixel of the upright picture (sample aspect ratio); 1 if the file does not state it."""
    video_index: int = 0
    """Index of the chosen video stream among all streams of the file, in FFmpeg's order."""
    num_video_tracks: int = 1
    """Number of video streams of the file, without cover art."""
    num_audio_tracks: int = 1
    has_other_recording: bool = False
    """Whether the file contains another recording in separate tracks, before or after the frames. It is not decoded,
    and `declared_end_s` exceeds `end_s` by its estimated duration."""
    tick_s: tuple[int, int] = (0, 1)
    """Unit of the time stamps as a fraction; 0 if unknown. Times of a clip are whole ticks, like those of a cut
    file."""
    excluded_frames: tuple[tuple[int, int], ...] = ()
    """Excluded stretches of a clip: ``(first, last)``, where ``last`` is the frame after it; ascending, without
    overlap."""
    exclude: Exclude = "cut"
    checked_frames: int = 0
    """Number of frames, from the first one on, that a CPU has decoded from the same bytes without damage in an earlier
    run. Only the metadata cache has this number."""

    def tracks(self, *, with_audio: bool) -> str:
        """Return the chosen streams as ``video=0 audio=2``, each one only if the file has several of its kind.

        The result is empty for a file with one video stream and at most one audio stream. It is part of the key of a
        row.
        """
        chosen: list[str] = []
        if self.num_video_tracks > 1:
            chosen.append(f"video={self.video_index}")
        if with_audio and self.num_audio_tracks > 1 and self.audio is not None:
            chosen.append(f"audio={self.audio.stream_index}")
        return " ".join(chosen)

    @property
    def display_px(self) -> tuple[int, int]:
        """(height, width) for display with square pixels; the height is the stored one."""
        return self.height_px, max(1, round(self.width_px * self.pixel_aspect))

    @property
    def num_frames(self) -> int:
        return len(self.frame_times_s)

    def picture_shape(self, *, planar: bool) -> tuple[int, ...]:
        """Return the shape of one decoded picture, RGB or planes (`Planes.write_to`)."""
        if planar:
            return self.height_px * 3 // 2, self.width_px
        return self.height_px, self.width_px, 3


@dataclass(frozen=True, eq=False)
class VideoRecord:
    """One video of a run: its file, digest and metadata."""

    video_id: str
    path: Path
    size_bytes: int
    modified_ns: int
    content_digest: str
    """SHA-256 of the bytes, hexadecimal, and `VideoFile.fragment`."""
    metadata: VideoMetadata
    source: str = ""
    """See `VideoFile`."""
    input_root: str = ""
    offset_s: float = 0.0
    """Time of the first frame of a clip in its file."""


@dataclass(frozen=True, eq=False)
class FeatureRow:
    """One video's features of one stream, as stored."""

    video_id: str
    stream: str
    key: str
    """Digest of (content digest, resolved stream spec, checkpoint digests, extractor version)."""
    content_digest: str
    settings_digest: str
    """Digest of all parts of the key except the content; equal for all rows of a stream in a consistent store."""
    outcome: Literal["done", "partial"]
    features: NDArray[np.float32]
    """``[segments, dim]``, or with further axes between them, such as ``[segments, time, height, width, dim]``."""
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    provenance: dict[str, str] = field(default_factory=dict[str, str])
    """Device, decoder and library versions, which do not affect the key."""


@dataclass(frozen=True, eq=False)
class VideoBoxes:
    """The boxes of people that one stream detected in one video; stored in the side table ``boxes/``."""

    video_id: str
    stream: str
    key: str
    """Key of the feature row that was computed from these boxes."""
    settings_digest: str
    boxes: PersonBoxes


@dataclass(frozen=True)
class Outcome:
    """Result of one (video, stream)."""

    video_id: str
    stream: str
    kind: OutcomeKind
    reason: str = ""
    """Empty for done; otherwise the problem and the action to take."""
    transient: bool = False
    """Only for failed: the next run retries the video."""
    key: str = ""
    """Empty if the file could not be read."""
    content_digest: str = ""
    settings_digest: str = ""
    size_bytes: int = 0
    modified_ns: int = 0
    """With ``size_bytes``: a later run uses ``content_digest`` without reading a file with these values."""
    frames_expected: int = 0
    """Number of frames from the container's packets."""
    frames_delivered: int = 0
    """Number of decoded frames outside of holes. Frames after the last one that a stream needs are not decoded."""
    segments: int = 0
    decode_s: float = 0.0
    """Wall time from the first request to the last frame."""
    compute_s: float = 0.0
    """This stream's share of preparation and network time."""
    source: str = ""
    """Path of the file below its input root, with suffix; empty if unknown, as in stores of earlier versions."""
    input_root: str = ""
    """Folder (absolute path) or URL that was given as input, without credentials and query."""
    holes: tuple[tuple[float, float], ...] = ()
    """``(start_s, end_s)`` of the parts that could not be decoded, ascending."""
    lost_share: float = 0.0
    """Duration of the holes ÷ duration of the video, 0 to 1."""
    frames_seen: int = 0
    """Number of frames in which a stream with a person detector searched for people; 0 for other streams."""
    frames_with_person: int = 0
    """Number of frames in which it found an athlete. `VideoBoxes` lists the boxes."""

    @property
    def person_share(self) -> float | None:
        """Share of the frames in which an athlete was found, 0 to 1; None for streams without a person detector."""
        return self.frames_with_person / self.frames_seen if self.frames_seen else None


def source_path(of: Outcome | VideoFile) -> str:
    """Return input root and source, joined; ``/`` if they are unknown."""
    return f"{of.input_root}/{of.source}"
