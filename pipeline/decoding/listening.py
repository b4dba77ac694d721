"""Taking a track's sound in step with its frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..records import AudioTrack
from .decoders import SoundBroken


@dataclass(frozen=True, eq=False)
class AudioChunk:
    """A stretch of sound; a video's chunks follow one another without gap or overlap, from the track's start on."""

    start_s: float
    """Relative to the first presented frame; negative where the track begins before it."""
    rate_hz: int
    samples: NDArray[np.float32]
    """``[channels, samples]`` in −1 … 1"""
    last: bool
    """No sound follows: the track ends here, breaks off, or was not asked for any further."""


class Listener:
    """Cuts what `Decoder.sound` yields where it is told to; `broken` says why the track ended, if too early."""

    def __init__(self, blocks: Iterator[NDArray[np.float32]], track: AudioTrack, until_s: float) -> None:
        self._blocks = blocks
        self._track = track
        self._until_s = until_s
        self._waiting: list[NDArray[np.float32]] = [np.zeros((track.channels, 0), np.float32)]
        self._position = 0  # of the first waiting sample in the track
        self.is_over = False
        self.broken: SoundBroken | None = None

    def hear(self, until_s: float) -> AudioChunk | None:
        """The sound from where the last call ended up to ``until_s``; None once it is over."""
        if self.is_over:
            return None
        num_wanted = max(0, round((until_s - self._track.start_s) * self._track.rate_hz) - self._position)
        while not self.is_over and sum(block.shape[1] for block in self._waiting) < num_wanted:
            self._take_block()
        heard = np.concatenate(self._waiting, axis=1)
        self._waiting = [heard[:, num_wanted:]]
        start_s = self._track.start_s + self._position / self._track.rate_hz
        self._position += num_wanted
        self.is_over = self.is_over or until_s >= self._until_s
        return AudioChunk(start_s, self._track.rate_hz, heard[:, :num_wanted], self.is_over)

    def _take_block(self) -> None:
        try:
            self._waiting.append(next(self._blocks))
        except StopIteration:
            self.is_over = True
        except SoundBroken as error:
            self.is_over, self.broken = True, error
