"""Measures of frames, audio and people of one video, from the streams of the recipe `shots`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...extractors.frame_signatures import FRAME_VALUES, FRAMES_PER_ROW, HEIGHT_PX, WIDTH_PX
from ...extractors.loudness import PARTS
from ...extractors.people import PERSON_VALUES
from ...pipeline.store.stream_features import StreamFeatures

Curve = NDArray[np.floating]

NUM_CELLS = sum(name.startswith("cell_") for name in FRAME_VALUES)


@dataclass(frozen=True, eq=False)
class FrameMeasures:
    """Measures of every frame of a video. Frames that cannot be decoded are absent."""

    times_s: NDArray[np.float64]
    """``[frames]``, ascending"""
    end_s: float
    """End of the last frame."""
    cells: NDArray[np.float32]
    """``[frames, 144]``: gray levels of 9 × 16 cells."""
    values: NDArray[np.float32]
    """``[frames, values]``: the other values of `FRAME_VALUES`."""
    pictures: NDArray[np.uint8]
    """``[pictures, 27, 48, 3]``, RGB: one picture for each segment"""
    picture_times_s: NDArray[np.float64]
    holes: tuple[tuple[float, float], ...] = ()
    """``(start_s, end_s)`` of the stretches that cannot be decoded."""

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Return the values with a name of `FRAME_VALUES`, ``[frames]``."""
        return self.values[:, FRAME_VALUES.index(name) - NUM_CELLS]

    def __len__(self) -> int:
        return len(self.times_s)

    @cached_property
    def period_s(self) -> float:
        """Usual time between two frames"""
        return float(np.median(np.diff(self.times_s))) if len(self) > 1 else max(self.end_s, 1e-3)

    @property
    def edges_s(self) -> NDArray[np.float64]:
        """``[frames + 1]``: start of each frame, and end of the last one"""
        return np.append(self.times_s, self.end_s)

    def frames_of(self, seconds: float) -> int:
        """Return the number of frames in a stretch of this length, at least one."""
        return max(1, round(seconds / self.period_s))

    def picture_near(self, time_s: float) -> NDArray[np.uint8]:
        """Return the picture that is nearest in time, ``uint8 [27, 48, 3]``."""
        return self.pictures[int(np.abs(self.picture_times_s - time_s).argmin())]


def frame_measures(features: StreamFeatures) -> FrameMeasures:
    """Read the rows of the stream ``signatures``, without repeated frames in the last row."""
    num_rows = len(features)
    split = FRAMES_PER_ROW * len(FRAME_VALUES)
    frames = features.values[:, :split].reshape(num_rows * FRAMES_PER_ROW, len(FRAME_VALUES))
    offset_s = frames[:, -1].astype(np.float64)
    is_new = np.ones((num_rows, FRAMES_PER_ROW), bool)
    is_new[:, 1:] = np.diff(offset_s.reshape(num_rows, -1), axis=1) > 0
    kept = is_new.ravel()
    times_s = (features.start_s.repeat(FRAMES_PER_ROW) + offset_s)[kept].round(6)  # offsets are stored as float32
    pictures = features.values[:, split:].reshape(num_rows, HEIGHT_PX, WIDTH_PX, 3)
    return FrameMeasures(
        times_s=times_s,
        end_s=float(features.end_s[-1]),
        cells=frames[kept, :NUM_CELLS],
        values=frames[kept, NUM_CELLS:],
        pictures=pictures.astype(np.uint8),
        picture_times_s=(features.start_s + features.end_s) / 2,
        holes=features.holes,
    )


def trusted_cells(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cells without the top row and the two bottom rows, which contain names, clocks and "replay" labels."""
    return cells.reshape(len(cells), 9, 16)[:, 1:-2].reshape(len(cells), -1)


@dataclass(frozen=True, eq=False)
class PeopleMeasures:
    """The largest person in some frames; zeros in frames without people."""

    times_s: NDArray[np.float64]
    """``[frames]``: times of the frames that the detector processed"""
    height: Curve
    """Share of the frame's height."""
    bottom: Curve
    """Lower edge, as a share of the frame's height."""
    width_to_height: Curve


def people_measures(features: StreamFeatures) -> PeopleMeasures:
    """Read the rows of the stream ``people``."""
    shown = {name: features.values[:, PERSON_VALUES.index(name)] for name in ("height", "bottom", "width_to_height")}
    return PeopleMeasures(times_s=features.start_s, **shown)


@dataclass(frozen=True, eq=False)
class SoundMeasures:
    """Level and tonality of the audio."""

    times_s: NDArray[np.float64]
    """``[parts]``: the middle of each part."""
    level_db: Curve
    tonality: Curve


def sound_measures(features: StreamFeatures) -> SoundMeasures:
    """Read the rows of the stream ``loudness``."""
    share = (np.arange(PARTS) + 0.5) / PARTS
    times_s = features.start_s[:, None] + share * (features.end_s - features.start_s)[:, None]
    level_db, tonality = features.values[:, :PARTS], features.values[:, PARTS:]
    return SoundMeasures(times_s.ravel(), level_db.ravel().astype(np.float64), tonality.ravel().astype(np.float64))
