"""A recipe's ``flow``: each method has its own options, and every one of them is part of a stream's key."""

from __future__ import annotations

from typing import Any

import pytest

from arabesque.extractors.optical_flow import METHODS
from arabesque.extractors.table import resolve
from arabesque.manifests.errors import ConfigError
from arabesque.manifests.streams import Sampling, StreamSpec
from arabesque.pipeline.digests import settings_digest

SAMPLING = Sampling(fps="native", frames_per_segment=32, frames_per_step=32, remainder="drop-tail")


def resolved(flow: dict[str, Any] | None = None, **settings: Any) -> StreamSpec:
    settings = settings if flow is None else {"flow": flow, **settings}
    roles = METHODS[flow["method"] if flow else "dis"].weight_roles
    weights = {"network": "any"} | dict.fromkeys(roles, "any")
    return resolve(StreamSpec(extractor="i3d_flow", sampling=SAMPLING, weights=weights, settings=settings))


def key(spec: StreamSpec) -> str:
    return settings_digest(spec, dict.fromkeys(spec.weights, "0"), 1)


@pytest.mark.parametrize("method", METHODS)
def test_explicit_defaults_do_not_change_the_key(method: str) -> None:
    plain = resolved({"method": method})
    assert key(resolved(plain.settings["flow"])) == key(plain)
    assert key(resolve(plain)) == key(plain)


def test_every_option_of_every_method_is_part_of_the_key() -> None:
    flows: list[dict[str, Any]] = [
        {"method": "dis"},
        {"method": "dis", "preset": "fast"},
        {"method": "farneback"},
        {"method": "tvl1"},
        {"method": "tvl1", "variant": "opencv4"},
        {"method": "tvl1", "variant": "cuda"},
        {"method": "tvl1", "mode": "fast"},
        {"method": "tvl1", "median_px": 3},
        {"method": "tvl1", "scales": 4},
        {"method": "tvl1", "warps": 4},
        {"method": "tvl1", "inner_iterations": 29},
        {"method": "tvl1", "outer_iterations": 9},
        {"method": "tvl1", "epsilon": 0.02},
        {"method": "tvl1", "kernel": "torch"},
        {"method": "raft"},
        {"method": "raft", "model": "raft_small"},
        {"method": "raft", "iterations": 20},
    ]
    quantizations: list[dict[str, Any]] = [
        {"form": "none"},
        {"form": "denseflow8"},
        {"form": "denseflow8", "bound_px": 32},
        {"form": "denseflow8", "jpeg_quality": 95},
        {"form": "video-features"},
    ]
    keys = [key(resolved(flow)) for flow in flows] + [key(resolved(quantization=form)) for form in quantizations]
    assert len(set(keys)) == len(keys)


def test_the_plain_settings_are_dis_as_the_network_was_trained() -> None:
    assert key(resolved()) == key(resolved({"method": "dis", "preset": "medium"}, quantization={"form": "clamp20"}))


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gets_gray_or_color_frames_as_it_needs(method: str) -> None:
    """This is the default. Other frames would silently give the flow of one channel, or invalid input of a network."""
    gray = not METHODS[method].color
    assert resolved({"method": method}).settings["geometry"]["gray"] is gray
    complaint = f"{method} is computed on {'gray' if gray else 'color'} frames; set gray = {str(gray).lower()}"
    with pytest.raises(ConfigError, match=rf"i3d_flow: settings: .*{complaint}"):
        resolved({"method": method}, geometry={"steps": [], "gray": not gray})


@pytest.mark.parametrize(
    ("flow", "complaint"),
    [
        ({"method": "tvl2"}, r"settings\.flow: .*'tvl2'"),
        ({"preset": "fast"}, r"settings\.flow: .*method"),
        ({"method": "farneback", "preset": "fast"}, r"settings\.flow\.farneback\.preset: this key is not known"),
        ({"method": "raft", "iterations": 0}, r"settings\.flow\.raft\.iterations"),
    ],
)
def test_a_wrong_option_is_named_with_its_place(flow: dict[str, Any], complaint: str) -> None:
    spec = StreamSpec(extractor="i3d_flow", sampling=SAMPLING, weights={"network": "any"}, settings={"flow": flow})
    with pytest.raises(ConfigError, match=complaint):
        resolve(spec)


@pytest.mark.parametrize(
    ("method", "weights", "wanted"),
    [
        ("raft", {"network": "any"}, r"\['flow', 'network'\]"),
        ("dis", {"network": "any", "flow": "any"}, r"\['network'\]"),
    ],
)
def test_only_raft_has_weights_of_its_own(method: str, weights: dict[str, str], wanted: str) -> None:
    spec = StreamSpec(extractor="i3d_flow", sampling=SAMPLING, weights=weights, settings={"flow": {"method": method}})
    with pytest.raises(ConfigError, match=f"weights must name {wanted}"):
        resolve(spec)
