from __future__ import annotations

import pytest

from arabesque.manifests.streams import Sampling, StreamSpec
from arabesque.pipeline.keys import row_key, settings_digest

SAMPLING = Sampling(fps=5.0, frames_per_segment=16, frames_per_step=16, remainder="drop-tail")


def spec(**changes) -> StreamSpec:
    fields = {"extractor": "i3d_rgb", "sampling": SAMPLING, "weights": {"network": "i3d_rgb_k400"}} | changes
    return StreamSpec(**fields)


WEIGHTS = {"network": "ab" * 32}


def test_digests_are_the_same_on_every_platform_and_in_every_release():
    settings = settings_digest(spec(settings={"eps": 1e-3, "side": 224, "gray": False}), WEIGHTS, 1)
    assert settings == "ea20cdddde6500b19c8603fb7e207e97"
    assert row_key("cd" * 32, settings) == "51cb0c21a8f488079a836c3a21e54c2e"


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
def test_whatever_changes_the_numbers_changes_the_digest(other):
    assert settings_digest(*other) != settings_digest(spec(), WEIGHTS, 1)


def test_content_and_settings_both_make_the_key():
    assert len({row_key("a", "b"), row_key("b", "a"), row_key("a", "a"), row_key("aa", "b")}) == 4


def test_a_checkpoint_without_a_digest_is_refused():
    with pytest.raises(ValueError, match="i3d_rgb: no checkpoint digest for weight role network"):
        settings_digest(spec(), {}, 1)


def test_not_a_number_has_no_digest():
    with pytest.raises(ValueError, match="JSON"):
        settings_digest(spec(settings={"eps": float("nan")}), WEIGHTS, 1)
