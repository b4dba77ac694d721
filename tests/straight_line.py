"""Independent reference computations of published recipes: videos, seeded checkpoints and tolerances.

Written with PyAV, PIL and torchvision only, without code of the package except the pipeline under test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import Clip, write_clip
from numpy.typing import NDArray
from seeded_networks import golden_state_dict, sha256_of
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import resnet50
from torchvision.models.optical_flow import raft_large
from torchvision.models.video import swin3d_b

from arabesque.extractors.checkpoints import CheckpointFile
from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline import streams as pipeline_streams
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.store.reader import FeatureStore

SHARED = Path(__file__).resolve().parents[2] / "shared"
SKATER = SHARED / "videos" / "skater_640x480_30fps.avi"

Image8 = NDArray[np.uint8]

squeeze = transforms.Compose(
    [transforms.Resize(256), transforms.CenterCrop((224, 300)), transforms.Resize((224, 224)), transforms.ToTensor()]
)
"""Geometry of GDLT and PAMFN (docs/provenance.md)."""


class Checkpoints:
    """Seeded checkpoints by their names in recipes, created on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: dict[str, CheckpointFile] = {}

    def __call__(self, name: str) -> CheckpointFile:
        if name not in self.made:
            self.made[name] = self._make(name)
        return self.made[name]

    def _make(self, name: str) -> CheckpointFile:
        if name == "yolov8n":
            path = SHARED / "weights" / "yolov8n.pt"
            return CheckpointFile(name, path, sha256_of(path), "ultralytics-yolo", True)
        if name == "resnet50_imagenet":
            torch.manual_seed(0)
            return self._save(name, resnet50().state_dict(), "resnet-torchvision")
        if name.startswith("raft_large"):
            torch.manual_seed(0)
            return self._save(name, raft_large(weights=None).state_dict(), "raft-torchvision")
        if name == "ast_audioset_10_10_hf":
            return self._save(name, golden_state_dict("ast_audioset_10_10"), "ast-original")
        if name == "video_swin_b_k600":
            return self._save(name, {"state_dict": golden_state_dict(name)}, "video-swin-mmaction")
        return self._save(name, golden_state_dict(name.removesuffix("_k400")), "i3d-hassony2")

    def _save(self, name: str, content: object, layout: str) -> CheckpointFile:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{name}.pth"
        torch.save(content, path)
        return CheckpointFile(name, path, sha256_of(path), layout)


def write_video(folder: Path, source: str, num_frames: int) -> Path:
    """Write a synthetic clip with a mono track, or an excerpt of a real video with a stereo track."""
    folder.mkdir()
    if source == "made":
        clip = Clip(num_frames=num_frames, width_px=176, height_px=120, beeps_s=[0.2, 0.9, 1.3, 1.9])
        return write_clip(folder / "video.mp4", clip)
    with av.open(SKATER) as original, av.open(folder / "video.mp4", "w") as excerpt:
        video = excerpt.add_stream("libx264", rate=Fraction(30000, 1001))
        video.width, video.height, video.pix_fmt = 640, 480, "yuv420p"
        audio = excerpt.add_stream("aac", rate=44100)
        for frame in islice(original.decode(video=0), num_frames):
            frame.pts = None
            excerpt.mux(video.encode(frame))
        excerpt.mux(video.encode(None))
        original.seek(0)
        for number, frame in enumerate(islice(original.decode(audio=0), round(num_frames / 30 * 44100 / 1152))):
            frame.pts, frame.time_base = number * 1152, Fraction(1, 44100)
            excerpt.mux(audio.encode(frame))
        excerpt.mux(audio.encode(None))
    return folder / "video.mp4"


def extract(
    video: Path,
    recipe: str,
    streams: Sequence[str],
    checkpoints: Checkpoints | None,
    monkeypatch: pytest.MonkeyPatch,
    settings: Mapping[str, Any] | None = None,
    weights: Mapping[str, str] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Return the features of the pipeline by stream. Without checkpoints, networks are those that a test replaced.

    ``settings`` override settings of the recipe; ``weights`` replace all its weights.
    """
    if checkpoints is not None:  # seeded ones instead of the published files
        monkeypatch.setattr(pipeline_streams, "require_checkpoints", lambda *_: None)
        monkeypatch.setattr(
            pipeline_streams,
            "resolve_weights",
            lambda roles, *_, **__: {role: checkpoints(name) for role, name in roles.items()},
        )
    whole = load_recipe(recipe)
    specs = {name: whole.streams[name] for name in streams}
    for name, spec in specs.items():
        changes = {"settings": {**spec.settings, **(settings or {})}, "weights": weights or spec.weights}
        specs[name] = spec.model_copy(update=changes)
    chosen = whole.model_copy(update={"streams": specs})
    out = video.parent.parent / "out"
    list(Extraction(video.parent, chosen, out, weights=None if checkpoints else "random:0"))
    row = FeatureStore(out)["video"]
    return {name: np.asarray(row[name]) for name in streams}


def decode(video: Path) -> list[Image8]:
    with av.open(video) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def agree(found: NDArray[np.float32], expected: Tensor, within: float = 2e-4) -> None:
    """Assert a cosine of at least 0.9999 per segment, and an error of at most ``within`` × the variation of the row.

    Seeded networks are not sensitive: a frame too early gives a cosine of 0.99997 and an error of 7e-3, a black instead
    of a zero frame 0.999995 and 3e-3, another BatchNorm epsilon 0.999999 and 1.3e-3. The second bound detects all.
    """
    assert found.shape == expected.shape
    one, other = found.astype(np.float64), expected.numpy().astype(np.float64)
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosine.min() >= 0.9999, cosine
    error = np.linalg.norm(one - other, axis=1) / np.linalg.norm(other - other.mean(1, keepdims=True), axis=1)
    assert error.max() <= within, error


def published_swin(checkpoint: CheckpointFile) -> nn.Module:
    """Return Video Swin with the mapping in docs/provenance.md, implemented independently."""
    renamed = {}
    for name, value in torch.load(checkpoint.path)["state_dict"].items():
        name = name.removeprefix("backbone.").replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")
        name = re.sub(r"layers\.(\d)\.blocks", lambda stage: f"features.{2 * int(stage[1])}", name)
        name = re.sub(r"layers\.(\d)\.downsample", lambda stage: f"features.{2 * int(stage[1]) + 1}", name)
        renamed[name] = value
    network = swin3d_b()
    network.head = nn.Identity()
    missing, unexpected = network.load_state_dict(renamed, strict=False)
    assert all("relative_position_index" in name for name in missing)
    assert all(name.startswith("cls_head") for name in unexpected)
    return network.eval()


class Glance(nn.Module):
    """Replaces a network to test its input: 1024 fixed mixtures of every frame, averaged over 8 × 8 fields.

    A shift of one pixel or one frame, or another normalization, changes all of them.
    """

    def forward(self, clips: Tensor) -> Tensor:
        """``[n, channels, time, height, width] → [n, 1024]``"""
        fields = nn.functional.adaptive_avg_pool3d(clips, (clips.shape[2], 8, 8)).flatten(1)
        return fields @ mixture(fields.shape[1]) / fields.shape[1] ** 0.5


@cache
def mixture(num_fields: int) -> Tensor:
    return torch.randn(num_fields, 1024, generator=torch.Generator().manual_seed(0))


def clips_of(images: Tensor, num_clips: int, length: int) -> Tensor:
    """``[clips, time, channels, height, width]``"""
    return images[: num_clips * length].unflatten(0, (num_clips, length))
