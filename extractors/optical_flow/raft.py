"""RAFT (Teed and Deng, ECCV 2020) for sequences: torchvision's network and weights, every frame encoded once.

The results are equal to those of torchvision's network on each pair except for the order of sums. To save time,

    features     are computed once for each frame, not for each pair
    context      its share of the recurrent unit's convolutions is computed once for each pair, not in every iteration
    upsampling   is applied to the flow of the last iteration only

Encoders and iterations run on the engine of the stream (`engines`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional
from torchvision.models import optical_flow  # pyright: ignore[reportMissingTypeStubs]

from ...manifests.streams import Precision, Record
from ..checkpoints import Layouts, StateDict, Weights, load_network, renamed, unchanged
from ..device_copies import upload
from ..network_runner import ready
from ..precision import inference
from .raft_iterations import RaftIterations

_RESIDUAL_BLOCK = (
    (r"(\.layer\d\.\d\.)conv([12])\.", r"\1convnormrelu\2.0."),
    (r"(\.layer\d\.\d\.)norm([12])\.", r"\1convnormrelu\2.1."),
)
_ORIGINAL_NAMES = (
    (r"^module\.", ""),
    (r"^fnet\.", "feature_encoder."),
    (r"^cnet\.", "context_encoder."),
    *_RESIDUAL_BLOCK,
    (r"^(\w+_encoder\.)conv1\.", r"\1convnormrelu.0."),
    (r"^(\w+_encoder\.)norm1\.", r"\1convnormrelu.1."),
    (r"^(\w+_encoder\.)conv2\.", r"\1conv."),
    (r"\.encoder\.convc([12])\.", r".motion_encoder.convcorr\1.0."),
    (r"\.encoder\.convf([12])\.", r".motion_encoder.convflow\1.0."),
    (r"\.encoder\.conv\.", ".motion_encoder.conv.0."),
    (r"\.gru\.conv([zrq])([12])\.", r".recurrent_block.convgru\2.conv\1."),
    (r"^update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"^update_block\.mask\.2\.", "mask_predictor.conv."),
)


def _from_original(state_dict: StateDict) -> StateDict:
    """Rename tensors of princeton-vl/RAFT, whose strided blocks contain the last normalization twice."""
    return renamed({name: value for name, value in state_dict.items() if ".norm3." not in name}, _ORIGINAL_NAMES)


LAYOUTS: Layouts = {"raft-original": _from_original, "raft-torchvision": unchanged}
Model = Literal["raft_large", "raft_small"]

ROLE = "flow"
MIN_SIDE_PX = 121
"""Least side of frames. The coarsest of four correlation levels needs two features per side, each of 64 px. A side of
121 px is padded to 128."""

_CPU_BYTES = 2**26
_GPU_SHARE = 0.5
"""Memory of a batch of pairs: on a CPU 64 MiB, beyond which larger batches are not faster; on a GPU half of the free
memory."""


class Raft(Record):
    """torchvision's RAFT. ``weights`` names its checkpoint under the role ``flow``."""

    method: Literal["raft"] = "raft"
    """Method of optical flow: dis, farneback, tvl1 or raft."""
    model: Model = "raft_large"
    """Network of torchvision."""
    iterations: PositiveInt = 12
    """Number of iterations. The default is torchvision's; video_features uses 20."""
    network_precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of matrix products and convolutions, independent of the precision of the stream. Positions and
    looked-up correlations stay in float32."""


class RaftFlow:
    """Computes flow ``float32 [time - 1, 2, height, width]`` of frames ``uint8 [time, 3, height, width]``.

    As in the authors' code, values are scaled to -1 … 1, both sides are padded to multiples of 8 by repeating the
    border, half at each end, and the flow is cropped to the frames.
    """

    def __init__(self, settings: Raft, weights: Mapping[str, Weights], device: torch.device) -> None:
        build = getattr(optical_flow, settings.model)
        network: Any = load_network(lambda: build(weights=None), weights[ROLE], LAYOUTS)
        parts = network.feature_encoder, network.context_encoder, RaftIterations(network, settings.iterations)
        self._device = device
        self._precision: Precision = settings.network_precision
        self._features, self._context, self._iterations = (
            ready(part.to(device), device, self._precision) for part in parts
        )

    def __call__(self, frames: Tensor) -> Tensor:
        _check(frames)
        with inference(self._device, self._precision):
            return self._flow(upload(frames, self._device))

    def _flow(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        border = _padding(height, width)
        left, _, above, _ = border
        images = functional.pad(2 * (frames.float() / 255) - 1, border, mode="replicate")
        flow = torch.cat(list(self._of_pairs(images))).float()
        return flow[..., above : above + height, left : left + width]

    def _of_pairs(self, images: Tensor) -> Iterator[Tensor]:
        """Yield the flow of each batch. The last frame of a batch, encoded once, is the first of the next batch."""
        height, width = images.shape[-2:]
        step = pairs_per_batch(height, width, _budget_bytes(self._device))
        known = self._features(images[:1])
        for first in range(0, len(images) - 1, step):
            later = self._features(images[first + 1 : first + 1 + step])
            features = torch.cat([known, later])
            context = self._context(images[first : first + len(later)])
            yield self._iterations(torch.cat([features[:-1], features[1:], context], dim=1))
            known = later[-1:]


def pairs_per_batch(height: int, width: int, budget_bytes: float) -> int:
    """Return how many pairs of frames of this size fit into the memory, at least one.

    A pair needs the correlation of every feature with every other at four levels, and about 6,000 numbers per feature:
    the encoders' maps of 64 channels at half resolution, the looked-up correlations and the mask of the upsampling.
    """
    num_features = (height // 8) * (width // 8)
    pair_bytes = 4 * (4 / 3 * num_features**2 + 6000 * num_features)
    return max(int(budget_bytes / pair_bytes), 1)


def _budget_bytes(device: torch.device) -> float:
    if device.type not in ("cuda", "xpu"):
        return _CPU_BYTES
    free_bytes, total_bytes = torch.accelerator.get_memory_info(device)
    reserved_bytes = torch.accelerator.memory_reserved(device)
    if device.type == "cuda":  # the limit of this process, if several workers share the GPU
        allowed_bytes = torch.cuda.get_per_process_memory_fraction(device) * total_bytes
        free_bytes = max(min(free_bytes, allowed_bytes - reserved_bytes), 0)
    return _GPU_SHARE * (free_bytes + reserved_bytes - torch.accelerator.memory_allocated(device))


def _padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Return the padding at the left, right, top and bottom."""
    more_x, more_y = -width % 8, -height % 8
    return more_x // 2, more_x - more_x // 2, more_y // 2, more_y - more_y // 2


def _check(frames: Tensor) -> None:
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3 or len(frames) < 2:
        raise ValueError(f"RAFT needs uint8 [2 or more, 3, h, w], not {frames.dtype} {list(frames.shape)}")
    if min(frames.shape[-2:]) < MIN_SIDE_PX:
        height, width = frames.shape[-2:]
        raise ValueError(f"RAFT needs frames of {MIN_SIDE_PX} px a side or more, not {height} × {width}; set geometry")
