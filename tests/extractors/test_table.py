"""The table: names, variants and settings are checked before anything is built."""

from __future__ import annotations

from typing import Any

import pytest

from arabesque.extractors.table import resolve
from arabesque.manifests.errors import ManifestError
from arabesque.manifests.streams import Sampling, StreamSpec

SAMPLING = Sampling(fps="native", frames_per_segment=32, frames_per_step=32, remainder="drop-tail")


def spec(extractor: str, weights: dict[str, str] | None = None, **settings: Any) -> StreamSpec:
    return StreamSpec(extractor=extractor, sampling=SAMPLING, weights=weights or {}, settings=settings)


def test_a_resolved_spec_leaves_no_setting_implicit():
    resolved = resolve(spec("i3d_rgb", {"network": "i3d_rgb_k400"}))
    assert resolved.settings["batch_norm_eps"] == 1e-3
    assert resolved.settings["geometry"]["steps"][0] == {"short_side_px": 256, "antialias": "as-geometry"}
    assert resolve(resolved) == resolved


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (spec("i4d"), "extractor 'i4d' is not known; there are ast, i3d_flow"),
        (spec("pytorchvideo:x4d", {"network": "x3d_m_k400"}), "pytorchvideo:NAME with one of .*x3d_m"),
        (spec("pytorchvideo", {"network": "x3d_m_k400"}), "pytorchvideo:NAME with one of"),
        (spec("motion:fast"), "motion has no variants; write 'motion'"),
        (spec("i3d_rgb"), r"weights must name \['network'\], not nothing"),
        (spec("motion", {"network": "yolov8n"}), r"weights must name nothing, not \['network'\]"),
        (spec("i3d_rgb", {"network": "x"}, batch_norm_eps="small"), r"settings\.batch_norm_eps: .* \(got 'small'\)"),
        (spec("i3d_rgb", {"network": "x"}, epsilon=1), r"settings\.epsilon"),
    ],
)
def test_what_does_not_fit_is_named(wrong, complaint):
    with pytest.raises(ManifestError, match=complaint):
        resolve(wrong)
