"""Frames of 48 × 27 pixels as arrays, and their measures without a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from arabesque.extractors.frame_signatures import FRAMES_PER_ROW, signature_row
from arabesque.models.broadcast.measures import FrameMeasures, frame_measures
from arabesque.pipeline.store.stream_features import StreamFeatures

FPS = 25
Frames = NDArray[np.uint8]


def measured(frames: Frames) -> FrameMeasures:
    """Return the measures of ``uint8 [time, 27, 48, 3]`` at 25 frames per second, as the pipeline stores them."""
    times_s = np.arange(len(frames)) / FPS
    rows, starts = list[NDArray[np.float32]](), range(0, len(frames), FRAMES_PER_ROW)
    for start in starts:
        taken = slice(start, start + FRAMES_PER_ROW + 1)
        has_next = len(frames[taken]) > FRAMES_PER_ROW
        rows.append(signature_row(frames[taken], times_s[taken] - times_s[start], has_next=has_next))
    start_s = times_s[::FRAMES_PER_ROW]
    return frame_measures(
        StreamFeatures(
            video_id="drawn",
            stream="signatures",
            values=np.stack(rows),
            start_s=start_s,
            end_s=np.append(start_s[1:], len(frames) / FPS),
            key="",
            content_digest="",
            outcome="done",
            provenance={},
        )
    )


def scene(seed: int, num_frames: int, *, pan_px: float = 0.2, speed: float = 1.0) -> Frames:
    """Draw an athlete as a bright block that moves over a textured floor, while the camera pans.

    ``speed`` slows the whole scene: equal seeds show the same motion.
    """
    import cv2

    rng = np.random.default_rng(seed)
    width = 400
    floor = cv2.resize(rng.integers(60, 200, (9, width // 6, 3), np.uint8), (width, 27), interpolation=cv2.INTER_CUBIC)
    phase, hertz = rng.uniform(0, 6, 2), rng.uniform(0.4, 0.9, 2)
    frames = np.empty((num_frames, 27, 48, 3), np.uint8)
    for index in range(num_frames):
        time_s = index * speed / FPS
        left = 100 + pan_px * index * speed
        moved = np.array([[1, 0, -left], [0, 1, 0]], np.float32)
        frame = np.asarray(cv2.warpAffine(floor, moved, (48, 27), borderMode=cv2.BORDER_REFLECT), np.uint8)
        frame[..., 0] //= 2  # bluish, as ice
        x = round(24 + 14 * np.sin(2 * np.pi * hertz[0] * time_s + phase[0]))
        y = round(13 + 5 * np.sin(2 * np.pi * hertz[1] * time_s + phase[1]))
        frame[y - 5 : y + 6, x - 2 : x + 3] = (250, 20, 30)
        frames[index] = frame
    return frames
