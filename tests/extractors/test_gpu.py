"""A GPU gives the same numbers as the CPU."""

from __future__ import annotations

import pytest
import torch

from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.engines import CompiledNetwork
from arabesque.extractors.geometry import apply_geometry, normalize
from arabesque.extractors.optical_flow.raft import Raft, RaftFlow
from arabesque.extractors.optical_flow.tvl1 import tvl1_of_clips
from arabesque.extractors.optical_flow.tvl1_settings import TVL1
from arabesque.extractors.precision import TOLERANCES, inference
from arabesque.extractors.protocol import SegmentInput
from arabesque.extractors.table import build, resolve
from arabesque.manifests.streams import CenterCrop, Geometry, Normalization, Sampling, ShortSide, StreamSpec

pytestmark = pytest.mark.gpu

SWIN_GEOMETRY = Geometry(steps=(ShortSide(short_side_px=256), CenterCrop(center_crop_px=(224, 224))))


def frames(count: int, height: int = 270, width: int = 480) -> torch.Tensor:
    """Return smooth pictures; with noise, the rounding of the resize would dominate."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 9, 16, generator=generator)
    return (torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255).byte()


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("gray", [True, False])
def test_geometry_is_the_same(antialias, gray):
    geometry = SWIN_GEOMETRY.model_copy(update={"antialias": antialias, "gray": gray})
    on_cpu = apply_geometry(frames(4), geometry)
    on_gpu = apply_geometry(frames(4).cuda(), geometry)
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), on_cpu)


def test_normalization_is_the_same():
    normalization = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    torch.testing.assert_close(
        normalize(frames(2).cuda(), normalization, torch.float32).cpu(),
        normalize(frames(2), normalization, torch.float32),
    )


@pytest.mark.parametrize(
    ("extractor", "length"), [("i3d_rgb", 16), ("video_swin_b", 8), ("resnet_frame", 1), ("pytorchvideo:x3d_m", 16)]
)
def test_networks_give_the_same_features(extractor, length):
    sampling = Sampling(fps="native", frames_per_segment=length, frames_per_step=length, remainder="drop-tail")
    spec = resolve(StreamSpec(extractor=extractor, sampling=sampling, weights={"network": "any"}))
    rows = []
    for device in ("cpu", "cuda"):
        built = build(spec, {"network": RandomWeights(0)}, torch.device(device))
        assert built.frames is not None
        clip = apply_geometry(frames(length), built.frames.geometry).to(device)
        times_s = tuple(index / 25 for index in range(length))
        prepared = built.prepare(SegmentInput(0, 0.0, length / 25, clip, times_s))
        (row,) = built.forward([prepared])
        assert row is not None
        rows.append(row.cpu())
    scale = rows[0].abs().max()
    torch.testing.assert_close(rows[1], rows[0], rtol=0, atol=float(TOLERANCES["float32"] * scale))


@pytest.mark.parametrize("model", ["raft_large", "raft_small"])
def test_raft_gives_the_same_flow(model):
    """Computed in float32, even if the process has allowed TF32 before."""
    torch.backends.cudnn.allow_tf32 = True
    on_cpu, on_gpu = (
        RaftFlow(Raft(model=model), {"flow": RandomWeights(0)}, torch.device(device))(frames(4, 130, 170))
        for device in ("cpu", "cuda")
    )
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=5e-3)


def test_tvl1_with_cuda_graphs_is_tvl1(caplog: pytest.LogCaptureFixture) -> None:
    """Also for the second batch, which replays, and for one of another size in between."""
    clips = [frames(5)[:, 0].cuda(), frames(9)[:, 0].cuda()]
    for batch in (clips, clips, clips[:1], clips):
        for plain, replayed in zip(
            tvl1_of_clips(batch, TVL1()), tvl1_of_clips(batch, TVL1(), replays=True), strict=True
        ):
            assert torch.equal(plain, replayed)
    assert "no CUDA graph" not in caplog.text


def test_a_network_with_cuda_graphs_gives_its_rows(caplog: pytest.LogCaptureFixture) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten()).cuda().eval()
    compiled = CompiledNetwork(network.requires_grad_(False), "float32", replays=True)
    with inference(torch.device("cuda"), "float32"):
        for count in (4, 4, 6, 2, 6):
            batch = torch.rand(count, 3, 16, 16, device="cuda")
            torch.testing.assert_close(compiled(batch), network(batch), rtol=0, atol=1e-5)
    assert caplog.text == ""
