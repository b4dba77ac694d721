"""Messages between a decoder process and its parent, as data (`MessagePipe`); `decoder_process` checks the values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..records import Deinterlace, Hole, VideoMetadata
from ..system.typed_data import message_kinds
from .audio_reader import AudioChunk
from .chunks import Span
from .planes import ColorSpace

MAX_REASON_CHARACTERS = 2_000
MAX_HOLES = 2_000
"""Maximal number in one message, of frames or of audio. Reasons of holes have about 150 characters."""


# --- parent → child


@dataclass(frozen=True)
class Begin:
    """The first message: settings of the decoder."""

    backend: str
    memory_bytes: int
    planar: bool
    card: int = 0
    """Number of the graphics card, for a backend that uses one."""


@dataclass(frozen=True)
class ProbeRequest:
    path: Path
    thorough: bool
    audio_track: int | str
    frame_rate: float | None = None
    """Frame rate of a folder of frames; None for a file."""


@dataclass(frozen=True)
class Buffers:
    """Request to map shared memory; its descriptor follows."""

    count: int
    size_bytes: int


@dataclass(frozen=True, eq=False)
class DecodeRequest:
    path: Path
    metadata: VideoMetadata
    wanted: NDArray[np.int64]
    max_frames: int
    """Maximum number of frames of a chunk."""
    audio_until_s: float | None
    deinterlace: Deinterlace
    spans: tuple[Span, ...] = ()
    """Parts to decode, ascending and without overlap; empty: the file from its start to the last wanted frame."""


@dataclass(frozen=True)
class Fill:
    """The buffer of this number is free."""

    number: int


@dataclass(frozen=True)
class Stop:
    """Stop decoding the video. May be sent at any time."""


# --- child → parent


@dataclass(frozen=True)
class Ready:
    """The decoder is loaded."""

    refused: str
    """The operations that the kernel denies the process (`restrict_process`)."""


@dataclass(frozen=True)
class Alive:
    """The decoder makes progress. May be sent before any other answer."""


@dataclass(frozen=True, eq=False)
class Probed:
    metadata: VideoMetadata


@dataclass(frozen=True, eq=False)
class Filled:
    """A chunk: a filled buffer, and the audio up to the end of its last frame."""

    number: int
    indices: NDArray[np.int64]
    color: ColorSpace | None
    audio: AudioChunk | None
    decode_s: float
    by_card: bool = False
    on_cpu: str = ""
    """Same as in `FrameChunk`, also ``by_card``."""


@dataclass(frozen=True)
class Damaged:
    """Holes of the video. Sent after all chunks if there are any; with spans, after each span."""

    frames: tuple[Hole, ...]
    audio: tuple[Hole, ...]
    ends_span: bool = False
    """Whether all chunks of a span were sent."""


@dataclass(frozen=True)
class Ended:
    """This video is complete."""


@dataclass(frozen=True)
class Failed:
    """The request failed. May be sent in place of any answer."""

    error: str
    """Name of an exception, see `decoder_pool`."""
    reason: str


Request = Begin | ProbeRequest | Buffers | DecodeRequest | Fill | Stop
Answer = Ready | Alive | Probed | Filled | Damaged | Ended | Failed
REQUESTS = message_kinds(Request)
ANSWERS = message_kinds(Answer)
"""The kinds of messages that each side accepts."""
