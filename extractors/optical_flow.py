"""Dense optical flow by named methods, and the conventions by which published features turn it into network input."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MethodName = Literal["dis", "farneback"]
Preset = Literal["ultrafast", "fast", "medium"]
Quantisation = Literal["clamp20", "denseflow8", "video-features"]

Flow = Callable[[Tensor], Tensor]
"""Gray frames ``uint8 [time, height, width]`` to ``float32 [time - 1, 2, height, width]``: what moved how many pixels
to the right and down from each frame to the next."""


@dataclass(frozen=True)
class FlowMethod:
    """One row of the table: how to make the computation, and where the pipeline runs it."""

    make: Callable[[Preset], Flow]
    runs_in: Literal["prepare", "forward"]
    """``prepare``: OpenCV, one segment on a CPU thread. ``forward``: torch, on the device, beside the network."""


def dis(preset: Preset) -> Flow:
    """Dense inverse search (Kroeger et al., ECCV 2016), OpenCV's."""

    def flow(gray: Tensor) -> Tensor:
        search = _dis_of_this_thread(preset)
        return _pairwise(gray, lambda image, following: search.calc(image, following, None))

    return flow


def farneback(_: Preset) -> Flow:
    """Farnebäck's polynomial expansion (SCIA 2003), OpenCV's, with the parameters of its documentation."""
    import cv2

    parameters = {
        "pyr_scale": 0.5,
        "levels": 3,
        "winsize": 15,
        "iterations": 3,
        "poly_n": 5,
        "poly_sigma": 1.2,
        "flags": 0,
    }

    def flow(gray: Tensor) -> Tensor:
        compute: Any = cv2.calcOpticalFlowFarneback  # its stub knows no `flow=None`
        return _pairwise(gray, lambda image, following: compute(image, following, None, **parameters))

    return flow


METHODS: Mapping[MethodName, FlowMethod] = {
    "dis": FlowMethod(dis, "prepare"),
    "farneback": FlowMethod(farneback, "prepare"),
}


def clamp20(flow: Tensor) -> Tensor:
    """DeepMind's I3D: clipped to ±20 px, divided by 20. No motion is 0."""
    return flow.clamp(-20, 20) / 20


def video_features(flow: Tensor) -> Tensor:
    """video_features: clipped to ±20 px, rounded to 257 levels about 128. No motion is 1 / 255, 20 px are 257 / 255."""
    levels = (128 + 255 / 40 * flow.clamp(-20, 20)).round()
    return 2 * levels / 255 - 1


def denseflow_images(flow: Tensor, bound_px: float) -> Tensor:
    """denseflow's 8-bit images, before JPEG: uint8, ±``bound_px`` and more are 0 and 255, no motion is 128."""
    return (255 * (flow + bound_px) / (2 * bound_px)).round().clamp(0, 255).to(torch.uint8)


def from_images(images: Tensor) -> Tensor:
    """``(x / 255 - .5) / .5`` of 8-bit flow images. No motion is 1 / 255."""
    return (images.float() / 255 - 0.5) / 0.5


CONVENTIONS: Mapping[Quantisation, Callable[[Tensor], Tensor]] = {
    "clamp20": clamp20,
    "denseflow8": from_images,
    "video-features": video_features,
}
"""The last step to network input in −1 … 1: from 8-bit images for ``denseflow8``, for the others from pixels."""


def _pairwise(gray: Tensor, flow: Callable[[NDArray, NDArray], NDArray]) -> Tensor:
    if gray.dtype != torch.uint8 or gray.ndim != 3 or len(gray) < 2:
        raise ValueError(f"optical flow needs uint8 [2 or more, h, w], not {gray.dtype} {list(gray.shape)}")
    images = [np.ascontiguousarray(image) for image in gray.cpu().numpy()]
    flows = np.stack([flow(image, following) for image, following in pairwise(images)])
    return torch.from_numpy(flows.astype(np.float32, copy=False)).permute(0, 3, 1, 2)


_of_this_thread = threading.local()


def _dis_of_this_thread(preset: Preset) -> Any:
    """OpenCV's object holds its buffers, so no two threads may share one."""
    import cv2

    searches: dict[Preset, Any] = _of_this_thread.__dict__.setdefault("searches", {})
    if preset not in searches:
        code = {
            "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
            "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
            "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
        }[preset]
        searches[preset] = cv2.DISOpticalFlow.create(code)
    return searches[preset]
