"""Networks of torchvision, timm and transformers by name: the contract, and the libraries' own rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_rows import extractor_for, picture_frames, row_of
from small_checkpoints import AUDIO, FAMILIES, PICTURES, processor, write_checkpoint
from torch import Tensor
from torchvision import models

from arabesque.extractor_contract import EXTRACTOR_CHECKS, ExtractorContract
from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights
from arabesque.extractors.geometry import apply_geometry, normalize
from arabesque.extractors.hub_snapshot import CheckpointFolder, find_checkpoint
from arabesque.extractors.network import NetworkCard
from arabesque.extractors.table import extractor_kind, resolve
from arabesque.manifests.errors import ConfigError, WeightsError
from arabesque.manifests.streams import Sampling, StreamSpec

CPU = torch.device("cpu")
SAME_PIXELS = 1e-4
"""Where a library resizes in floating point, or Pillow does: some pixels differ by one level of 255."""
SMALL = {"geometry": {"steps": [{"size_px": [64, 64]}]}}


@dataclass(frozen=True)
class Case:
    frames: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])


PACKAGED = {
    "torchvision:resnet18": Case(settings=SMALL),
    "torchvision:convnext_tiny": Case(settings=SMALL),
    "torchvision:efficientnet_b0": Case(settings=SMALL),
    "torchvision:regnet_y_400mf": Case(settings=SMALL),
    "torchvision:vit_b_16": Case(),
    "torchvision:r3d_18": Case(frames=4, settings=SMALL),
    "torchvision:swin3d_t": Case(frames=2, settings=SMALL),
    "torchvision:mvit_v2_s": Case(frames=16),
    "torchvision:s3d": Case(frames=14),
    "timm:resnet18": Case(settings=SMALL),
    "timm:mobilenetv3_small_100": Case(settings=SMALL),
    "timm:vit_tiny_patch16_224": Case(),
}
FAST = {"torchvision:resnet18", "dinov2", "clip", "videomae"}


def cases() -> list[Any]:
    names = [*PACKAGED, *FAMILIES, *AUDIO]
    return [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in names]


@pytest.fixture(scope="module", params=cases())
def contract(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ExtractorContract:
    name = request.param
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    if ":" in name:
        case = PACKAGED[name]
        return ExtractorContract(name, num_frames=case.frames, settings=case.settings)
    folder = write_checkpoint(tmp_path_factory.mktemp("hub") / name, name)
    frames = FAMILIES[name].frames if name in FAMILIES else 16
    return ExtractorContract(f"transformers:{folder}", num_frames=frames)


NETWORKS_OF_ONE_SIZE = {"check_half_precision"}  # tolerances are those of trained networks of full size


@pytest.mark.parametrize("check", [check for check in EXTRACTOR_CHECKS if check not in NETWORKS_OF_ONE_SIZE])
def test_families_keep_the_contract(contract: ExtractorContract, check: str) -> None:
    getattr(contract, check)()


def test_at_least_25_families_are_tested() -> None:
    assert len(PACKAGED) + len(FAMILIES) + len(AUDIO) >= 25


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in FAMILIES]
)
def test_rows_equal_the_processor_and_forward_of_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel, AutoVideoProcessor

    family = FAMILIES[name]
    folder = write_checkpoint(tmp_path / name, name, seed=1)
    frames = picture_frames(family.frames)
    network: Any = AutoModel.from_pretrained(folder).eval()
    if "video_processor_type" in family.processor:
        theirs: Any = AutoVideoProcessor.from_pretrained(folder)
        inputs = theirs(videos=[frames], do_sample_frames=False, return_tensors="pt")
    elif family.frames > 1:
        theirs = AutoImageProcessor.from_pretrained(folder)
        inputs = theirs([[frame.permute(1, 2, 0).numpy() for frame in frames]], return_tensors="pt")
    else:
        theirs = AutoImageProcessor.from_pretrained(folder)
        inputs = theirs(images=[frames[0]], return_tensors="pt")
    if name == "videoprism":  # its own processor gives the pixels another name
        inputs = {"pixel_values_videos": inputs["pixel_values"]}
    with torch.inference_mode():
        expected = theirs_of(network, dict(inputs), family.expected)

    found = row_of(
        extractor_for(f"transformers:{folder}", find_checkpoint(str(folder)).with_digest(), family.frames), frames
    )

    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def theirs_of(network: Any, inputs: dict[str, Any], output: str) -> Tensor:
    if output.startswith("get_"):
        found = getattr(network, output)(**inputs)
        return (found if isinstance(found, Tensor) else found.pooler_output).flatten()
    found = network(**inputs)
    if output == "cls":
        return found.last_hidden_state[0, 0]
    return found.last_hidden_state[0].mean(dim=0) if output == "mean" else found.pooler_output.flatten()


def test_the_output_may_be_the_class_token_or_the_mean_of_patches(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = write_checkpoint(tmp_path / "dinov2_with_registers", "dinov2_with_registers", seed=1)
    checkpoint = find_checkpoint(str(folder)).with_digest()
    frames = picture_frames(1)
    pooled = extractor_for(f"transformers:{folder}", checkpoint)
    assert pooled.frames is not None
    normalization = extractor_kind(f"transformers:{folder}").Settings().model_dump()["normalization"]
    mean, std = (torch.tensor(normalization[part]).view(3, 1, 1) for part in ("mean", "std"))
    pixels = (apply_geometry(frames, pooled.frames.geometry) / 255 - mean) / std
    with torch.inference_mode():
        tokens = AutoModel.from_pretrained(folder).eval()(pixel_values=pixels).last_hidden_state[0]
    assert len(tokens) == 1 + 2 + 4
    for output, expected in (("cls", tokens[0]), ("patches", tokens[3:].mean(dim=0))):
        found = row_of(extractor_for(f"transformers:{folder}", checkpoint, output=output), frames)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_key_contains_the_revision_and_the_digest_of_all_files(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "clip", "clip", seed=1)
    first = find_checkpoint(str(folder)).with_digest()
    write_checkpoint(folder, "clip", seed=2)
    assert find_checkpoint(str(folder)).with_digest().digest != first.digest
    with pytest.raises(WeightsError, match="has changed since it was verified"):
        extractor_for(f"transformers:{folder}", first)
    sampling = Sampling(fps=1, frames_per_segment=1, frames_per_step=1, remainder="drop-tail")
    spec = resolve(StreamSpec(extractor=f"transformers:{folder}", sampling=sampling))
    assert spec.weights == {"network": f"transformers:{folder}"}


def test_a_checkpoint_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_checkpoint(tmp_path / "vit", "vit", seed=1)
    tensors = {name: value for name, value in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    checkpoint = find_checkpoint(str(folder)).with_digest()
    with pytest.raises(WeightsError, match=r'lacks tensors of its network \(pooler.*set output = "cls" or "patches"'):
        extractor_for(f"transformers:{folder}", checkpoint)
    assert row_of(extractor_for(f"transformers:{folder}", checkpoint, output="cls"), picture_frames(1)).shape == (32,)


@pytest.mark.parametrize(
    ("config", "processing", "complaint"),
    [
        ({"model_type": "internvideo", "auto_map": {"AutoModel": "x.Y"}}, {}, "needs code of its repository, which is"),
        ({"model_type": "nothing"}, {}, "does not implement model type 'nothing'"),
        ({"model_type": "bert"}, {}, "has no processor of images, videos or audio"),
        (
            {"model_type": "bert", "hidden_size": 32, "num_attention_heads": 2},
            processor("ViTImageProcessor"),
            "no tower",
        ),
        (
            {"model_type": "dinov2", **PICTURES},
            processor("BitImageProcessor", do_pad=True, pad_size={"height": 48, "width": 48}),
            "BitImageProcessor does more than resize, crop and normalize",
        ),
        ({"model_type": "dinov2", **PICTURES}, processor("BitImageProcessor", resample=1), "cannot be reproduced"),
    ],
)
def test_an_unusable_checkpoint_is_an_error_of_one_line(
    tmp_path: Path, config: dict[str, Any], processing: dict[str, Any], complaint: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if processing:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processing))
    with pytest.raises(ConfigError, match=complaint) as caught:
        extractor_kind(f"transformers:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_unknown_names_are_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name, complaint in (
        ("transformers:nobody/nothing", "is not on this machine, and the hub cannot be reached"),
        ("transformers:a/b/c/d", "is not a repository name"),
        ("transformers:./nowhere", "this folder does not exist"),
        ("transformers", "write transformers:NAME or a path"),
        ("torchvision:convnext_tini", "did you mean convnext_tiny"),
        ("torchvision:resnet50.IMAGENET1K_V9", "there are IMAGENET1K_V1, IMAGENET1K_V2"),
        ("torchvision", "NAME is an image or video classifier"),
    ):
        with pytest.raises(ConfigError, match=complaint) as caught:
            extractor_kind(name)
        assert "\n" not in str(caught.value)


def test_a_clip_length_that_the_network_cannot_take_is_answered_with_those_it_can(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "videomae", "videomae")
    for name, frames, lengths in (
        (f"transformers:{folder}", 5, "4 frames"),
        ("torchvision:mvit_v2_s", 8, "16 frames"),
        ("pytorchvideo:slowfast_r50", 6, "at least 4 frames, a multiple of 4"),
        ("i3d_rgb", 8, "at least 9 frames"),
    ):
        sampling = Sampling(fps=5, frames_per_segment=frames, frames_per_step=frames, remainder="drop-tail")
        spec = StreamSpec(extractor=name, sampling=sampling, weights={"network": "any"})
        with pytest.raises(ConfigError, match=rf"takes {lengths}, not {frames}; set sampling.frames_per_segment"):
            resolve(spec)


def test_a_picture_size_that_the_network_cannot_take_is_named() -> None:
    sampling = Sampling(fps=5, frames_per_segment=1, frames_per_step=1, remainder="drop-tail")
    spec = StreamSpec(extractor="torchvision:vit_b_16", sampling=sampling, settings=SMALL)
    with pytest.raises(ConfigError, match=r"takes pictures of 224 × 224 px; set settings.geometry"):
        resolve(spec)


def test_a_resolved_stream_pins_its_checkpoint() -> None:
    """Another version of the package may have other defaults."""
    sampling = Sampling(fps=5, frames_per_segment=1, frames_per_step=1, remainder="drop-tail")
    resolved = resolve(StreamSpec(extractor="torchvision:resnet50", sampling=sampling))
    pinned = "torchvision:resnet50.IMAGENET1K_V2"
    assert (resolved.extractor, resolved.weights) == (pinned, {"network": pinned})
    assert resolve(resolved) == resolved
    own = resolve(StreamSpec(extractor="torchvision:resnet50", sampling=sampling, weights={"network": "mine"}))
    assert own.extractor == "torchvision:resnet50"


def test_torchvision_rows_are_the_input_of_its_last_layer() -> None:
    """With torchvision's own preset for the pixels."""
    card = extractor_kind("torchvision:resnet18")
    assert isinstance(card, NetworkCard)
    assert card.default_weights == "torchvision:resnet18.IMAGENET1K_V1"
    torch.manual_seed(0)
    network = models.resnet18().eval()
    seen: list[Tensor] = []
    network.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames = picture_frames(1)
    with torch.inference_mode():
        network(models.ResNet18_Weights.IMAGENET1K_V1.transforms()(frames))
    found = row_of(extractor_for("torchvision:resnet18", RandomWeights(0)), frames)
    assert card.dim == len(found) == 512
    assert (found - seen[0][0]).abs().max() <= SAME_PIXELS * found.abs().max()


@pytest.mark.parametrize("name", ["r2plus1d_18", "swin3d_t", "convnext_tiny"])
def test_pixels_are_those_of_torchvisions_preset(name: str) -> None:
    card = extractor_kind(f"torchvision:{name}")
    assert isinstance(card, NetworkCard)
    frames = picture_frames(2)
    expected = models.get_model_weights(name)["DEFAULT"].transforms()(frames)
    found = normalize(apply_geometry(frames, card.geometry), card.normalization)
    torch.testing.assert_close(found.transpose(0, 1) if card.input == "clip" else found, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*models.list_models(module=models), *models.list_models(module=models.video)])
def test_every_network_of_torchvision_has_a_card(name: str) -> None:
    card = extractor_kind(f"torchvision:{name}")
    assert isinstance(card, NetworkCard)
    assert card.dim >= 400  # RegNet X 400MF has the fewest
    sampling = Sampling(
        fps=5,
        frames_per_segment=card.clip_lengths.at_least,
        frames_per_step=card.clip_lengths.at_least,
        remainder="drop-tail",
    )
    assert resolve(StreamSpec(extractor=f"torchvision:{name}", sampling=sampling)).weights


@pytest.mark.slow
def test_timm_rows_are_its_features(save_checkpoint: Any) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", pretrained=False).eval()
    frames = picture_frames(1)
    checkpoint = save_checkpoint(theirs.state_dict(), "timm")
    assert isinstance(checkpoint, CheckpointFile)
    found = row_of(extractor_for("timm:resnet18", checkpoint), frames)
    facts = timm.data.resolve_model_data_config(theirs)
    transform = timm.data.create_transform(**facts, is_training=False)
    from torchvision.transforms.functional import to_pil_image

    with torch.inference_mode():
        pixels = transform(to_pil_image(frames[0]))[None]
        expected = theirs.forward_head(theirs.forward_features(pixels), pre_logits=True)[0]
    assert (found - expected).abs().max() <= SAME_PIXELS * expected.abs().max()


def test_a_folder_without_tensors_names_the_command(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "clip", "clip")
    with pytest.raises(WeightsError, match=r"has no model\.safetensors; `arabesque weights fetch transformers:"):
        CheckpointFolder(str(folder), folder).with_digest()


@pytest.mark.slow
def test_five_families_are_extracted_from_one_video_in_one_pass(tmp_path: Path) -> None:
    """From a file to rows, with the processor's own pixels of the decoded frames."""
    from clips import Clip, write_clip

    import arabesque

    names = ["dinov2", "clip", "siglip", "videomae", "vjepa2"]
    streams = [
        f"""[streams.{name}]
extractor = "transformers:{write_checkpoint(tmp_path / name, name, seed=1)}"
sampling = {{ frames_per_segment = {FAMILIES[name].frames}, frames_per_step = {FAMILIES[name].frames} }}
"""
        for name in names
    ]
    recipe = tmp_path / "five.toml"
    recipe.write_text(
        'name = "five"\nsummary = "five networks"\n[sampling]\nfps = 5\nframes_per_segment = 4\nframes_per_step = 4\n'
        'remainder = "drop-tail"\n' + "".join(streams)
    )
    video = write_clip(tmp_path / "clip.mp4", Clip(num_frames=50))
    features = arabesque.extract(video, recipe=str(recipe))
    for name in names:
        assert features[name].values.shape == (10 // FAMILIES[name].frames, 32)
        assert np.isfinite(features[name].values).all()
        assert features[name].key != arabesque.extract(video, recipe=str(recipe), weights="random:0")[name].key
