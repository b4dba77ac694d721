from __future__ import annotations

import pytest

from arabesque.extractors.table import extractor_kind, resolve, resolved_recipe
from arabesque.manifests.recipes import load_recipe
from arabesque.manifests.streams import Sampling, StreamSpec
from arabesque.pipeline.digests import row_key, settings_digest

SAMPLING = Sampling(fps=5.0, frames_per_segment=16, frames_per_step=16, remainder="drop-tail")


def spec(**changes) -> StreamSpec:
    fields = {"extractor": "i3d_rgb", "sampling": SAMPLING, "weights": {"network": "i3d_rgb_k400"}} | changes
    return StreamSpec(**fields)


WEIGHTS = {"network": "ab" * 32}


def test_digests_are_the_same_on_every_platform_and_in_every_release():
    settings = settings_digest(spec(settings={"eps": 1e-3, "side": 224, "gray": False}), WEIGHTS, 1)
    assert settings == "ea20cdddde6500b19c8603fb7e207e97"
    assert row_key("cd" * 32, settings) == "51cb0c21a8f488079a836c3a21e54c2e"


@pytest.mark.parametrize(
    ("recipe", "digest"),
    [
        ("action-net-paper", "1f06592790a5030305b9657cc760c03a"),
        ("action-net-released", "108142b529bf3c841890ae15d33f0616"),
    ],
)
def test_later_settings_of_the_athlete_leave_the_keys_of_earlier_stores_as_they_are(recipe: str, digest: str) -> None:
    """The first `action-net-paper` had YOLOv8n in place of YOLOv3."""
    resolved = resolve(load_recipe(recipe).streams["resnet_crop"])
    resolved = resolved.model_copy(
        update={
            "settings": resolved.settings | {"detector": "ultralytics"},
            "weights": resolved.weights | {"detector": "yolov8n"},
        }
    )
    assert resolved.settings["athlete"] == "largest"
    weights = {"network": "ab" * 32, "detector": "cd" * 32}
    assert settings_digest(resolved, weights, extractor_kind("resnet_crop").version) == digest
    followed = resolved.model_copy(update={"settings": resolved.settings | {"athlete": "track"}})
    assert settings_digest(followed, weights, 1) != digest
    other = resolved.model_copy(update={"settings": resolved.settings | {"detector": "yolov3"}})
    assert settings_digest(other, weights, 1) != digest
    pair = resolved.model_copy(update={"settings": resolved.settings | {"num_athletes": 2}})
    assert settings_digest(pair, weights, 1) != digest


def test_whole_floats_and_integers_are_one_number_but_true_is_not_one():
    assert settings_digest(spec(settings={"eps": 1}), WEIGHTS, 1) == settings_digest(
        spec(settings={"eps": 1.0}), WEIGHTS, 1
    )
    assert settings_digest(spec(settings={"eps": 1}), WEIGHTS, 1) != settings_digest(
        spec(settings={"eps": True}), WEIGHTS, 1
    )


def test_order_does_not_matter():
    one = settings_digest(spec(settings={"a": 1, "b": {"c": 2, "d": 3}}), WEIGHTS, 1)
    assert one == settings_digest(spec(settings={"b": {"d": 3, "c": 2}, "a": 1}), WEIGHTS, 1)


@pytest.mark.parametrize(
    "other",
    [
        (spec(sampling=SAMPLING.model_copy(update={"fps": 2.0})), WEIGHTS, 1),
        (spec(precision="float16"), WEIGHTS, 1),
        (spec(settings={"eps": 1e-3}), WEIGHTS, 1),
        (spec(), {"network": "ac" * 32}, 1),
        (spec(), {"network": "random:0"}, 1),
        (spec(), WEIGHTS, 2),
    ],
)
def test_every_setting_that_changes_features_changes_the_digest(other):
    assert settings_digest(*other) != settings_digest(spec(), WEIGHTS, 1)


def test_content_and_settings_both_make_the_key():
    assert len({row_key("a", "b"), row_key("b", "a"), row_key("a", "a"), row_key("aa", "b")}) == 4


def test_a_checkpoint_without_a_digest_is_refused():
    with pytest.raises(ValueError, match="i3d_rgb: no checkpoint digest for weight role network"):
        settings_digest(spec(), {}, 1)


def test_nan_has_no_digest():
    with pytest.raises(ValueError, match="JSON"):
        settings_digest(spec(settings={"eps": float("nan")}), WEIGHTS, 1)


def test_settings_that_were_added_later_keep_the_digests_of_stores_made_before():
    """The digest is that of commit 663f00c, which had none of them."""
    recipe = resolved_recipe(load_recipe("gdlt")).streams["vst"]
    digest = settings_digest(recipe, {"network": "x"}, 1)
    assert digest == "40350f61311bd094d8f58c109fbc8360"
    for changed in ({"pixel_aspect": "display"}, {"deinterlace": "bwdif"}, {"audio_track": 1}, {"audio_track": "eng"}):
        assert settings_digest(recipe.model_copy(update=changed), {"network": "x"}, 1) != digest
    resized_by_pil = resolved_recipe(load_recipe("gdlt-released")).streams["vst"]
    assert settings_digest(resized_by_pil, {"network": "x"}, 1) != digest


def test_settings_under_their_earlier_spelling_have_the_same_digest() -> None:
    """The first stores spell two settings in the British way; their recipes and keys stay valid."""
    earlier = spec(settings={"quantisation": {"form": "denseflow8"}, "padding": "after-normalisation"})
    today = spec(settings={"quantization": {"form": "denseflow8"}, "padding": "after-normalization"})
    assert earlier == today
    assert (
        settings_digest(today, WEIGHTS, 1) == "111d7935505f7bd13c40a8471959ea24"
    )  # computed before the settings were renamed
