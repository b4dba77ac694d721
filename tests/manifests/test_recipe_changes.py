"""Settings that are changed when a recipe is loaded: ``--set``, ``--weights STREAM.ROLE=NAME``, ``--precision``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from arabesque.cli.recipe_text import field_text, recipe_text
from arabesque.extractors.table import resolved_recipe
from arabesque.manifests.errors import ConfigError, InputError
from arabesque.manifests.recipe_changes import changes_text, parse_change
from arabesque.manifests.recipes import Recipe, list_recipes, load_recipe, named_weights, parse_recipe
from arabesque.manifests.streams import Sampling, StreamSpec
from arabesque.pipeline.streams import chosen_weights, random_override

FRAMES = "streams.vst.sampling.frames_per_segment"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=16", 16),
        ("a.b = 1.5", 1.5),
        ("a.b=true", True),
        ("a.b=dis", "dis"),
        ('a.b="two words"', "two words"),
        ("a.b=[1, 2]", [1, 2]),
        ('a.b={method="dis", preset="fast"}', {"method": "dis", "preset": "fast"}),
        ("a.b=random:0", "random:0"),
        ("a.b=x=y", None),
        ("a.b=", None),
        ("a b=1", None),
        ("a..b=1", None),
        ("=1", None),
        ("a.b", None),
        ("a.b=two words", None),
    ],
)
def test_a_change_is_a_key_and_a_toml_value(text: str, value: Any):
    if value is None:
        with pytest.raises(ConfigError, match="is not"):
            parse_change(text)
    else:
        assert parse_change(text) == ("a.b", value)
        (option, quoted) = shlex.split(changes_text({"a.b": value}))
        assert (option, parse_change(quoted)) == ("--set", ("a.b", value))


def test_only_the_given_setting_changes_and_the_name_depends_on_it():
    plain, changed = load_recipe("pamfn"), load_recipe("pamfn", changes={FRAMES: 16})
    assert changed.streams["vst"].sampling == plain.streams["vst"].sampling.model_copy(
        update={"frames_per_segment": 16}
    )
    assert {name: spec for name, spec in changed.streams.items() if name != "vst"} == {
        name: spec for name, spec in plain.streams.items() if name != "vst"
    }
    assert changed.changes == {FRAMES: 16}
    base, _, digits = changed.name.partition("+")
    assert (base, len(digits)) == ("pamfn", 4)


def test_the_name_is_the_same_for_the_same_recipe_however_it_was_written():
    names = [
        load_recipe("pamfn", changes=changes).name
        for changes in (
            {FRAMES: 16, "streams.vst.sampling.fps": 25},
            {"streams.vst.sampling.fps": 25.0, FRAMES: 16},
            {"streams.vst.sampling": {"fps": 25, "frames_per_segment": 16}},
        )
    ]
    assert len(set(names)) == 1
    assert load_recipe("pamfn", changes={FRAMES: 32}).name == "pamfn"
    assert load_recipe("pamfn", changes={FRAMES: 8}).name != load_recipe("pamfn", changes={FRAMES: 16}).name


def test_the_shared_grid_and_the_precision_change_all_streams():
    assert {spec.sampling.fps for spec in load_recipe("pamfn", changes={"sampling.fps": 25}).streams.values()} == {25}
    streams = load_recipe("everything", precision="bfloat16").streams
    assert {name for name, spec in streams.items() if spec.precision == "float32"} == {"motion", "rhythm"}
    family = load_recipe("video-features-r21d", precision="float16")  # names no checkpoint, but has a network
    assert {spec.precision for spec in family.streams.values()} == {"float16"}
    with pytest.raises(ConfigError, match="no stream has a network"):
        load_recipe("starter", precision="bfloat16")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"streams.vts.sampling.fps": 1}, r"stream 'vts' is not known.*did you mean vst\?"),
        ({"streams.sound.sampling.fps": 1}, r"stream 'sound' is not known; it has vst, i3d_flow, ast"),
        ({"streams.vst.samplng.fps": 1}, r"streams\.vst\.samplng: this key is not known.*did you mean sampling\?"),
        ({"streams.vst.sampling.fpss": 1}, r"streams\.vst\.sampling\.fpss: .*.*did you mean fps\?"),
        ({"samplng.fps": 1}, r"samplng: this key is not known.*did you mean sampling\?"),
        ({"streams.vst.sampling.fps": -1}, r"streams\.vst\.sampling\.fps: .*\(got -1\)"),
        ({"streams.vst.extractor.x": 1}, r'streams\.vst\.extractor is "video_swin_b", not a table'),
        ({"streams.vst.settings.geometri": 1}, r"streams\.vst: .*geometri: .*.*did you mean geometry\?"),
        ({"streams.i3d_flow.settings.flow.warp": 1}, r"streams\.i3d_flow: .*warp: .*.*did you mean warps\?"),
        ({"streams.vst.weights.netwrok": "x"}, r"streams\.vst: .*weights\.netwrok.*did you mean network\?"),
        ({"streams.vst": 1}, "is a table; set a key of it"),
        ({"name": "mine"}, "name cannot be set"),
    ],
)
def test_a_wrong_change_names_file_stream_and_key(changes: dict[str, Any], complaint: str):
    with pytest.raises(ConfigError, match=rf"^recipes/pamfn\.toml.*{complaint}"):
        resolved_recipe(load_recipe("pamfn", changes=changes))


def test_a_name_with_digits_says_how_to_get_it():
    with pytest.raises(ConfigError, match="give --recipe pamfn and the same --set"):
        load_recipe("pamfn+3f2a")


def test_random_weights_of_some_roles():
    changes = {"streams.resnet_crop.weights.detector": "yolov8n", "streams.i3d_rgb.weights.network": "random:7"}
    recipe = load_recipe("action-net", changes=changes)
    assert named_weights(recipe, recipe.streams, None) == {
        "i3d_rgb": {"network": "random:7"},
        "resnet_crop": {"network": "resnet50_imagenet", "detector": "yolov8n"},
    }
    names = named_weights(recipe, recipe.streams, "random:0")
    assert names == {
        "i3d_rgb": {"network": "random:7"},
        "resnet_crop": {"network": "random:0", "detector": "yolov8n"},
    }
    assert random_override(recipe, names) == "random:0"
    assert random_override(recipe, named_weights(recipe, recipe.streams, None)) is None
    found = chosen_weights(recipe, {"i3d_rgb": recipe.streams["i3d_rgb"]}, None)
    assert found["i3d_rgb"]["network"].digest == "random:7"
    with pytest.raises(InputError, match="give random:SEED"):
        chosen_weights(recipe, recipe.streams, "rnd")


def test_the_printed_recipe_is_the_recipe_and_explains_its_fields(tmp_path: Path):
    recipe = load_recipe("pamfn", changes={FRAMES: 16, "streams.ast.weights.network": "random:0"})
    text = recipe_text(recipe)
    assert parse_recipe(text, "printed") == resolved_recipe(recipe)
    (tmp_path / "printed.toml").write_text(text, encoding="utf-8")
    assert recipe_text(load_recipe(str(tmp_path / "printed.toml"))) == text
    again = load_recipe(str(tmp_path / "printed.toml"), changes={"streams.vst.precision": "bfloat16"})
    assert again.name.startswith("pamfn+")
    assert again.name != recipe.name
    lines = text.splitlines()
    place = lines.index("frames_per_segment = 16")
    assert lines[place - 1] == "# Number of sampled frames in one segment. A segment has one row."
    assert max(len(line) for line in lines if line.startswith("#")) <= 80


@pytest.mark.parametrize("name", [name for name in list_recipes() if name != "video-features-timm"])
def test_every_field_of_a_printed_recipe_has_an_explanation(name: str):
    """timm's networks need timm, which is optional."""
    recipe = load_recipe(name)
    if any(spec.extractor.startswith("transformers:") for spec in recipe.streams.values()):
        pytest.skip("its networks need files of the hub")
    previous = ""
    keys = dict[str, str]()
    for line in recipe_text(recipe).splitlines():
        if line and not line.startswith(("[", " ", "#", "]")):
            keys.setdefault(line.partition(" = ")[0], previous)
        previous = line
    known_by_place = {"network", "detector", "flow", "short_side_px", "center_crop_px", "size_px", "height_px"}
    known_by_place |= {"steps", "antialias", "odd_margin", "one_factor"}  # explained at the first list of steps
    assert [key for key, before in keys.items() if not before.startswith("#") and key not in known_by_place] == []


def test_every_field_of_the_shared_records_has_an_explanation():
    for record in (Recipe, StreamSpec, Sampling):
        assert [name for name in record.model_fields if not field_text(record, name)] == ["streams", "weights"] * (
            record is Recipe
        )
