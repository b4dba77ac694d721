"""The table of methods of optical flow: constructor, place of the computation, and input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..checkpoints import Weights
from ..engines import current_engine
from .opencv import Dis, Farneback, dis, farneback
from .raft import ROLE, Raft, RaftFlow
from .tvl1 import tvl1_of_clips
from .tvl1_settings import TVL1

FlowSettings = Annotated[Dis | Farneback | TVL1 | Raft, Field(discriminator="method")]
"""``flow = { method = …, … }`` in a recipe. Each method has its own options."""

Flow = Callable[[Sequence[Tensor]], list[Tensor]]
"""Function from clips ``uint8 [time, channels, height, width]`` to flows ``float32 [time - 1, 2, height, width]``: the
displacement in pixels, to the right and down, from each frame to the next."""


@dataclass(frozen=True)
class FlowMethod:
    """One row of the table."""

    make: Callable[[Any, Mapping[str, Weights], torch.device], Flow]
    """Function from the method's settings, its checkpoints by role, and the device to the computation"""
    runs_in: Literal["prepare", "forward"]
    """``prepare``: each segment on a CPU thread. ``forward``: all segments of a batch together before the network, on
    the device or on all CPU threads."""
    color: bool = False
    """Whether frames have three channels or one"""
    weight_roles: tuple[str, ...] = ()


def _of_gray(compute: Callable[[Tensor, Any], Tensor]) -> Callable[[Any, Mapping[str, Weights], torch.device], Flow]:
    return lambda settings, weights, device: lambda clips: [compute(frames[:, 0], settings) for frames in clips]


def _tvl1(settings: TVL1, weights: Mapping[str, Weights], device: torch.device) -> Flow:
    replays = current_engine() == "compile"
    return lambda clips: tvl1_of_clips([frames[:, 0] for frames in clips], settings, replays=replays)


def _raft(settings: Raft, weights: Mapping[str, Weights], device: torch.device) -> Flow:
    flow = RaftFlow(settings, weights, device)
    return lambda clips: [flow(frames) for frames in clips]


METHODS: Mapping[str, FlowMethod] = {
    "dis": FlowMethod(_of_gray(dis), "prepare"),
    "farneback": FlowMethod(_of_gray(farneback), "prepare"),
    "tvl1": FlowMethod(_tvl1, "forward"),
    "raft": FlowMethod(_raft, "forward", color=True, weight_roles=(ROLE,)),
}


def make_flow(settings: FlowSettings, weights: Mapping[str, Weights], device: torch.device) -> Flow:
    """Return the computation for the settings. ``weights`` must contain the checkpoints of the method."""
    return METHODS[settings.method].make(settings, weights, device)
