from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.models.video import SwinTransformer3d, swin3d_b

from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights, StateDict, fill
from arabesque.extractors.geometry import apply_geometry, output_size
from arabesque.extractors.network import NetworkExtractor
from arabesque.extractors.protocol import SegmentInput
from arabesque.extractors.table import build, resolve
from arabesque.extractors.video_swin import LAYOUTS, VIDEO_SWIN_B, headless_swin3d_b
from arabesque.manifests.errors import WeightsError
from arabesque.manifests.streams import Sampling, StreamSpec

GoldenReader = Callable[[str], Any]
SaveCheckpoint = Callable[..., CheckpointFile]


def extractor(weights: Any, precision: Any = "float32") -> NetworkExtractor:
    spec = StreamSpec(
        extractor="video_swin_b",
        sampling=Sampling(fps="native", frames_per_segment=32, frames_per_step=32, remainder="drop-tail"),
        weights={"network": "seeded"},
        precision=precision,
    )
    built: Any = build(resolve(spec), {"network": weights}, torch.device("cpu"))
    return built


def row_of(stream: NetworkExtractor, *clips: Tensor) -> Tensor:
    """``[clips, 1024]``"""
    rows = stream.forward([stream.prepare(SegmentInput(0, 0.0, 1.0, frames=clip)) for clip in clips])
    return torch.stack([row for row in rows if row is not None])


@pytest.fixture(scope="module")
def headless() -> SwinTransformer3d:
    return headless_swin3d_b()


@pytest.fixture(scope="module")
def seeded_stream() -> NetworkExtractor:
    return extractor(RandomWeights(0))


def noise_frames(num_frames: int, side: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (num_frames, 3, side, side), np.uint8)) // (seed + 1)


@pytest.mark.slow
def test_golden(golden: GoldenReader, save_checkpoint: SaveCheckpoint) -> None:
    """From pixels to the feature, with the published layout. Required: 1e-4; measured: 0."""
    published = golden("video_swin_b_k600")
    expected = torch.from_numpy(published.arrays["feature"])
    pixels = np.random.default_rng(140).integers(0, 256, (1, 3, 32, 224, 224), np.uint8)
    stream = extractor(save_checkpoint({"meta": {}, "state_dict": published.state_dict}, "video-swin-mmaction"))

    found = row_of(stream, torch.from_numpy(pixels)[0].transpose(0, 1))

    assert found.shape == expected.shape == (1, 1024)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_every_published_tensor_finds_its_place(golden: GoldenReader, headless: SwinTransformer3d) -> None:
    theirs = golden("video_swin_b_k600").state_dict
    indices = {
        f"backbone.layers.{stage}.blocks.{block}.attn.relative_position_index": torch.zeros(392, 392, dtype=torch.int64)
        for stage, depth in enumerate((2, 2, 18, 2))
        for block in range(depth)
    }
    assert len(theirs | indices) == 351 + 2

    ours = LAYOUTS["video-swin-mmaction"](theirs | indices)

    wanted = headless.state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in wanted.items()}
    assert torch.equal(ours["features.5.norm.bias"], theirs["backbone.layers.2.downsample.norm.bias"])
    assert torch.equal(ours["features.4.17.mlp.3.bias"], theirs["backbone.layers.2.blocks.17.mlp.fc2.bias"])
    assert torch.equal(ours["features.6.1.mlp.0.weight"], theirs["backbone.layers.3.blocks.1.mlp.fc1.weight"])


@pytest.mark.slow
def test_torchvisions_own_layout_is_its_network(save_checkpoint: SaveCheckpoint) -> None:
    """Torchvision's forward without the classifier, with the weights in the form of its download (`state_dict()`)."""
    torch.manual_seed(0)
    theirs = swin3d_b(weights=None).eval()
    stream = extractor(save_checkpoint(theirs.state_dict(), "video-swin-torchvision"))
    clip = noise_frames(4, 64)
    theirs.head = torch.nn.Linear(1024, 1024)
    torch.nn.init.eye_(theirs.head.weight)
    torch.nn.init.zeros_(theirs.head.bias)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        expected = theirs(((clip.transpose(0, 1).float() / 255 - mean) / std)[None])
    torch.testing.assert_close(row_of(stream, clip), expected, rtol=1e-5, atol=1e-5)


def test_loading_is_strict(golden: GoldenReader, headless: SwinTransformer3d) -> None:
    theirs: StateDict = golden("video_swin_b_k600").state_dict
    for altered, layout, complaint in (
        ({**theirs, "backbone.extra.weight": torch.ones(1)}, "video-swin-mmaction", r"1 unexpected \(extra.weight\)"),
        (
            {name: value for name, value in theirs.items() if name != "backbone.norm.bias"},
            "video-swin-mmaction",
            r"1 missing \(norm.bias\)",
        ),
        (theirs, "video-swin-torchvision", "unexpected"),
    ):
        file = CheckpointFile("altered", Path("altered.pth"), "0" * 64, layout)
        with pytest.raises(WeightsError, match=complaint):
            fill(headless, LAYOUTS[layout](altered), file)


def test_rows_do_not_depend_on_the_batch(seeded_stream: NetworkExtractor) -> None:
    """float32 on the CPU: 1e-5 of the largest feature (measured 2e-7); a batch may mix lengths of clips."""
    clips = [noise_frames(num_frames, 64, seed) for seed, num_frames in enumerate((4, 8, 4))]

    together = row_of(seeded_stream, *clips)
    alone = torch.cat([row_of(seeded_stream, clip) for clip in clips])

    assert together.dtype == torch.float32
    scale = float(alone.abs().max())
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5 * scale)
    assert (alone[0] - alone[2]).abs().max() > 1e-2 * scale


@pytest.mark.slow  # emulated on a CPU without half-precision units
def test_bfloat16_rows_are_within_the_tolerance(seeded_stream: NetworkExtractor) -> None:
    clip = noise_frames(4, 64)
    exact, rounded = (row_of(stream, clip)[0] for stream in (seeded_stream, extractor(RandomWeights(0), "bfloat16")))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert functional.cosine_similarity(exact, rounded, dim=0) > 0.999


def test_plain_geometry_squeezes_the_rink() -> None:
    """GDLT's and PAMFN's: 300 of 341 columns survive, 224 of 256 rows."""
    geometry = VIDEO_SWIN_B.Settings().geometry
    assert output_size(480, 640, geometry) == (224, 224)
    columns = torch.zeros(1, 3, 480, 640, dtype=torch.uint8)
    columns[..., 45:-45] = 255
    assert apply_geometry(columns, geometry)[..., 100, 0].max() < 255
    columns[..., 35:-35] = 255
    assert apply_geometry(columns, geometry).min() == 255
