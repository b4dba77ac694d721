"""Every color stream of the published methods, and video_features' flow, from a video file to features.

Each is compared with an independent computation from docs/provenance.md with OpenCV, PIL and torchvision: the frames of
every clip, and the preprocessing of a frame. Most tests replace the published network, which other tests check, by a
linear function of all pixels (`straight_line.Glance`); the slow ones run the network with seeded weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from clips import Clip, write_clip
from numpy.typing import NDArray
from PIL import Image
from straight_line import Checkpoints, Glance, Image8, agree, extract, published_swin, squeeze
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models.optical_flow import raft_large

from arabesque.extractors import i3d, i3d_flow, video_swin
from arabesque.extractors.i3d import load_i3d
from arabesque.manifests.recipes import load_recipe

FPS = Fraction(30000, 1001)
HALF = transforms.Normalize([0.5] * 3, [0.5] * 3)
IMAGENET = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

Picture = Image8 | None
"""Return a blank frame: zeros after normalization."""
ClipsOf = Callable[[Sequence[Image8]], list[list[Picture]]]


def every_32(frames: Sequence[Image8], first: int = 0) -> list[list[Picture]]:
    """PAMFN: the remaining frames are dropped at the tail."""
    return [list(frames[start : start + 32]) for start in range(first, len(frames) - 31, 32)]


def every_32_from_the_middle(frames: Sequence[Image8]) -> list[list[Picture]]:
    """GDLT: half of the remaining frames are dropped at the head."""
    return every_32(frames, first=len(frames) % 32 // 2)


def at_rate(fps: int, length: int) -> ClipsOf:
    """The nearest frame to each time; clips without overlap, and the remaining frames are dropped."""

    def clips(frames: Sequence[Image8]) -> list[list[Picture]]:
        moments = [Fraction(k, fps) for k in range(10_000) if Fraction(k, fps) < len(frames) / FPS]
        nearest = [min(range(len(frames)), key=lambda index: abs(index / FPS - moment)) for moment in moments]
        return [
            [frames[index] for index in nearest[start : start + length]]
            for start in range(0, len(nearest) - length + 1, length)
        ]

    return clips


def action_nets_strides(frames: Sequence[Image8]) -> list[list[Picture]]:
    """Every stride-th frame, counted from one, in a buffer with one more row if the stride leaves a remainder."""
    stride = int(len(frames) / int(len(frames) * 5 / float(FPS)))
    buffer: list[Picture] = [None] * -(-len(frames) // stride)
    for count, frame in enumerate(frames, start=1):
        if count % stride == 0:
            buffer[count // stride - 1] = frame
    return [buffer[start : start + 16] for start in range(0, len(buffer) - 15, 16)]


def stacks_of_64(frames: Sequence[Image8]) -> list[list[Picture]]:
    """video_features: a stack is computed when its 65th frame is read, which begins the next."""
    stacks: list[list[Picture]] = []
    read: list[Picture] = []
    for frame in frames:
        read.append(frame)
        if len(read) == 65:
            stacks.append(read[:64])
            read = read[64:]
    return stacks


def squeezed(frame: Image8) -> Tensor:
    return IMAGENET(squeeze(Image.fromarray(frame)))


def middle(frame: Image8) -> Tensor:
    """The short side at 256, the middle 224²; torchvision's own rounding."""
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor()]
    return HALF(transforms.Compose(steps)(Image.fromarray(frame)))


def middle_rounded_down(frame: Image8) -> Tensor:
    """video_features: half of an odd margin by ``//``; 2 x / 255 - 1."""
    height, width, _ = frame.shape
    size = (256, int(256 * height / width)) if width < height else (int(256 * width / height), 256)
    resized = torch.from_numpy(np.array(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)))
    top, left = (size[1] - 224) // 2, (size[0] - 224) // 2
    return resized[top : top + 224, left : left + 224].permute(2, 0, 1) / 255 * 2 - 1


def height_224_squeezed(frame: Image8) -> Tensor:
    """ACTION-NET's code: cv2.resize, then PIL."""
    height, width, _ = frame.shape
    resized = cv2.resize(frame, (int(width / height * 224 + 0.5), 224))
    steps = [transforms.CenterCrop((224, 300)), transforms.Resize((224, 224)), transforms.ToTensor()]
    return HALF(transforms.Compose(steps)(Image.fromarray(resized)))


@dataclass(frozen=True)
class Stream:
    name: str
    clips_of: ClipsOf
    transform: Callable[[Image8], Tensor]
    num_frames: int = 81


STREAMS = {
    "gdlt": Stream("vst", every_32_from_the_middle, squeezed),
    "gdlt-released": Stream("vst", every_32_from_the_middle, squeezed),
    "gdlt-paper": Stream("vst", at_rate(25, 32), squeezed),
    "pamfn": Stream("vst", every_32, squeezed),
    "pamfn-released": Stream("vst", every_32, squeezed),
    "pamfn-paper": Stream("vst", every_32, squeezed),
    "action-net": Stream("i3d_rgb", at_rate(5, 16), middle, num_frames=100),
    "action-net-released": Stream("i3d_rgb", action_nets_strides, height_224_squeezed, num_frames=95),
    "action-net-paper": Stream("i3d_rgb", at_rate(5, 16), middle, num_frames=100),
    "video-features-i3d": Stream("rgb", stacks_of_64, middle_rounded_down, num_frames=130),
}


@pytest.mark.parametrize("recipe", STREAMS)
def test_the_input_of_the_network_is_the_published_clips(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = STREAMS[recipe]
    video = write_video(tmp_path, stream.num_frames)
    monkeypatch.setattr(video_swin, "headless_swin3d_b", Glance)
    monkeypatch.setattr(i3d, "load_i3d", lambda *_, **__: Glance())
    found = extract(video, recipe, [stream.name], None, monkeypatch)
    agree(found[stream.name], features(video, stream, Glance()), within=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "num_frames"),
    [("gdlt-released", 45), ("gdlt-paper", 45), ("video-features-i3d", 66), ("action-net", 100)],
)
def test_the_features_are_the_published_networks(
    recipe: str, num_frames: int, tmp_path: Path, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = STREAMS[recipe]
    video = write_video(tmp_path, num_frames)
    found = extract(video, recipe, [stream.name], checkpoints, monkeypatch)
    if stream.name == "vst":
        network: nn.Module = published_swin(checkpoints("video_swin_b_k600"))
    else:
        eps = 1e-3 if recipe == "action-net" else 1e-5
        network = load_i3d(checkpoints("i3d_rgb_k400"), in_channels=3, batch_norm_eps=eps)
    agree(found[stream.name], features(video, stream, network))


def test_video_features_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """64 flows of 65 frames, quantized and cropped as published; by DIS, which is quicker than RAFT."""
    video = write_video(tmp_path, 66)
    steps = load_recipe("video-features-i3d").streams["flow"].settings["geometry"]["steps"]
    by_dis = {"flow": {"method": "dis"}, "geometry": {"steps": steps, "gray": True}}
    monkeypatch.setattr(i3d_flow, "load_i3d", lambda *_, **__: Glance())
    found = extract(video, "video-features-i3d", ["flow"], None, monkeypatch, by_dis, {"network": "i3d_flow_k400"})
    gray = [gray_of_short_side_256(frame) for frame in decode_with_opencv(video)]
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.stack([search.calc(first, second, None) for first, second in pairwise(gray[:65])])
    agree(found["flow"], Glance()(video_features_images(flow)), within=1e-5)


@pytest.mark.slow
def test_video_features_flow_by_raft(tmp_path: Path, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    """raft-sintel's network on frames of 256 × 375 px, the border repeated to 376; two iterations for its twenty."""
    video = write_video(tmp_path, 66)
    recipe = load_recipe("video-features-i3d").streams["flow"]
    assert recipe.settings["flow"] == {"method": "raft", "iterations": 20}
    two = {"flow": {"method": "raft", "iterations": 2}}
    found = extract(video, "video-features-i3d", ["flow"], checkpoints, monkeypatch, two)
    raft = raft_large(weights=None).eval()
    raft.load_state_dict(torch.load(checkpoints(recipe.weights["flow"]).path))
    color = torch.stack([torch.from_numpy(frame).permute(2, 0, 1) for frame in decode_with_opencv(video)[:65]])
    frames = nn.functional.interpolate(color, (256, 375), mode="bilinear", antialias=True)
    scaled = 2 * (nn.functional.pad(frames.float(), (0, 1, 0, 0), mode="replicate") / 255) - 1
    network = load_i3d(checkpoints("i3d_flow_k400"), in_channels=2, batch_norm_eps=1e-5)
    with torch.inference_mode():
        flow = torch.cat([raft(scaled[i : i + 1], scaled[i + 1 : i + 2], 2)[-1] for i in range(64)])
        expected = network(video_features_images(flow.permute(0, 2, 3, 1).numpy()).float())
    agree(found["flow"], expected)


def video_features_images(flow: NDArray[np.float32]) -> Tensor:
    """``[1, 2, time, 224, 224]`` of ``[time, 256, 375 or 376, 2]``."""
    middle = flow[:, 16:240, 75:299]
    images = 2 * torch.from_numpy(np.round(128 + 255 / 40 * middle.clip(-20, 20))) / 255 - 1
    return images.permute(3, 0, 1, 2)[None]


def gray_of_short_side_256(frame: Image8) -> Image8:
    """Use torch: PIL differs by one level in one of ten thousand pixels, and DIS amplifies this on grainy pictures."""
    gray = torch.from_numpy(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))[None, None]
    return np.asarray(nn.functional.interpolate(gray, (256, 375), mode="bilinear", antialias=True)[0, 0], np.uint8)


def write_video(folder: Path, num_frames: int) -> Path:
    """At 29.97 frames a second, and of a width that leaves an odd margin once its height is 256: 375 - 224."""
    (folder / "videos").mkdir()
    clip = Clip(num_frames=num_frames, fps=FPS, width_px=176, height_px=120)
    return write_clip(folder / "videos" / "video.mp4", clip)


def decode_with_opencv(video: Path) -> list[Image8]:
    reader = cv2.VideoCapture(str(video))
    frames: list[Image8] = []
    while (read := reader.read())[0]:
        frames.append(np.asarray(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB), np.uint8))
    return frames


def features(video: Path, stream: Stream, network: nn.Module) -> Tensor:
    clips = stream.clips_of(decode_with_opencv(video))
    assert clips
    rows = []
    for clip in clips:
        images = [torch.zeros(3, 224, 224) if frame is None else stream.transform(frame) for frame in clip]
        with torch.inference_mode():
            rows.append(network(torch.stack(images, dim=1)[None]))
    return torch.cat(rows)
