"""Reference implementations of the methods: OpenCV pair by pair, torchvision's RAFT called on each pair."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models import optical_flow

from arabesque.extractors.optical_flow.raft import Raft

Flow = Callable[[Tensor], Tensor]


def opencv_flow(method: str, num_threads: int) -> Flow | None:
    """Return OpenCV's flow of ``uint8 [time, 1, h, w]``; None if OpenCV or the method is not installed.

    DIS and Farnebäck process one pair after another with OpenCV's own threads. TV-L1, which gains little from them,
    uses one thread for each pair.
    """
    if importlib.util.find_spec("cv2") is None:
        return None
    cv2: Any = importlib.import_module("cv2")
    cv2.setNumThreads(num_threads)
    if method == "tvl1":
        if not hasattr(cv2, "optflow"):
            return None
        return _a_thread_each(lambda: cv2.optflow.DualTVL1OpticalFlow_create().calc, num_threads)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc
    parameters: tuple[Any, ...] = ()
    if method == "farneback":
        search, parameters = cv2.calcOpticalFlowFarneback, (0.5, 3, 15, 3, 5, 1.2, 0)

    def flow(frames: Tensor) -> Tensor:
        images = frames[:, 0].numpy()
        return _stacked([search(first, second, None, *parameters) for first, second in pairwise(images)])

    return flow


def _a_thread_each(make: Callable[[], Any], num_threads: int) -> Flow:
    own = threading.local()

    def compute(first: Any, second: Any) -> Any:
        if not hasattr(own, "calc"):
            own.calc = make()
        return own.calc(first, second, None)

    def flow(frames: Tensor) -> Tensor:
        images = frames[:, 0].numpy()
        with ThreadPoolExecutor(num_threads) as threads:
            return _stacked([*threads.map(compute, images[:-1], images[1:])])

    return flow


def _stacked(flows: list[Any]) -> Tensor:
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)


def pairwise_raft(settings: Raft, device: torch.device, state_dict: dict[str, Tensor]) -> Flow:
    """Return torchvision's RAFT for ``uint8 [time, 3, h, w]``, pair by pair, in float32, on padded frames."""
    torch.backends.cudnn.allow_tf32 = False
    network: Any = getattr(optical_flow, settings.model)(weights=None)
    network.load_state_dict(state_dict)
    network = network.eval().to(device)

    @torch.inference_mode()
    def flow(frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        above, left = (-height % 8) // 2, (-width % 8) // 2
        border = (left, -width % 8 - left, above, -height % 8 - above)
        scaled = functional.pad(2 * (frames.float() / 255) - 1, border, mode="replicate")
        flows = torch.cat([network(*pair, settings.iterations)[-1] for pair in pairwise(scaled.split(1))])
        return flows[..., above : above + height, left : left + width]

    return flow
