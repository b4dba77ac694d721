"""The released recipes from a video file to features, against straight-line computations written from the facts.

Each computation below follows docs/provenance.md with PyAV, OpenCV, PIL and torchvision: every frame decoded,
transformed by itself, clips stacked in memory. Shared with the package are only I3D, AST, the filterbank and TV-L1,
which golden numbers pin, and the person detector, which is pinned to ultralytics' own prediction.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from straight_line import (
    Checkpoints,
    Glance,
    Image8,
    agree,
    clips_of,
    decode,
    extract,
    published_swin,
    squeeze,
    write_video,
)
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import resnet50

from arabesque.extractors import i3d_flow
from arabesque.extractors.audio_spectrogram_network import load_spectrogram_transformer
from arabesque.extractors.detectors import load_detector
from arabesque.extractors.i3d import load_i3d
from arabesque.extractors.kaldi_fbank import FilterbankOptions, kaldi_fbank
from arabesque.extractors.optical_flow.tvl1 import tvl1
from arabesque.extractors.optical_flow.tvl1_settings import TVL1
from arabesque.extractors.precision import TOLERANCES

CPU = torch.device("cpu")


@pytest.mark.slow
def test_pamfn_released(source: str, tmp_path: Path, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "videos", source, num_frames=64 if source == "made" else 40)
    found = extract(video, "pamfn-released", ["vst", "i3d_flow", "ast"], checkpoints, monkeypatch)
    frames = decode(video)
    num_segments = len(frames) // 32
    assert num_segments == {"made": 2, "real": 1}[source]
    agree(found["vst"], pamfn_color(frames, num_segments, checkpoints))
    agree(found["i3d_flow"], pamfn_flow(frames, num_segments, checkpoints))
    agree(found["ast"], pamfn_sound(video, num_segments, checkpoints), within=TOLERANCES["float16"])


def pamfn_color(frames: list[Image8], num_segments: int, checkpoints: Checkpoints) -> Tensor:
    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    images = torch.stack([normalize(squeeze(Image.fromarray(frame))) for frame in frames])
    network = published_swin(checkpoints("video_swin_b_k600"))
    with torch.inference_mode():
        return torch.cat([network(clip.transpose(0, 1)[None]) for clip in clips_of(images, num_segments, 32)])


def test_pamfn_released_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test with a linear function of all pixels in place of I3D."""
    video = write_video(tmp_path / "videos", "made", num_frames=32)
    monkeypatch.setattr(i3d_flow, "load_i3d", lambda *_, **__: Glance())
    found = extract(video, "pamfn-released", ["i3d_flow"], None, monkeypatch)
    clips = clips_of(pamfn_flow_images(decode(video)), 1, 32)
    agree(found["i3d_flow"], Glance()(clips.transpose(1, 2)), within=2e-3)


def pamfn_flow(frames: list[Image8], num_segments: int, checkpoints: Checkpoints) -> Tensor:
    network = load_i3d(checkpoints("i3d_flow_k400"), in_channels=2, batch_norm_eps=1e-5)
    clips = clips_of(pamfn_flow_images(frames), num_segments, 32)
    with torch.inference_mode():
        pooled = [network.pooled(clip.transpose(0, 1)[None]) for clip in clips]
    assert pooled[0].shape == (1, 1024, 3, 1, 1)
    return torch.cat([clip[..., 0, 0].mean(2) for clip in pooled])


def pamfn_flow_images(frames: list[Image8]) -> Tensor:
    """denseflow's images of every pair, as PIL reads them from JPEG files; the last frame takes the flow before it."""
    gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])
    normalize = transforms.Normalize([0.5], [0.5])
    images: list[Tensor] = []
    for index in range(len(frames)):
        first = min(index, len(frames) - 2)
        flow = tvl1(torch.from_numpy(gray[first : first + 2]), TVL1(variant="cuda"))[0].numpy()
        files = [cv2.imencode(".jpg", axis)[1] for axis in np.round(255 * (flow + 32) / 64).clip(0, 255)]
        images.append(torch.cat([normalize(squeeze(Image.open(BytesIO(file.tobytes())))) for file in files]))
    return torch.stack(images)


def pamfn_sound(video: Path, num_segments: int, checkpoints: Checkpoints) -> Tensor:
    with av.open(video) as container:
        [rate] = {stream.rate for stream in container.streams.audio}
        wave = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    resampled = np.stack([torchaudios_resampling(channel.astype(np.float64), rate, 16000) for channel in wave])
    centered = (resampled - resampled.mean()).astype(np.float32)
    share = centered.shape[1] // num_segments
    rows = []
    for index in range(num_segments):
        energies = kaldi_fbank(centered[0, index * share : (index + 1) * share], FilterbankOptions(48000))
        normalized = (energies - 4.26) / (4.57 * 2)
        rows.append(np.concatenate([normalized, np.zeros((max(0, 41 - len(normalized)), 128))])[:41])
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
    people = load_detector("ultralytics", checkpoints("yolov8n"), CPU, 0.25).people(
        [torch.from_numpy(frame).permute(2, 0, 1) for frame in chosen]
    )
    boxes = [max(found, key=lambda box: box.area_px, default=None) for found in people]
    transform = transforms.Compose(
        [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)]
    )
    crops = [
        transform(Image.fromarray(frame[round(box.top) : round(box.bottom), round(box.left) : round(box.right)]))
        for frame, box in zip(chosen, boxes, strict=True)
        if box is not None
    ]
    assert len(crops) >= 2
    network = resnet50()
    network.load_state_dict(torch.load(checkpoints("resnet50_imagenet").path))
    torch.manual_seed(0)
    network.fc = nn.Linear(2048, 2048)
    nn.init.eye_(network.fc.weight)
    with torch.inference_mode():
        return network.eval()(torch.stack(crops))
