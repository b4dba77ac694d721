"""From flow in pixels to network input: clipping, rounding and storage of flow in published extractors.

Network input for a flow of zero, on each axis:

    none              0          pixels
    clamp20           0          DeepMind's I3D
    denseflow8        1 / 255    level 128 of 0 … 255 for every bound; JPEG does not change it
    video-features    1 / 255    level 128 of 0 … 256
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from ...manifests.streams import Record

JpegQuality = Annotated[int, Field(ge=1, le=100)]


class NoQuantization(Record):
    """Flow in pixels, unchanged."""

    form: Literal["none"] = "none"
    """none, clamp20, denseflow8 or video-features."""


class Clamp20(Record):
    """Flow clipped to ±20 px and divided by 20, as in the training of the published I3D weights."""

    form: Literal["clamp20"] = "clamp20"
    """none, clamp20, denseflow8 or video-features."""


class Denseflow8(Record):
    """denseflow's 8-bit images, one for each axis, as in PAMFN's code."""

    form: Literal["denseflow8"] = "denseflow8"
    """none, clamp20, denseflow8 or video-features."""
    bound_px: PositiveFloat = 20.0
    """Flow at which the levels saturate, in pixels. denseflow's default is 32; PAMFN does not state its value."""
    jpeg_quality: JpegQuality | Literal["none"] = "none"
    """Quality of JPEG compression, which denseflow's files have; denseflow uses OpenCV's default, 95. none: no JPEG."""


class VideoFeatures(Record):
    """Levels of v-iashin/video_features, rounded but not stored as images."""

    form: Literal["video-features"] = "video-features"
    """none, clamp20, denseflow8 or video-features."""


Quantization = Annotated[NoQuantization | Clamp20 | Denseflow8 | VideoFeatures, Field(discriminator="form")]


def clamp20(flow: Tensor) -> Tensor:
    """Return the flow divided by 20 px and clipped to ±1."""
    return flow.clamp(-20, 20) / 20


def video_features(flow: Tensor) -> Tensor:
    """Return ``128 + 255 / 40 · flow``, clipped to ±20 px and rounded to 257 levels; 20 px become 257 / 255."""
    levels = (128 + 255 / 40 * flow.clamp(-20, 20)).round()
    return 2 * levels / 255 - 1


def denseflow_images(flow: Tensor, bound_px: float) -> Tensor:
    """Return uint8 levels ``255 · (flow + bound) / (2 · bound)``, clipped to 0 … 255; halves round to even levels."""
    return (255 * (flow + bound_px) / (2 * bound_px)).round().clamp(0, 255).to(torch.uint8)


def through_jpeg(images: Tensor, quality: int) -> Tensor:
    """Encode images ``uint8 [..., height, width]`` as gray JPEG by OpenCV, and decode them."""
    import cv2

    def through(image: Any) -> Any:
        _, file = cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, quality])
        return cv2.imdecode(file, cv2.IMREAD_GRAYSCALE)

    flat = images.flatten(0, -3).cpu().numpy()
    back = torch.as_tensor(np.stack([through(image) for image in flat]))
    return back.view(images.shape).to(images.device)


def from_images(images: Tensor) -> Tensor:
    """Return ``(x / 255 - .5) / .5`` for 8-bit flow images."""
    return (images.float() / 255 - 0.5) / 0.5


def as_stored(flow: Tensor, quantization: Quantization) -> Tensor:
    """Convert flow ``float32 [..., height, width]`` to the stored form: float32 pixels, or uint8 images."""
    if not isinstance(quantization, Denseflow8):
        return flow
    images = denseflow_images(flow, quantization.bound_px)
    return images if quantization.jpeg_quality == "none" else through_jpeg(images, quantization.jpeg_quality)


def as_network_input(stored: Tensor, quantization: Quantization) -> Tensor:
    """Convert the result of `as_stored` to network input: float32 in -1 … 1, or pixels for ``none``."""
    match quantization:
        case NoQuantization():
            return stored
        case Clamp20():
            return clamp20(stored)
        case Denseflow8():
            return from_images(stored)
        case VideoFeatures():
            return video_features(stored)
