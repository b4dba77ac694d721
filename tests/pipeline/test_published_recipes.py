"""The released recipes from a video file to features, against straight-line computations written from the facts.

Each computation below follows field-notes A1, A2 and A7 with PyAV, OpenCV, PIL and torchvision: every frame decoded,
transformed by itself, clips stacked in memory. Shared with the package are only I3D, AST and the filterbank, which
golden numbers pin, and the person detector, which is pinned to ultralytics' own prediction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from clips import Clip, write_clip
from numpy.typing import NDArray
from PIL import Image
from seeded_networks import golden_state_dict
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import resnet50
from torchvision.models.video import swin3d_b

from arabesque.extractors.audio_spectrogram_network import load_spectrogram_transformer
from arabesque.extractors.checkpoints import CheckpointFile
from arabesque.extractors.i3d import load_i3d
from arabesque.extractors.kaldi_fbank import FilterbankOptions, kaldi_fbank
from arabesque.extractors.person import PersonDetector
from arabesque.extractors.precision import TOLERANCES
from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline import extraction
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.store.reader import FeatureStore

SHARED = Path(__file__).resolve().parents[3] / "shared"
SKATER = SHARED / "videos" / "skater_640x480_30fps.avi"
CPU = torch.device("cpu")

Checkpoints = Callable[[str], CheckpointFile]
Image8 = NDArray[np.uint8]

squeeze = transforms.Compose(
    [transforms.Resize(256), transforms.CenterCrop((224, 300)), transforms.Resize((224, 224)), transforms.ToTensor()]
)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Seeded checkpoints by the recipes' names, written when first asked for."""
    made: dict[str, CheckpointFile] = {}
    folder = tmp_path / "weights"
    folder.mkdir()

    def save(name: str, content: object, layout: str) -> CheckpointFile:
        torch.save(content, folder / f"{name}.pth")
        return CheckpointFile(name, folder / f"{name}.pth", "0" * 64, layout)

    def checkpoint(name: str) -> CheckpointFile:
        if name not in made:
            made[name] = make(name)
        return made[name]

    def make(name: str) -> CheckpointFile:
        if name == "yolov8n":
            return CheckpointFile(name, SHARED / "weights" / "yolov8n.pt", "0" * 64, "ultralytics-yolo", True)
        if name == "resnet50_imagenet":
            torch.manual_seed(0)
            return save(name, resnet50().state_dict(), "resnet-torchvision")
        if name == "ast_audioset_10_10_hf":
            return save(name, golden_state_dict("ast_audioset_10_10"), "ast-original")
        if name == "video_swin_b_k600":
            return save(name, {"state_dict": golden_state_dict(name)}, "video-swin-mmaction")
        return save(name, golden_state_dict(name.removesuffix("_k400")), "i3d-hassony2")

    return checkpoint


@pytest.fixture(params=["made", "real"])
def source(request: pytest.FixtureRequest) -> str:
    if request.param == "real" and not SKATER.exists():
        pytest.skip(f"{SKATER} is not here")
    return request.param


def write_video(folder: Path, source: str, num_frames: int) -> Path:
    """A drawn clip with a mono track, or the beginning of a real skater's with a stereo one."""
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
    video: Path, recipe: str, streams: Sequence[str], checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> dict[str, NDArray[np.float32]]:
    """What the pipeline makes of it, by stream."""
    monkeypatch.setattr(
        extraction, "resolve_weights", lambda roles, _: {role: checkpoints(name) for role, name in roles.items()}
    )
    whole = load_recipe(recipe)
    chosen = whole.model_copy(update={"streams": {name: whole.streams[name] for name in streams}})
    out = video.parent.parent / "out"
    list(Extraction(video.parent, chosen, out))
    row = FeatureStore(out)["video"]
    return {name: np.asarray(row[name]) for name in streams}


def decode(video: Path) -> list[Image8]:
    with av.open(video) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in container.decode(video=0)]


def agree(found: NDArray[np.float32], expected: Tensor, within: float = 2e-4) -> None:
    """Cosine of 0.9999 for each segment, and an error ``within`` a share of how much the features of a row differ.

    Seeded networks see little: to them, a frame too early is a cosine of .99997 and an error of 7e-3, a zero frame that
    is black .999995 and 3e-3, another BatchNorm epsilon .999999 and 1.3e-3. The second bound finds all of these.
    """
    assert found.shape == expected.shape
    one, other = found.astype(np.float64), expected.numpy().astype(np.float64)
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert cosine.min() >= 0.9999, cosine
    error = np.linalg.norm(one - other, axis=1) / np.linalg.norm(other - other.mean(1, keepdims=True), axis=1)
    assert error.max() <= within, error


@pytest.mark.slow
def test_pamfn_released(source: str, tmp_path: Path, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "videos", source, num_frames=64 if source == "made" else 40)
    found = extract(video, "pamfn-released", ["vst", "i3d_flow", "ast"], checkpoints, monkeypatch)
    frames = decode(video)
    num_segments = len(frames) // 32
    assert num_segments == {"made": 2, "real": 1}[source]
    agree(found["vst"], pamfn_colour(frames, num_segments, checkpoints))
    agree(found["i3d_flow"], pamfn_flow(frames, num_segments, checkpoints))
    agree(found["ast"], pamfn_sound(video, num_segments, checkpoints), within=TOLERANCES["float16"])


def pamfn_colour(frames: list[Image8], num_segments: int, checkpoints: Checkpoints) -> Tensor:
    normalise = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    images = torch.stack([normalise(squeeze(Image.fromarray(frame))) for frame in frames])
    network = published_swin(checkpoints("video_swin_b_k600"))
    with torch.inference_mode():
        return torch.cat([network(clip.transpose(0, 1)[None]) for clip in clips_of(images, num_segments, 32)])


def published_swin(checkpoint: CheckpointFile) -> nn.Module:
    """field-notes B2's mapping, written down once more."""
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


def pamfn_flow(frames: list[Image8], num_segments: int, checkpoints: Checkpoints) -> Tensor:
    """denseflow's images of every pair; the last frame takes the flow before it."""
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    normalise = transforms.Normalize([0.5], [0.5])
    images: list[Tensor] = []
    for index in range(len(frames)):
        first = min(index, len(frames) - 2)
        flow = search.calc(gray[first], gray[first + 1], None)
        levels = np.round(255 * (flow + 32) / 64).clip(0, 255).astype(np.uint8)
        images.append(torch.cat([normalise(squeeze(Image.fromarray(levels[..., axis]))) for axis in (0, 1)]))
    network = load_i3d(checkpoints("i3d_flow_k400"), in_channels=2, batch_norm_eps=1e-5)
    with torch.inference_mode():
        pooled = [
            network.pooled(clip.transpose(0, 1)[None]) for clip in clips_of(torch.stack(images), num_segments, 32)
        ]
    assert pooled[0].shape == (1, 1024, 3, 1, 1)
    return torch.cat([clip[..., 0, 0].mean(2) for clip in pooled])


def pamfn_sound(video: Path, num_segments: int, checkpoints: Checkpoints) -> Tensor:
    with av.open(video) as container:
        [rate] = {stream.rate for stream in container.streams.audio}
        wave = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    resampled = np.stack([torchaudios_resampling(channel.astype(np.float64), rate, 16000) for channel in wave])
    centred = (resampled - resampled.mean()).astype(np.float32)
    share = centred.shape[1] // num_segments
    rows = []
    for index in range(num_segments):
        energies = kaldi_fbank(centred[0, index * share : (index + 1) * share], FilterbankOptions(48000))
        normalised = (energies - 4.26) / (4.57 * 2)
        rows.append(np.concatenate([normalised, np.zeros((max(0, 41 - len(normalised)), 128))])[:41])
    network = load_spectrogram_transformer(checkpoints("ast_audioset_10_10_hf"), layer_norm_eps=1e-6)
    spectrograms = torch.from_numpy(np.stack(rows).astype(np.float32))
    with torch.inference_mode(), torch.autocast("cpu", torch.float16):
        return network(spectrograms).pooler_output.float()


def torchaudios_resampling(wave: NDArray[np.float64], from_hz: int, to_hz: int) -> NDArray[np.float64]:
    """Sinc of six zero crossings either side, roll-off .99, Hann window: one output sample after another."""
    cut_off = 0.99 * min(from_hz, to_hz)
    reach = int(np.ceil(6 * from_hz / cut_off))
    moments = np.arange(-(-len(wave) * to_hz // from_hz)) / to_hz
    nearest = np.floor(moments * from_hz).astype(int)[:, None] + np.arange(-reach, reach + 2)
    distance = cut_off * (nearest / from_hz - moments[:, None])
    weights = np.sinc(distance) * np.cos(np.pi * distance / 12) ** 2 * (np.abs(distance) < 6) * cut_off / from_hz
    inside = (nearest >= 0) & (nearest < len(wave))
    return (np.where(inside, wave[nearest.clip(0, len(wave) - 1)], 0) * weights).sum(1)


@pytest.mark.slow
def test_action_net_released(
    source: str, tmp_path: Path, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths that leave frames over, so that the row of zeros is the last of the last clip."""
    num_frames, fps = {"made": (158, 25.0), "real": (95, 30000 / 1001)}[source]
    video = write_video(tmp_path / "videos", source, num_frames)
    streams = ["i3d_rgb"] if source == "made" else ["i3d_rgb", "resnet_crop"]
    found = extract(video, "action-net-released", streams, checkpoints, monkeypatch)
    frames = decode(video)
    assert len(frames) == num_frames
    agree(found["i3d_rgb"], action_net_dynamic(frames, fps, checkpoints))
    if "resnet_crop" in found:
        agree(found["resnet_crop"], action_net_static(frames, fps, checkpoints))


def action_net_dynamic(frames: list[Image8], fps: float, checkpoints: Checkpoints) -> Tensor:
    stride = int(len(frames) / int(len(frames) * 5 / fps))
    height, width, _ = frames[0].shape
    transform = transforms.Compose(
        [
            transforms.CenterCrop((224, 300)),
            transforms.Resize((224, 224)),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    rows = torch.zeros(-(-len(frames) // stride), 3, 224, 224)
    for row, index in enumerate(range(stride - 1, len(frames), stride)):
        rows[row] = transform(Image.fromarray(cv2.resize(frames[index], (int(width / height * 224 + 0.5), 224))))
    assert len(rows) % 16 == 0
    assert not rows[-1].any()
    network = load_i3d(checkpoints("i3d_rgb_k400"), in_channels=3, batch_norm_eps=1e-5)
    with torch.inference_mode():
        return torch.cat([network(clip.transpose(0, 1)[None]) for clip in clips_of(rows, len(rows) // 16, 16)])


def action_net_static(frames: list[Image8], fps: float, checkpoints: Checkpoints) -> Tensor:
    stride = int(len(frames) / int(len(frames) * 1 / int(fps)))
    chosen = frames[stride - 1 :: stride]
    boxes = PersonDetector(checkpoints("yolov8n"), CPU).largest_person(
        [torch.from_numpy(frame).permute(2, 0, 1) for frame in chosen]
    )
    transform = transforms.Compose(
        [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    )
    people = [
        transform(Image.fromarray(frame[round(box.top) : round(box.bottom), round(box.left) : round(box.right)]))
        for frame, box in zip(chosen, boxes, strict=True)
        if box is not None
    ]
    assert len(people) >= 2
    network = resnet50()
    network.load_state_dict(torch.load(checkpoints("resnet50_imagenet").path))
    torch.manual_seed(0)
    network.fc = nn.Linear(2048, 2048)
    nn.init.eye_(network.fc.weight)
    with torch.inference_mode():
        return network.eval()(torch.stack(people))


def clips_of(images: Tensor, num_clips: int, length: int) -> Tensor:
    """``[clips, time, channels, height, width]``"""
    return images[: num_clips * length].unflatten(0, (num_clips, length))
