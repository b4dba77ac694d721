"""Pictures of the input of streams: optical flow as color, spectrograms, boxes on frames, contact sheets.

A picture is ``uint8 [height, width, 3]``, RGB.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extractors.protocol import PersonBoxes

Picture = NDArray[np.uint8]
CHOSEN, OTHER = (0, 230, 60), (255, 140, 0)
"""Colors of the boxes of athletes and of other people."""
TRACKS = (CHOSEN, (0, 190, 255), (255, 90, 220), (250, 230, 0))
"""Colors of athletes 1 to 4."""
BACKGROUND, TEXT = (24, 26, 30), (235, 235, 235)


def flow_picture(flow: NDArray[np.floating], largest: float | None = None) -> Picture:
    """Draw optical flow, with the direction as hue and the length as saturation. White areas do not move.

    Args:
        flow: ``[2, height, width]``: displacements to the right and down, in any unit.
        largest: Length with full saturation; by default the 99th percentile of the lengths.

    Example:
        >>> flow_picture(np.zeros((2, 4, 6))).shape
        (4, 6, 3)
    """
    import cv2

    right, down = flow.astype(np.float32)
    length = np.hypot(right, down)
    if largest is None:
        largest = float(np.percentile(length, 99))
    hue = (np.rad2deg(np.arctan2(down, right)) % 360) / 2
    saturation = np.clip(length / max(largest, 1e-6), 0, 1) * 255
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], axis=-1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def spectrogram_picture(levels: NDArray[np.floating], size_px: tuple[int, int] = (128, 256)) -> Picture:
    """Draw a spectrogram, with time to the right, frequency upwards, and high levels bright.

    Args:
        levels: ``[time, bins]``, in any logarithmic unit. The color scale covers the 1st to the 99.5th percentile.
        size_px: Height and width of the picture.
    """
    import cv2

    low, high = np.percentile(levels, [1, 99.5])
    scaled = np.clip((levels - low) / max(float(high - low), 1e-6), 0, 1)
    colored = np.asarray(cv2.applyColorMap((scaled.T[::-1] * 255).astype(np.uint8), cv2.COLORMAP_MAGMA), np.uint8)
    colored = np.asarray(cv2.resize(colored, size_px[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
    return np.asarray(cv2.cvtColor(colored, cv2.COLOR_BGR2RGB), np.uint8)


def waveform_picture(samples: NDArray[np.floating], size_px: tuple[int, int] = (128, 256)) -> Picture:
    """Draw samples between −1 and 1 as an envelope over time."""
    height, width = size_px
    picture = np.full((height, width, 3), BACKGROUND, np.uint8)
    for column, part in enumerate(np.array_split(samples, width)):
        if len(part):
            low, high = np.clip([part.min(), part.max()], -1, 1)
            top, bottom = (round((1 - value) / 2 * (height - 1)) for value in (high, low))
            picture[top : bottom + 1, column] = TRACKS[1]
    return picture


def resized(picture: Picture, height_px: int) -> Picture:
    """Resize a picture to a height without changing its proportions."""
    import cv2

    height, width = picture.shape[:2]
    size = max(1, round(width * height_px / height)), height_px
    method = cv2.INTER_AREA if height_px < height else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(np.ascontiguousarray(picture), size, interpolation=method), np.uint8)


def with_boxes(picture: Picture, boxes: PersonBoxes, time_s: float) -> Picture:
    """Draw the boxes of one frame on its picture, of any size: athletes with thick lines and their track, others thin.

    Args:
        picture: The frame.
        boxes: Boxes of a video.
        time_s: Time of the frame.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    scale = picture.shape[0] / boxes.height_px
    here = np.flatnonzero((boxes.time_s == time_s) & ~np.isnan(boxes.confidence))
    for at in here[np.argsort(boxes.chosen[here], kind="stable")].tolist():
        left, top, right, bottom = (float(edge) * scale for edge in boxes.edges_px[at])
        track, chosen = int(boxes.track[at]), bool(boxes.chosen[at])
        color = TRACKS[max(track, 0) % len(TRACKS)] if chosen else OTHER
        draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=color, width=3 if chosen else 1)
        name = f"{f'#{track} ' if track >= 0 else ''}{boxes.confidence[at]:.2f}"
        if chosen or right - left > 40:
            text = draw.textbbox((left + 3, max(top - 13, 1)), name, font=font(11))
            draw.rectangle(text, fill=(0, 0, 0))
            draw.text((left + 3, max(top - 13, 1)), name, fill=color, font=font(11))
    return np.asarray(image, np.uint8)


BONES = (
    *((5, 6), (11, 12), (5, 11), (6, 12)),
    *((5, 7), (7, 9), (11, 13), (13, 15), (0, 5)),
    *((6, 8), (8, 10), (12, 14), (14, 16), (0, 6)),
)
"""Pairs of COCO's key points that are joined by lines: the trunk, the left side, the right side."""
LEFT, RIGHT, TRUNK = (230, 60, 60), (60, 200, 90), (250, 220, 70)


def with_key_points(picture: Picture, row: NDArray[np.float32]) -> Picture:
    """Draw a row of the stream `key_points` on its frame, of any size; the left side is red, the right side green.

    Args:
        picture: The frame.
        row: x and y in frame heights from the middle of the frame, and confidence, of the 17 points of COCO.
    """
    from PIL import Image, ImageDraw

    height, width = picture.shape[:2]
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    places = row.reshape(-1, 3)[:, :2] * height + np.array([width / 2, height / 2])
    for number, (one, other) in enumerate(BONES):
        color = TRUNK if number < 4 else LEFT if number < 9 else RIGHT
        draw.line([tuple(places[one].tolist()), tuple(places[other].tolist())], fill=color, width=2)
    return np.asarray(image, np.uint8)


def labeled(picture: Picture, text: str) -> Picture:
    """Write a line of text below a picture."""
    from PIL import Image, ImageDraw

    height, width = picture.shape[:2]
    image = Image.new("RGB", (width, height + 16), BACKGROUND)
    image.paste(Image.fromarray(picture), (0, 0))
    ImageDraw.Draw(image).text((2, height + 1), text, fill=TEXT, font=font(12))
    return np.asarray(image, np.uint8)


def text_picture(lines: Sequence[str], width_px: int, size_px: int = 14) -> Picture:
    """Draw lines of text, wrapped to a width."""
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    wrapped: list[str] = []
    for line in lines:
        wrapped.append("")
        for word in line.split():
            longer = f"{wrapped[-1]} {word}".strip()
            if draw.textlength(longer, font=font(size_px)) <= width_px - 16 or not wrapped[-1]:
                wrapped[-1] = longer
            else:
                wrapped.append(word)
    step = size_px + 5
    image = Image.new("RGB", (width_px, step * len(wrapped) + 6), BACKGROUND)
    for number, line in enumerate(wrapped):
        ImageDraw.Draw(image).text((8, 3 + step * number), line, fill=TEXT, font=font(size_px))
    return np.asarray(image, np.uint8)


def side_by_side(pictures: Sequence[Picture], gap_px: int = 2) -> Picture:
    """Join pictures of the same height from left to right."""
    gap = np.full((pictures[0].shape[0], gap_px, 3), BACKGROUND, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)]
    return np.concatenate(parts[1:], axis=1)


def rows_of(pictures: Sequence[Picture], width_px: int, gap_px: int = 6) -> Picture:
    """Arrange pictures from left to right in as many rows as a width needs; wider pictures are scaled down."""
    rows: list[list[Picture]] = [[]]
    for picture in pictures:
        if picture.shape[1] > width_px - 2 * gap_px:
            picture = resized(picture, max(1, picture.shape[0] * (width_px - 2 * gap_px) // picture.shape[1]))
        used = sum(each.shape[1] + gap_px for each in rows[-1])
        if rows[-1] and used + picture.shape[1] + 2 * gap_px > width_px:
            rows.append([])
        rows[-1].append(picture)
    strips: list[Picture] = []
    for row in rows:
        height = max((picture.shape[0] for picture in row), default=0)
        strip = np.full((height + gap_px, width_px, 3), BACKGROUND, np.uint8)
        left = gap_px
        for picture in row:
            shown = picture[:, : width_px - left]
            strip[: shown.shape[0], left : left + shown.shape[1]] = shown
            left += picture.shape[1] + gap_px
        strips.append(strip)
    return np.concatenate(strips)


def png_bytes(picture: Picture) -> bytes:
    """Return a picture as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def data_address(picture: Picture) -> str:
    """Return a picture as a data URL, which HTML pages can embed."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(picture)).decode()


@cache
def font(size_px: int) -> Any:
    """Return the font of pictures, DejaVu Sans, which is part of matplotlib."""
    import matplotlib
    from PIL import ImageFont

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), round(size_px * 0.9))
