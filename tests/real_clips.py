"""Frames of the real clips in ../shared, which not every checkout has."""

from __future__ import annotations

from pathlib import Path

import torch


def sampled_frames(path: Path, fps: float) -> tuple[list[float], list[torch.Tensor]]:
    """Return times and pictures ``uint8 [3, height, width]`` of a clip."""
    import av

    start_s: float | None = None
    times_s: list[float] = []
    images: list[torch.Tensor] = []
    with av.open(str(path)) as video:
        for number, picture in enumerate(video.decode(video=0)):
            time_s = number / 30 if picture.time is None else float(picture.time)
            start_s = time_s if start_s is None else start_s
            if time_s - start_s >= len(times_s) / fps - 1e-3:
                times_s.append(time_s - start_s)
                images.append(torch.from_numpy(picture.to_ndarray(format="rgb24")).permute(2, 0, 1))
    return times_s, images
