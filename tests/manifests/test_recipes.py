"""Recipes: their contents, and the messages for wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from arabesque.extractors.table import resolved_recipe
from arabesque.manifests.errors import ConfigError
from arabesque.manifests.recipes import list_recipes, load_recipe, parse_recipe

README = Path(__file__).parents[2] / "manifests" / "recipes" / "README.md"

GOOD = """
name = "mine"
summary = "two streams"
[sampling]
fps = "native"
frames_per_segment = 32
frames_per_step = 32
remainder = "drop-tail"
[streams.slow]
extractor = "motion"
sampling = { fps = 5 }
[streams.plain]
extractor = "motion"
"""


def test_documented_recipes_exist_and_are_named_like_their_files():
    assert {"starter", "pamfn", "action-net", "gdlt", "everything", "video-features-i3d"} <= set(list_recipes())
    assert all(load_recipe(name).name == name for name in list_recipes())


def test_pamfn_has_its_three_streams_on_one_grid():
    streams = load_recipe("pamfn").streams
    assert set(streams) == {"vst", "i3d_flow", "ast"}
    assert all(stream.sampling == streams["vst"].sampling for stream in streams.values())


def test_action_net_samples_as_the_paper_says():
    streams = load_recipe("action-net").streams
    assert (streams["i3d_rgb"].sampling.fps, streams["i3d_rgb"].sampling.frames_per_segment) == (5, 16)
    assert streams["resnet_crop"].sampling.fps == 1


@pytest.mark.parametrize("method", ["action-net", "pamfn", "gdlt"])
def test_every_variant_of_a_method_has_its_streams_and_checkpoints(method):
    """Otherwise features of two variants could not be compared. ACTION-NET's paper uses another detector."""
    plain = load_recipe(method).streams
    for variant in ("paper", "released"):
        streams = load_recipe(f"{method}-{variant}").streams
        weights = {name: dict(spec.weights) for name, spec in streams.items()}
        if (method, variant) == ("action-net", "paper"):
            assert weights["resnet_crop"].pop("detector") == "yolov3"
            weights["resnet_crop"]["detector"] = "yolov8n"
        assert {name: (spec.extractor, weights[name]) for name, spec in streams.items()} == {
            name: (spec.extractor, spec.weights) for name, spec in plain.items()
        }


def test_released_recipes_keep_the_published_quirks():
    """The values in docs/provenance.md."""
    net, pamfn, gdlt = (load_recipe(f"{method}-released").streams for method in ("action-net", "pamfn", "gdlt"))
    dynamic, static = net["i3d_rgb"], net["resnet_crop"]
    assert (dynamic.sampling.fps, dynamic.sampling.frame_choice) == (5, "integer-stride")
    assert dynamic.sampling.zero_last_frame
    assert static.sampling.frame_choice == "integer-stride-of-whole-rate"
    assert static.settings["no_person"] == "drop"
    assert static.settings["normalization"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert "fc_bias_seed" in static.settings
    assert dynamic.settings["batch_norm_eps"] == pamfn["i3d_flow"].settings["batch_norm_eps"] == 1e-5
    assert (gdlt["vst"].sampling.remainder, pamfn["vst"].sampling.remainder) == ("drop-both", "drop-tail")
    assert pamfn["ast"].precision == "float16"
    assert pamfn["ast"].settings == {
        "rate_hz": 16000,
        "resampler": "sinc-hann",
        "windows": "equal-split",
        "remove_mean": True,
        "channel": "first",
        "told_rate_hz": 48000,
        "input_frames": 41,
        "mean": 4.26,
        "std": 4.57,
        "padding": "after-normalization",
        "layer_norm_eps": 1e-6,
    }
    assert pamfn["i3d_flow"].settings["flow_geometry"] == pamfn["vst"].settings["geometry"]


@pytest.mark.parametrize(("method", "title"), [("action-net", "ACTION-NET"), ("pamfn", "PAMFN"), ("gdlt", "GDLT")])
def test_the_readme_lists_every_difference_between_the_variants(method: str, title: str):
    variants = [settings_of(f"{method}{suffix}") for suffix in ("-paper", "-released", "")]
    names = dict.fromkeys(name for variant in variants for name in variant)
    values = {name: [variant.get(name, "") for variant in variants] for name in names}
    different = {name: of_variants for name, of_variants in values.items() if len(set(of_variants)) > 1}
    section = README.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in section.splitlines() if line.startswith("| `")]
    assert {name.strip("`"): of_variants for name, *of_variants in rows} == different


def settings_of(recipe: str) -> dict[str, str]:
    streams = resolved_recipe(load_recipe(recipe)).model_dump(mode="json", exclude_none=True)["streams"]
    return {name.replace(".settings.", "."): text for name, text in leaves(streams)}


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}" if name else key)
    elif name.endswith(".steps"):
        yield name, ", ".join(map(step_text, value)) or "as decoded"
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    else:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def step_text(step: dict[str, Any]) -> str:
    words = {"short_side_px": "short side", "height_px": "height", "center_crop_px": "crop", "size_px": "resize"}
    [name] = words.keys() & step.keys()
    size = step[name] if isinstance(step[name], list) else [step[name]]
    return f"{words[name]} {' × '.join(map(str, size))}"


def test_gdlts_plain_recipe_differs_from_the_released_one_in_the_resize():
    plain, released = (resolved_recipe(load_recipe(name)).streams["vst"] for name in ("gdlt", "gdlt-released"))
    assert released.settings["geometry"].pop("resize_arithmetic") == "pil"
    assert plain.settings["geometry"].pop("resize_arithmetic") == "torch"
    assert plain == released


def test_recipes_resolve_to_toml_that_reads_back():
    """What `arabesque recipes NAME` prints is a recipe itself, with nothing left implicit."""
    for name in list_recipes():
        if any(stream.extractor.startswith("transformers:") for stream in load_recipe(name).streams.values()):
            continue  # resolved with the configuration of the checkpoint, which is on the hub
        resolved = resolved_recipe(load_recipe(name))
        printed = tomli_w.dumps(resolved.model_dump(mode="json", exclude_none=True))
        assert parse_recipe(printed, name) == resolved


def test_a_stream_changes_single_fields_of_the_grid():
    streams = parse_recipe(GOOD, "mine.toml").streams
    assert streams["slow"].sampling.fps == 5
    assert streams["slow"].sampling.frames_per_segment == 32
    assert streams["plain"].sampling.fps == "native"


@pytest.mark.parametrize(
    ("good", "bad", "complaint"),
    [
        ("fps = 5", "fsp = 5", "streams.slow.sampling.fsp: this key is not known"),
        ('summary = "two streams"', 'sumary = "x"', "summary"),
        ("frames_per_step = 32", "frames_per_step = 0", "frames_per_step"),
        ('remainder = "drop-tail"', 'remainder = "drop"', "remainder"),
        ("[streams.slow]", "[streams.Slow-1]", "Slow-1"),
        ('name = "mine"', "name = ", "not valid TOML"),
        ('fps = "native"', 'fps = "fast"', "fps"),
    ],
)
def test_a_wrong_recipe_is_named_with_its_place(good, bad, complaint):
    assert good in GOOD
    with pytest.raises(ConfigError, match=r"mine\.toml") as raised:
        parse_recipe(GOOD.replace(good, bad), "mine.toml")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"did you mean pamfn\?.*action-net"):
        load_recipe("pamnf")


def test_a_missing_file_is_reported_with_its_path(tmp_path):
    with pytest.raises(ConfigError, match=r"gone\.toml: the file does not exist"):
        load_recipe(str(tmp_path / "gone.toml"))
