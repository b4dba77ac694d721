"""The records that travel through the pipeline. Times are seconds since a video's first presented frame."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..manifests.errors import ManifestError

OutcomeKind = Literal["done", "empty", "partial", "failed"]


def one_line(text: str) -> str:
    """With what no terminal and no Parquet file should get written out: control characters, bytes that are no UTF-8."""
    return "".join(mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in text)


class FileState(NamedTuple):
    """What tells a file from what it was before, without opening it."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    """Unlike the time of modification, nobody can set this one back."""


def state_of(path: Path) -> FileState | None:
    """As it is now, links followed; None where it cannot be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


COPIES_PREFIX = "arabesque-spool-"
"""Begins the names of folders with copies of remote files, which are gone soon."""


@dataclass(frozen=True, slots=True)
class RemotePath:
    """Where a file lies that has to be fetched before it can be read."""

    url: str

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class VideoFile:
    """A file of the input folder, before anyone opened it."""

    video_id: str
    """Path below the input folder without suffix, POSIX separators; unique in a run."""
    path: Path | RemotePath
    state: FileState | None = field(default=None, compare=False)
    """As it was when the folder was listed; None where it was not looked at, which no remote file is."""

    @property
    def local_path(self) -> Path:
        """ManifestError for a remote file: only runs fetch those (`spooling`)."""
        if isinstance(self.path, RemotePath):
            raise ManifestError(f"{self.path}: only runs read videos at a URL; copy a few to a disk for this")
        return self.path

    @property
    def current_state(self) -> FileState | None:
        """As it is now; of a remote file, as it was when it was listed."""
        return state_of(self.path) if isinstance(self.path, Path) else self.state


@dataclass(frozen=True)
class AudioTrack:
    """The first audio stream of a file."""

    rate_hz: int
    channels: int
    start_s: float
    """When its first sample sounds, relative to the first presented frame; may be negative."""
    duration_s: float | None
    """As the container states it; None where it says nothing."""


@dataclass(frozen=True, eq=False)
class Probe:
    """What a look at the container tells, and at a few frames: size, rotation, and when each frame is shown."""

    container: str
    codec: str
    width_px: int
    """After rotation."""
    height_px: int
    rotation_deg: int
    """Counter-clockwise rotation that brings stored frames upright: 0, 90, 180 or 270."""
    fps: float
    """Average rate; nominal only, `frame_times_s` is the truth."""
    frame_times_s: NDArray[np.float64]
    """One per frame that a decoder will present, ascending, the first 0."""
    end_s: float
    """When the last frame stops being shown."""
    declared_end_s: float | None
    """The same as the container's header states it; None where it says nothing."""
    audio: AudioTrack | None
    start_s: float = 0.0
    """The first presented frame's time as the container tells it; every other time here is relative to it."""
    timed_by: Literal["packets", "frames", "counting"] = "packets"
    """Where `frame_times_s` comes from: the packets' own stamps; those of the decoded frames, where packets and frames
    are not the same; or the count of decoded frames, where stamps are missing or shuffled (AVI)."""
    lost_at: tuple[int, ...] = ()
    """Positions in the file where bytes are damaged beyond belonging to any packet."""

    @property
    def num_frames(self) -> int:
        return len(self.frame_times_s)


@dataclass(frozen=True, eq=False)
class VideoRecord:
    """One video of a run: the file, its bytes, and what probing found."""

    video_id: str
    path: Path
    size_bytes: int
    modified_ns: int
    content_digest: str
    """SHA-256 of the bytes, hexadecimal."""
    probe: Probe


@dataclass(frozen=True, eq=False)
class FeatureRow:
    """One video's features of one stream, as it stands in the store."""

    video_id: str
    stream: str
    key: str
    """Digest of (content digest, resolved stream spec, checkpoint digests, extractor version)."""
    content_digest: str
    settings_digest: str
    """Digest of everything in the key but the content: equal for all rows of a stream in a clean store."""
    outcome: Literal["done", "partial"]
    features: NDArray[np.float32]
    """``[segments, dim]``"""
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    provenance: dict[str, str] = field(default_factory=dict[str, str])
    """Device, decoder and library versions that the key does not cover."""


@dataclass(frozen=True)
class Outcome:
    """How (video, stream) ended."""

    video_id: str
    stream: str
    kind: OutcomeKind
    reason: str = ""
    """Empty for done; otherwise one sentence that a person can act on."""
    transient: bool = False
    """Only for failed: the next run tries again by itself."""
    key: str = ""
    """Empty where the file could not even be read."""
    content_digest: str = ""
    settings_digest: str = ""
    size_bytes: int = 0
    modified_ns: int = 0
    """With ``size_bytes``: lets a later run trust ``content_digest`` without reading the file again."""
    frames_expected: int = 0
    """By the container's packets."""
    frames_delivered: int = 0
    """How far decoding came; frames behind the last one that any stream needs are not decoded."""
    segments: int = 0
    decode_s: float = 0.0
    """Wall time from the first request to the last frame."""
    compute_s: float = 0.0
    """This stream's share of preparation and network time."""
