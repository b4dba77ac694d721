"""Inputs and settings for each extractor, for tests of the whole table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.person import Box
from arabesque.extractors.table import extractor_kind


@dataclass(frozen=True)
class Case:
    frames: int = 16
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    variant: str = ""


SMALL = {"geometry": {"steps": [{"size_px": [64, 64]}]}}
CASES = {
    "i3d_rgb": Case(frames=9),
    "i3d_flow": Case(frames=9),
    "video_swin_b": Case(frames=2),
    "resnet_frame": Case(frames=1, settings=SMALL),
    "resnet_crop": Case(frames=1, settings={"crop_geometry": SMALL["geometry"]}),
    "key_points": Case(frames=1, settings={"presence_threshold": 0}),
    "pose": Case(frames=2, settings={"presence_threshold": 0}),
    "ast": Case(settings={"input_frames": "all"}),
    "vggish": Case(),
    "transnet": Case(frames=8),
    "people": Case(frames=1),
    "s3d": Case(frames=13, settings=SMALL),
    "r2plus1d_34": Case(frames=2, settings=SMALL),
    "pytorchvideo": Case(frames=4, settings=SMALL, variant=":x3d_xs"),
}


def any_aspect_settings(name: str) -> dict[str, Any]:
    """Return settings with which landscape and portrait frames keep different sizes."""
    short_side = {"short_side_px": 196 if name.startswith("i3d") else 64}  # I3D takes no smaller frames
    keeps_aspect = {
        "geometry": {"steps": [short_side], "gray": name in ("i3d_flow", "optical_flow")},
        "crop_geometry": {"steps": [short_side]},
        "flow_geometry": {"steps": []},
    }
    kind = extractor_kind(name)
    if getattr(kind, "input_size", None) is not None:
        return {}
    known = kind.Settings.model_fields
    return {name: value for name, value in keeps_aspect.items() if name in known}


class OnePerson:
    """A detector that finds a person in the middle of each frame."""

    def people(self, frames: Sequence[Tensor]) -> list[list[Box]]:
        sizes = [frame.shape[-2:] for frame in frames]
        return [[Box(width / 4, height / 8, 3 * width / 4, 7 * height / 8)] for height, width in sizes]


@dataclass(frozen=True)
class SeededPerson:
    """A detector that finds one person, whose box depends on the frame and on the seed of the detector's weights."""

    weights: RandomWeights

    def people(self, frames: Sequence[Tensor]) -> list[list[Box]]:
        found: list[list[Box]] = []
        for frame in frames:
            height, width = frame.shape[-2:]
            share = float(frame.float().mean()) / 255 / (2 + self.weights.seed)
            found.append([Box(width / 4, height * share, 3 * width / 4, 7 * height / 8)])
        return found
