"""Draw the strip of pictures at the top of the README, from the folder of `arabesque demo`:

    arabesque demo DEMO && python docs/pictures.py DEMO docs/pictures/strip.png

A frame with the box that the `motion` stream follows, the athlete's crop, the optical flow, the spectrogram that an
audio network sees, and the time line of a scored video: the attention of the model, and what the score loses without
each segment. Every panel is computed by the package on a drawn video.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import av
import cv2
import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import arabesque
from arabesque.extractors.athlete_motion import follow_athlete
from arabesque.extractors.kaldi_fbank import FilterbankOptions, kaldi_fbank
from arabesque.extractors.optical_flow.opencv import Dis, dis

SHOWN_S = 1.6
"""The time of the frame in the video."""


def main() -> None:
    demo, out = Path(sys.argv[1]), Path(sys.argv[2])
    video = demo / "videos" / "routine_000.mp4"
    report = arabesque.score(video, demo / "model", store=demo / "features")
    frames, times_s = frames_of(video)
    at = int(np.searchsorted(times_s, SHOWN_S))
    draw(frames[at - 8 : at + 8], times_s[at - 8 : at + 8], spectrogram(video), report["routine_000"], out)


def frames_of(video: Path) -> tuple[NDArray[np.uint8], list[float]]:
    """Return ``uint8 [time, height, width, 3]`` and the time of each frame."""
    with av.open(str(video)) as container:
        decoded = [(frame.to_ndarray(format="rgb24"), float(frame.time or 0)) for frame in container.decode(video=0)]
    return np.stack([frame for frame, _ in decoded]), [time_s for _, time_s in decoded]


def spectrogram(video: Path) -> NDArray[np.float32]:
    """Return the filterbank of the first four seconds of sound, ``float32 [mel bins, frames]``."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
    with av.open(str(video)) as container:
        parts = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    return kaldi_fbank(np.concatenate(parts)[: 4 * 16000], FilterbankOptions()).T


def flow_picture(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the optical flow as colors: hue is the direction, brightness the length."""
    gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)])
    x, y = dis(torch.from_numpy(gray), Dis())[0].numpy()
    length, angle = cv2.cartToPolar(x, y)
    brightness = np.clip(length / np.quantile(length, 0.995), 0, 1) * 255
    hsv = np.stack([angle * 90 / np.pi, np.full_like(length, 230), brightness], axis=-1).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def draw(frames: NDArray[np.uint8], times_s: list[float], sound: NDArray[np.float32], score: Any, out: Path) -> None:
    frame = frames[8]
    height, width = frame.shape[:2]
    gray = np.stack([cv2.cvtColor(each, cv2.COLOR_RGB2GRAY) for each in frames])
    x, y, box_width, box_height = follow_athlete(gray, tuple(times_s)).boxes[8] * height
    left, top = int(max(0, x + (width - box_width) / 2)), int(max(0, y + (height - box_height) / 2))
    right, bottom = min(width, left + int(box_width)), min(height, top + int(box_height))
    cropped = frame[top:bottom, left:right]
    boxed = cv2.rectangle(frame.copy(), (left, top), (right, bottom), (230, 90, 20), 2)

    plt.rcParams.update({"font.size": 8, "font.family": "DejaVu Sans"})
    figure = plt.figure(figsize=(11, 2.5), dpi=110)
    ratios = (width / height, cropped.shape[1] / cropped.shape[0], width / height, 1.5, 2.6)
    axes = figure.subplots(1, 5, width_ratios=ratios)
    pictures = (boxed, cropped, flow_picture(frame, frames[9]))
    for axis, picture, title in zip(axes, pictures, ("frame", "athlete", "optical flow"), strict=False):
        axis.imshow(picture)
        axis.set_title(title)
        axis.axis("off")
    axes[3].imshow(sound, origin="lower", aspect="auto", cmap="magma", extent=(0, 4, 0, len(sound)))
    axes[3].set(title="spectrogram", xlabel="seconds", yticks=[])
    stream = score.segments[0].streams
    segments = [segment for segment in score.segments if segment.streams == stream]
    middles = [(segment.start_s + segment.end_s) / 2 for segment in segments]
    width_s = 0.85 * float(np.min(np.diff(middles)))  # the segments of this stream overlap
    weights = [segment.attention or 0 for segment in segments]
    axes[4].bar(middles, weights, width_s, color="#9fb8c8", label="attention")
    axes[4].set_ylim(0, 1.35 * max(weights))
    axes[4].set(title=f"score {score.score:.1f}: what each segment adds", xlabel="seconds", yticks=[])
    effects = axes[4].twinx()
    points = [segment.effect or 0 for segment in segments]
    effects.plot(middles, points, "o-", color="#d55e00", label="effect on the score")
    effects.set_ylim(1.2 * min(points), 1.6 * max(points))
    effects.axhline(0, color="#888888", linewidth=0.6)
    effects.set_ylabel("points")
    lines = [*axes[4].get_legend_handles_labels()[0], *effects.get_legend_handles_labels()[0]]
    axes[4].legend(handles=lines, loc="upper left", fontsize=7, ncols=2, frameon=False)
    figure.tight_layout(pad=0.4)
    figure.savefig(out)
    Image.open(out).convert("RGB").quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    main()
