"""Checks of the answers of a decoder process by its parent, and the memory that both share.

The process reads untrusted files, and a malicious file may control it. Its answers must be harmless even then: the
parent checks every value before using it, reads no memory outside of the buffers, limits its memory use, and passes
only errors of the video to the run.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..records import VideoMetadata
from ..system.child_process import ChildLost
from ..system.typed_data import MalformedDataError
from .chunks import Span
from .decoders import MAX_JUMP_S
from .messages import MAX_HOLES, MAX_REASON_CHARACTERS, Damaged, Filled

MAX_SIDE_PX = 1 << 20
MAX_CHANNELS = 1024
MAX_NAME_CHARACTERS = 200


def check_probe(metadata: VideoMetadata) -> None:
    """Raise `MalformedDataError` for values that are impossible in the metadata of a video."""
    names = (metadata.container, metadata.codec)
    _require(all(len(name) <= MAX_NAME_CHARACTERS and name.isprintable() for name in names), "container or codec")
    _require(all(0 < side <= MAX_SIDE_PX for side in (metadata.width_px, metadata.height_px)), "width_px or height_px")
    _require(metadata.rotation_deg in (0, 90, 180, 270), "rotation_deg")
    _require(0 < metadata.pixel_aspect < float("inf"), "pixel_aspect")
    _require(min(metadata.video_index, metadata.num_video_tracks, metadata.num_audio_tracks) >= 0, "tracks")
    _require(metadata.fps > 0, "fps")
    _require(metadata.tick_s[0] >= 0 and metadata.tick_s[1] > 0, "tick_s")
    times_s = metadata.frame_times_s
    _require(times_s.ndim == 1 and len(times_s) > 0 and times_s[0] == 0, "frame_times_s")
    gaps_s = np.diff(times_s, append=metadata.end_s)
    _require(
        bool((gaps_s >= 0).all() and (gaps_s <= MAX_JUMP_S).all()) and metadata.end_s > 0, "frame_times_s or end_s"
    )
    _require(min(metadata.lost_at, default=0) >= 0 and tuple(sorted(metadata.lost_at)) == metadata.lost_at, "lost_at")
    _require(0 <= metadata.checked_frames <= len(times_s), "checked_frames")
    if (track := metadata.audio) is not None:
        _require(track.rate_hz > 0 and 0 < track.channels <= MAX_CHANNELS, "audio")


def check_holes(found: Damaged) -> None:
    """Raise `MalformedDataError` for impossible holes."""
    for holes in (found.frames, found.audio):
        _require(len(holes) <= MAX_HOLES, "number of holes")
        for hole in holes:
            _require(hole.start_s <= hole.end_s and len(hole.reason) <= MAX_REASON_CHARACTERS, "hole")


class ExpectedChunks:
    """Validates the chunks of one video: they have the wanted frames in their order, and a limited amount of audio."""

    def __init__(
        self,
        metadata: VideoMetadata,
        wanted: NDArray[np.int64],
        max_frames: int,
        audio_until_s: float | None,
        *,
        planar: bool,
        spans: Sequence[Span] = (),
    ) -> None:
        """``max_frames``: maximum number of frames of a chunk. ``planar``: frames may be planes."""
        self._wanted = wanted
        self._max_frames = max_frames
        self._planar = planar and metadata.width_px % 2 == 0 and metadata.height_px % 2 == 0
        self._track = metadata.audio
        self._num_taken = 0  # number of wanted frames so far
        self._samples_left = 0
        if (track := metadata.audio) is not None and audio_until_s is not None:
            self._samples_left = max(0, round((audio_until_s - track.start_s) * track.rate_hz)) + 1
        if (track := metadata.audio) is not None:
            for span in spans:
                self._samples_left += max(0, round((span.audio_until_s - span.audio_from_s) * track.rate_hz)) + 2

    def check(self, chunk: Filled, buffers: Collection[int]) -> None:
        """Raise `MalformedDataError` for an unexpected chunk. ``buffers``: numbers of the buffers to be filled."""
        _require(chunk.number in buffers, "number")
        _require(len(chunk.indices) > 0 or chunk.audio is not None, "chunk without frames and audio")
        _require(chunk.color is None or self._planar, "color")
        _require(chunk.decode_s >= 0, "decode_s")
        _require(len(chunk.on_cpu) <= MAX_REASON_CHARACTERS and chunk.on_cpu.isprintable(), "on_cpu")
        indices = chunk.indices
        _require(indices.ndim == 1 and len(indices) <= self._max_frames, "number of indices")
        if len(indices):
            places = np.searchsorted(self._wanted, indices)
            _require(int(places[-1]) < len(self._wanted), "indices")
            _require(np.array_equal(self._wanted[places], indices) and int(places[0]) >= self._num_taken, "indices")
            _require(bool((np.diff(places) > 0).all()), "indices")
            self._num_taken = int(places[-1]) + 1
        if (audio := chunk.audio) is not None:
            _require(self._track is not None and audio.rate_hz == self._track.rate_hz, "audio.rate_hz")
            _require(audio.samples.ndim == 2 and 0 < audio.samples.shape[0] <= MAX_CHANNELS, "audio.samples")
            _require(bool(np.isfinite(audio.samples).all()), "audio.samples")
            self._samples_left -= audio.samples.shape[1]
            _require(self._samples_left >= 0 and (audio.samples.shape[1] > 0 or audio.last), "length of audio.samples")


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise MalformedDataError(f"{what} out of range")


class SharedBuffers:
    """Buffers of equal size in anonymous memory, which the kernel frees when all of its processes have ended.

    The parent has the list of free buffers. A view keeps the memory alive after this object is deleted.
    """

    def __init__(self, count: int, size_bytes: int) -> None:
        self.count = count
        self.size_bytes = size_bytes
        if hasattr(os, "memfd_create"):  # Linux: this memory does not count towards the limit of /dev/shm
            self.descriptor = os.memfd_create("arabesque-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        else:
            with tempfile.TemporaryFile() as file:  # a file that is already deleted
                self.descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self.descriptor)
        os.ftruncate(self.descriptor, count * size_bytes)
        if hasattr(os, "memfd_create"):
            # reading a part that another process has cut off would crash this process (SIGBUS)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, seals)
        self._memory = np.frombuffer(mmap.mmap(self.descriptor, count * size_bytes), np.uint8)
        self._free: set[int] = set(range(count))
        self._changed = threading.Condition()
        self._is_closed = False

    def take_free(self, *, wait: bool) -> set[int]:
        """Take all free buffers.

        Args:
            wait: Wait until at least one is free.

        Raises:
            ChildLost: The buffers were closed while this thread waited.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: bool(self._free) or self._is_closed)
                if self._is_closed:
                    raise ChildLost("was closed")
            taken, self._free = self._free, set[int]()
            return taken

    def close(self) -> None:
        """End all current and future waits. Views stay valid."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def give_back(self, numbers: Iterable[int]) -> None:
        with self._changed:
            self._free.update(numbers)
            self._changed.notify_all()

    def view(self, number: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        start = number * self.size_bytes
        return self._memory[start : start + math.prod(shape)].reshape(shape)
