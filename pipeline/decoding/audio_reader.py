"""Reading of a track's audio in parallel with its frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import AudioTrack, Hole


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """A part of the audio. The chunks of a video are consecutive, without gaps or overlaps, from the track's start."""

    start_s: float
    """Start relative to the first presented frame; negative if the track starts before it."""
    rate_hz: int
    samples: NDArray[np.float32]
    """``[channels, samples]`` in −1 … 1"""
    last: bool
    """Whether this chunk is the last one: at the end of the track, at damage up to its end, or at the requested end."""


class AudioReader:
    """Cuts the blocks of `Decoder.audio` at given times, and collects their holes."""

    def __init__(
        self,
        blocks: Iterator[NDArray[np.float32] | Hole],
        track: AudioTrack,
        until_s: float,
        from_s: float | None = None,
    ) -> None:
        self._blocks = blocks
        self._track = track
        self._until_s = until_s
        self._waiting: list[NDArray[np.float32]] = [np.zeros((track.channels, 0), np.float32)]
        self._position = first_sample(track, from_s)  # position in the track of the first sample that was not returned
        self.is_over = False
        self.holes: list[Hole] = []

    def read(self, until_s: float) -> AudioChunk | None:
        """Return the audio from the end of the previous call to ``until_s``; None after the last chunk."""
        if self.is_over:
            return None
        num_wanted = max(0, round((until_s - self._track.start_s) * self._track.rate_hz) - self._position)
        while not self.is_over and sum(block.shape[1] for block in self._waiting) < num_wanted:
            self._take_block()
        joined = np.concatenate(self._waiting, axis=1)
        self._waiting = [joined[:, num_wanted:]]
        start_s = self._track.start_s + self._position / self._track.rate_hz
        self._position += num_wanted
        self.is_over = self.is_over or until_s >= self._until_s
        return AudioChunk(start_s, self._track.rate_hz, joined[:, :num_wanted], self.is_over)

    def _take_block(self) -> None:
        block = next(self._blocks, None)
        if block is None:
            self.is_over = True
        elif isinstance(block, Hole):
            self.holes.append(block)
        else:
            self._waiting.append(block)


def first_sample(track: AudioTrack, from_s: float | None) -> int:
    """Return the position in the track of the first sample that is read."""
    return 0 if from_s is None else max(0, round((from_s - track.start_s) * track.rate_hz))
