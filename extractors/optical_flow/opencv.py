"""OpenCV's optical flow for machines without a GPU: dense inverse search and Farnebäck."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...manifests.streams import Record

Array = NDArray[Any]
Preset = Literal["ultrafast", "fast", "medium"]


class Dis(Record):
    """Dense inverse search (Kroeger et al., ECCV 2016): about 6 ms per pair of 256 × 341 px."""

    method: Literal["dis"] = "dis"
    """Method of optical flow: dis, farneback, tvl1 or raft."""
    preset: Preset = "medium"
    """Preset of OpenCV: trade-off between speed and accuracy."""


class Farneback(Record):
    """Farnebäck's polynomial expansion (SCIA 2003), with the parameters of OpenCV's documentation."""

    method: Literal["farneback"] = "farneback"
    """Method of optical flow: dis, farneback, tvl1 or raft."""


def dis(gray: Tensor, settings: Dis) -> Tensor:
    """Compute flow ``float32 [time - 1, 2, height, width]`` of frames ``uint8 [time, height, width]``."""
    return _of_pairs(gray, lambda image, following: _dis_of_this_thread(settings.preset).calc(image, following, None))


def farneback(gray: Tensor, settings: Farneback) -> Tensor:
    """Compute flow ``float32 [time - 1, 2, height, width]`` of frames ``uint8 [time, height, width]``."""
    import cv2

    del settings  # the parameters are fixed
    parameters = {
        "pyr_scale": 0.5,
        "levels": 3,
        "winsize": 15,
        "iterations": 3,
        "poly_n": 5,
        "poly_sigma": 1.2,
        "flags": 0,
    }
    compute: Any = cv2.calcOpticalFlowFarneback  # its stub does not allow `flow=None`
    return _of_pairs(gray, lambda image, following: compute(image, following, None, **parameters))


def _of_pairs(gray: Tensor, flow: Callable[[Array, Array], Array]) -> Tensor:
    if gray.dtype != torch.uint8 or gray.ndim != 3 or len(gray) < 2:
        raise ValueError(f"optical flow needs uint8 [2 or more, h, w], not {gray.dtype} {list(gray.shape)}")
    images = [np.ascontiguousarray(image) for image in gray.cpu().numpy()]
    flows = np.stack([*_pool(torch.get_num_threads()).map(flow, images[:-1], images[1:])])
    return torch.as_tensor(flows.astype(np.float32, copy=False)).permute(0, 3, 1, 2)


@cache
def _pool(num_threads: int) -> ThreadPoolExecutor:
    """Return the thread pool of the process, which limits the pairs that are computed at the same time."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="optical-flow")


_of_this_thread = threading.local()


def _dis_of_this_thread(preset: Preset) -> Any:
    """Return the object of this thread. OpenCV's object has buffers that threads must not share."""
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
