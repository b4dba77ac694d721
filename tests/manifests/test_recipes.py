"""Recipes: what is read, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from arabesque.manifests.errors import ManifestError
from arabesque.manifests.recipes import list_recipes, load_recipe, parse_recipe

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


def test_the_promised_recipes_are_there_and_named_like_their_files():
    assert {"starter", "pamfn", "action-net", "gdlt", "everything"} <= set(list_recipes())
    assert all(load_recipe(name).name == name for name in list_recipes())


def test_pamfn_has_its_three_streams_on_one_grid():
    streams = load_recipe("pamfn").streams
    assert set(streams) == {"vst", "i3d_flow", "ast"}
    assert all(stream.sampling == streams["vst"].sampling for stream in streams.values())


def test_action_net_samples_as_the_paper_says():
    streams = load_recipe("action-net").streams
    assert (streams["i3d_rgb"].sampling.fps, streams["i3d_rgb"].sampling.frames_per_segment) == (5, 16)
    assert streams["resnet_crop"].sampling.fps == 1


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
    with pytest.raises(ManifestError, match=r"mine\.toml") as raised:
        parse_recipe(GOOD.replace(good, bad), "mine.toml")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ManifestError, match=r"did you mean pamfn\?.*action-net"):
        load_recipe("pamnf")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ManifestError, match=r"gone\.toml: cannot read"):
        load_recipe(str(tmp_path / "gone.toml"))
