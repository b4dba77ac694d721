"""S3D, R(2+1)D-34 and Unmasked Teacher: key layouts and rows, on seeded weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from arabesque.extractor_contract import EXTRACTOR_CHECKS, ExtractorContract
from arabesque.extractors import unmasked_teacher
from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.r2plus1d import load_r2plus1d_34, r2plus1d_34
from arabesque.extractors.s3d import S3D, load_s3d
from arabesque.extractors.table import extractor_kind
from arabesque.extractors.unmasked_teacher import UnmaskedTeacher, load_unmasked_teacher, sine_positions
from arabesque.manifests.errors import ConfigError, WeightsError

SaveCheckpoint = Callable[..., Any]
NARROW = (32, 2, 4)


def randomized(network: nn.Module) -> nn.Module:
    """The network with statistics and biases that are not those of a new one."""
    torch.manual_seed(0)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif value.is_floating_point() and value.ndim < 2:
            value.normal_(1.0 if name.endswith("weight") else 0.0, 0.1)
    return network.eval()


def kylemin_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names → those of kylemin/S3D, model.py, as its file has them (from a DataParallel)."""
    leaves = {"0": "conv", "1": "bn"}

    def name_of(name: str) -> str:
        if name.startswith("classifier."):
            return name.replace("classifier.1", "module.fc.0")
        name = "module." + name.replace("features.", "base.", 1)
        separable = re.fullmatch(r"(module\.base\.(?:0|3|\d+\.branch[12]\.1))\.([01])\.([01])\.(\w+)", name)
        if separable:
            block, part, leaf, tensor = separable.groups()
            return f"{block}.{leaves[leaf]}_{'st'[int(part)]}.{tensor}"
        block, leaf, tensor = name.rsplit(".", 2)
        if block.endswith("branch0"):
            block += ".0"
        return f"{block}.{leaves[leaf]}.{tensor}"

    return {name_of(name): value for name, value in state_dict.items()}


@pytest.fixture(scope="module")
def s3d() -> Any:
    return randomized(S3D(classifier=True))


def test_s3d_reads_kylemins_names_and_pools_like_its_code(s3d: Any, save_checkpoint: SaveCheckpoint) -> None:
    file = kylemin_names(s3d.state_dict())
    # names read in model.py
    assert file["module.base.0.conv_s.weight"].shape == (64, 3, 1, 7, 7)
    assert file["module.base.2.conv.weight"].shape == (64, 64, 1, 1, 1)
    assert file["module.base.5.branch0.0.conv.weight"].shape == (64, 192, 1, 1, 1)
    assert file["module.base.12.branch1.1.conv_t.weight"].shape == (320, 320, 3, 1, 1)
    assert file["module.base.15.branch3.1.bn.running_mean"].shape == (128,)
    assert file["module.fc.0.weight"].shape == (400, 1024, 1, 1, 1)
    checkpoint = save_checkpoint(file, "s3d-kylemin")
    clip = torch.rand(2, 3, 24, 64, 64) * 2 - 1
    with torch.inference_mode():
        maps = s3d.features(clip)
        pooled = functional.avg_pool3d(maps, (2, maps.size(3), maps.size(4)), stride=1)
        assert pooled.shape[2] == 2  # three steps of time
        torch.testing.assert_close(load_s3d(checkpoint)(clip), pooled.flatten(2).mean(2), rtol=1e-5, atol=1e-5)
        logits = functional.conv3d(pooled, s3d.classifier[1].weight, s3d.classifier[1].bias).flatten(2).mean(2)
        found = load_s3d(checkpoint, classifier=True)(clip)
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)


def test_s3d_without_the_prefix_of_data_parallel(s3d: Any, save_checkpoint: SaveCheckpoint) -> None:
    file = {name.removeprefix("module."): value for name, value in kylemin_names(s3d.state_dict()).items()}
    load_s3d(save_checkpoint(file, "s3d-kylemin"))
    del file["base.3.bn_t.bias"]
    with pytest.raises(WeightsError, match=r"1 missing \(features\.3\.1\.1\.bias"):
        load_s3d(save_checkpoint(file, "s3d-kylemin"))


def test_s3d_needs_two_steps_of_time_after_its_pools() -> None:
    network = load_s3d(RandomWeights(0))
    with torch.inference_mode():
        assert network(torch.rand(1, 3, 13, 32, 32)).shape == (1, 1024)
        with pytest.raises(RuntimeError):
            network(torch.rand(1, 3, 12, 32, 32))


def test_r2plus1d_34_has_the_shapes_of_ig65m() -> None:
    with torch.device("meta"):
        file = r2plus1d_34(487).state_dict()
    # they differ from torchvision's own network: Caffe2's channels between the two convolutions
    assert file["layer2.0.conv2.0.0.weight"].shape == (288, 128, 1, 3, 3)
    assert file["layer3.0.conv2.0.3.weight"].shape == (256, 576, 3, 1, 1)
    assert file["layer4.0.conv2.0.0.weight"].shape == (1152, 512, 1, 3, 3)
    assert file["layer4.0.conv1.0.0.weight"].shape == (921, 256, 1, 3, 3)
    assert file["layer3.5.conv2.1.weight"].shape == (256,)
    bytes_of_all = sum(value.numel() * value.element_size() for value in file.values())
    classes_fewer = 87 * (512 + 1) * 4
    assert abs(bytes_of_all - classes_fewer - 255061555) < 100_000  # the file with 400 classes


@pytest.mark.slow  # 64 million numbers
def test_r2plus1d_34_has_the_tensors_of_ig65m(save_checkpoint: SaveCheckpoint) -> None:
    theirs = randomized(r2plus1d_34(487))
    file = theirs.state_dict()
    checkpoint = save_checkpoint(file, "ig65m-pytorch")
    network = load_r2plus1d_34(checkpoint)
    assert {module.eps for module in network.modules() if isinstance(module, nn.BatchNorm3d)} == {1e-3}
    clip = torch.rand(1, 3, 8, 32, 32)
    with torch.inference_mode():
        maps = clip
        for part in ("stem", "layer1", "layer2", "layer3", "layer4"):
            maps = theirs.get_submodule(part)(maps)
        expected = maps.mean((2, 3, 4))
        assert maps.shape[2] == 1
        torch.testing.assert_close(network(clip), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(WeightsError, match=r"fc\.weight is \[487, 512\], not \[400, 512\]"):
        load_r2plus1d_34(checkpoint, classifier=True)


@pytest.mark.parametrize("num_frames", [8, 16])
def test_unmasked_teacher_is_videomae_with_tubelets_of_one_frame(
    num_frames: int, save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers' VideoMAE is the same network with other names, but for the positions of 16 frames."""
    from transformers import VideoMAEConfig, VideoMAEModel

    width, num_layers, num_heads = NARROW
    monkeypatch.setitem(unmasked_teacher.SIZES, "narrow", NARROW)
    file = randomized(UnmaskedTeacher(*NARROW, num_frames)).state_dict()
    assert ("pos_embed" in file) == (num_frames == 16)
    assert file["blocks.1.attn.qkv.weight"].shape == (3 * width, width)
    assert file["patch_embed.proj.weight"].shape == (width, 3, 1, 16, 16)
    if num_frames == 16:
        file["pos_embed"] = torch.randn(1, 16 * 196, width)
    head = {"head.weight": torch.zeros(600, width), "head.bias": torch.zeros(600)}
    network = load_unmasked_teacher("narrow", num_frames, save_checkpoint({"module": file | head}, "unmasked-teacher"))

    config = VideoMAEConfig(
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        intermediate_size=4 * width,
        num_frames=num_frames,
        tubelet_size=1,
        layer_norm_eps=1e-6,
        use_mean_pooling=True,
    )
    theirs = VideoMAEModel(config).eval()
    theirs.load_state_dict(videomae_names(file, width), strict=True)
    if num_frames == 16:
        theirs.embeddings.position_embeddings = file["pos_embed"]
    clip = torch.rand(1, 3, num_frames, 224, 224)
    with torch.inference_mode():
        tokens = theirs(clip.transpose(1, 2)).last_hidden_state
        expected = functional.layer_norm(
            tokens.mean(1), (width,), file["fc_norm.weight"], file["fc_norm.bias"], eps=1e-6
        )
        torch.testing.assert_close(network(clip), expected, rtol=1e-4, atol=1e-5)


def videomae_names(file: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for name, value in file.items():
        if name.startswith(("fc_norm", "pos_embed")):
            continue
        made |= videomae_tensors(name, value, width)
    return made


def videomae_tensors(name: str, value: Tensor, width: int) -> dict[str, Tensor]:
    name = name.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
    block = re.match(r"blocks\.(\d+)\.", name)
    if block is None:
        return {name: value}
    start, rest = f"encoder.layer.{block[1]}.", name[block.end() :]
    if rest == "attn.qkv.weight":
        parts = zip(("query", "key", "value"), value.split(width), strict=True)
        return {f"{start}attention.attention.{part}.weight": rows for part, rows in parts}
    others = {
        "attn.q_bias": "attention.attention.query.bias",
        "attn.v_bias": "attention.attention.value.bias",
        "attn.proj.weight": "attention.output.dense.weight",
        "attn.proj.bias": "attention.output.dense.bias",
    }
    for one, other in (("norm1", "layernorm_before"), ("norm2", "layernorm_after")):
        others |= {f"{one}.{part}": f"{other}.{part}" for part in ("weight", "bias")}
    for one, other in (("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense")):
        others |= {f"{one}.{part}": f"{other}.{part}" for part in ("weight", "bias")}
    return {start + others[rest]: value}


def test_unmasked_teacher_positions_are_sines_and_cosines() -> None:
    table = sine_positions(1568, 1024)[0]
    assert table.shape == (1568, 1024)
    angle = 700 / 10000 ** (2 * 3 / 1024)
    assert table[700, 6:8].tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)


def test_the_file_of_another_number_of_frames_is_refused(
    save_checkpoint: SaveCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(unmasked_teacher.SIZES, "narrow", NARROW)
    for given, wanted, complaint in ((8, 16, r"1 missing \(pos_embed\)"), (16, 8, r"1 unexpected \(pos_embed\)")):
        checkpoint = save_checkpoint(UnmaskedTeacher(*NARROW, given).state_dict(), "unmasked-teacher")
        with pytest.raises(WeightsError, match=complaint):
            load_unmasked_teacher("narrow", wanted, checkpoint)


def test_unmt_names() -> None:
    assert extractor_kind("unmt:l16_f16").dim == 1024
    for wrong in ("unmt", "unmt:l16", "unmt:b16_f8", "unmt:l16_f32"):
        with pytest.raises(ConfigError, match=r"is not known; there are unmt:l16_f8, unmt:l16_f16"):
            extractor_kind(wrong)


@pytest.mark.parametrize("check", [check for check in EXTRACTOR_CHECKS if check != "check_half_precision"])
def test_unmt_keeps_the_contract(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(unmasked_teacher.SIZES, "narrow", NARROW)
    getattr(ExtractorContract("unmt:narrow_f8", num_frames=8), check)()
