"""The table: names, variants and settings are checked before anything is built."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arabesque.extractors.table import extractor_kind, resolve
from arabesque.manifests.errors import ConfigError
from arabesque.manifests.streams import Sampling, StreamSpec

SAMPLING = Sampling(fps="native", frames_per_segment=32, frames_per_step=32, remainder="drop-tail")


def spec(extractor: str, weights: dict[str, str] | None = None, **settings: Any) -> StreamSpec:
    return StreamSpec(extractor=extractor, sampling=SAMPLING, weights=weights or {}, settings=settings)


def test_a_resolved_spec_leaves_no_setting_implicit():
    resolved = resolve(spec("i3d_rgb", {"network": "i3d_rgb_k400"}))
    assert resolved.settings["batch_norm_eps"] == 1e-3
    assert resolved.settings["geometry"]["steps"][0] == {
        "short_side_px": 256,
        "antialias": "as-geometry",
        "one_factor": False,
    }
    assert resolve(resolved) == resolved


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (spec("i4d"), "extractor 'i4d' is not known; there are ast, c3d, crop, i3d_flow"),
        (spec("pytorchvideo:x4d", {"network": "x3d_m_k400"}), "pytorchvideo:x4d is not known; NAME is one of .*x3d_m"),
        (spec("pytorchvideo", {"network": "x3d_m_k400"}), "NAME is one of"),
        (spec("motion:fast"), "motion has no variants; write 'motion'"),
        (spec("i3d_rgb"), r"weights must name \['network'\], not nothing"),
        (spec("motion", {"network": "yolov8n"}), r"weights must name nothing, not \['network'\]"),
        (spec("i3d_rgb", {"network": "x"}, batch_norm_eps="small"), r"settings\.batch_norm_eps: .* \(got 'small'\)"),
        (spec("i3d_rgb", {"network": "x"}, epsilon=1), r"settings\.epsilon"),
    ],
)
def test_invalid_specs_are_reported_with_the_reason(wrong, complaint):
    with pytest.raises(ConfigError, match=complaint):
        resolve(wrong)


GOOD = """
from arabesque.manifests.streams import Record

class Good:
    class Settings(Record):
        gain: float = 1.0
    version = 3
    weight_roles = ()
    variants = ("a", "b")
    def __init__(self, *, settings, weights, device, precision, variant): self.variant = variant
    def prepare(self, segment): return segment
    def forward(self, prepared): return prepared

class WithoutVersion(Good):
    version = "3"
    def __init__(self, *, weights, device): ...

class WithoutSettings(Good):
    Settings = dict

def function(): ...
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package outside arabesque, with a module of extractors and two modules that cannot be imported."""
    folder = tmp_path / "othersnetworks"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "mine.py").write_text(GOOD)
    (folder / "needs.py").write_text("import no_such_library_of_others")
    (folder / "raises.py").write_text("\n\nraise RuntimeError('two\\nlines')")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_a_class_of_another_package_is_an_extractor(package: str) -> None:
    resolved = resolve(spec(f"{package}.mine:Good:b"))
    assert resolved.settings == {"gain": 1.0}
    assert resolved.extractor == f"{package}.mine:Good:b"
    assert extractor_kind(f"{package}.mine:Good:b").version == 3


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("othersnetwork.mine:Good", "module othersnetwork is not found.*did you mean othersnetworks.*PYTHONPATH"),
        ("othersnetworks.mina:Good", "module othersnetworks.mina is not found.*did you mean othersnetworks.mine"),
        ("othersnetworks.mine:Goode", "module othersnetworks.mine has no class 'Goode'.*did you mean Good"),
        ("othersnetworks.mine:function", "has no class, but another object, 'function'"),
        ("othersnetworks.mine:WithoutVersion", "version is not a pos.*'settings'; the constructor has no.*'precision'"),
        ("othersnetworks.mine:WithoutSettings", "Settings is not a subclass of arabesque.manifests.streams.Record"),
        ("othersnetworks.needs:Good", r"\(ModuleNotFoundError: No module named 'no_such_lib.*needs.py, line 1\)"),
        ("othersnetworks.raises:Good", r"cannot be imported \(RuntimeError: two lines, in .*raises.py, line 3\)"),
        ("othersnetworks.mine:", "is not an import path; write module:class"),
        ("othersnetworks.mine.Good", "not known; there are .*; for the class of another package, give its import"),
        ("othersnetworks.mine:Good:c", "write othersnetworks.mine:Good:NAME with one of a, b"),
        ("pytorchvido:x3d_m", "'pytorchvido:x3d_m' is not known.*did you mean pytorchvideo"),
    ],
)
def test_an_import_path_that_is_not_an_extractor_is_an_error_of_one_line(
    package: str, path: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        resolve(spec(path))
    assert "\n" not in str(caught.value)
    assert repr(path.removesuffix(":c")) in str(caught.value) or path in str(caught.value)
