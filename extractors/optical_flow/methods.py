"""The table of methods: what each needs, where it runs, and how to make it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..checkpoints import Weights
from .opencv import Dis, Farneback, dis, farneback
from .raft import ROLE, Raft, RaftFlow
from .tvl1 import tvl1
from .tvl1_settings import TVL1

FlowSettings = Annotated[Dis | Farneback | TVL1 | Raft, Field(discriminator="method")]
"""A recipe's ``flow = { method = …, … }``: each method has its own options."""

Flow = Callable[[Tensor], Tensor]
"""Frames ``uint8 [time, channels, height, width]`` to ``float32 [time - 1, 2, height, width]``: what moved how many
pixels to the right and down from each frame to the next."""


@dataclass(frozen=True)
class FlowMethod:
    """One row of the table."""

    make: Callable[[Any, Mapping[str, Weights], torch.device], Flow]
    """From the method's settings, its checkpoints by role, and the device."""
    runs_in: Literal["prepare", "forward"]
    """``prepare``: one segment on a CPU thread. ``forward``: one segment after another, on the device or on all CPU
    threads, before the network."""
    color: bool = False
    """Whether it looks at three channels or at one."""
    weight_roles: tuple[str, ...] = ()


def _of_gray(compute: Callable[[Tensor, Any], Tensor]) -> Callable[[Any, Mapping[str, Weights], torch.device], Flow]:
    return lambda settings, weights, device: lambda frames: compute(frames[:, 0], settings)


METHODS: Mapping[str, FlowMethod] = {
    "dis": FlowMethod(_of_gray(dis), "prepare"),
    "farneback": FlowMethod(_of_gray(farneback), "prepare"),
    "tvl1": FlowMethod(_of_gray(tvl1), "forward"),
    "raft": FlowMethod(RaftFlow, "forward", color=True, weight_roles=(ROLE,)),
}


def make_flow(settings: FlowSettings, weights: Mapping[str, Weights], device: torch.device) -> Flow:
    """The computation that the settings describe; ``weights`` holds the method's own roles, at least."""
    return METHODS[settings.method].make(settings, weights, device)
