from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest
import typer
from typer.testing import CliRunner

from arabesque.cli import doctor
from arabesque.cli.doctor import Check
from arabesque.manifests.optional_packages import EXTRAS, install_command
from arabesque.manifests.recipes import list_recipes
from arabesque.pipeline.weights.cache import open_cache

MIB = 1 << 20
app = typer.Typer()
app.command()(doctor.doctor)


def disk_of(free_bytes: int) -> object:
    return lambda _: shutil._ntuple_diskusage(64 * MIB, 64 * MIB - free_bytes, free_bytes)


def test_each_finding_is_a_line_and_only_a_failure_changes_the_status(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = [Check("ok", "disk", "[red]large"), Check("warn", "GPU", "none", "buy one")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(checks))
    report = CliRunner().invoke(app)
    assert report.stdout == "ok   disk: [red]large\nwarn GPU: none → buy one\n"
    assert report.exit_code == 0
    checks.insert(0, Check("fail", "torch", "does not load"))
    report = CliRunner().invoke(app)
    assert report.stdout.startswith("FAIL torch: does not load\nok ")
    assert report.exit_code == 1


def test_installed_packages_are_named_with_their_versions() -> None:
    (check,) = doctor.packages()
    assert check.level == "ok"
    assert f"torch {importlib.metadata.version('torch')}" in check.detail
    assert f"opencv-python {importlib.metadata.version('opencv-python')}" in check.detail


def test_a_missing_package_is_fatal_unless_it_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def some_missing(name: str) -> str:
        if name in ("librosa", "decord"):
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", some_missing)
    _, missing = doctor.packages()
    assert missing == Check("fail", "packages", "missing: librosa", "pip install librosa")


def test_extras_that_are_not_installed_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in EXTRAS:
        monkeypatch.setitem(sys.modules, module, None)
    (check,) = doctor.optional_packages()
    assert check.level == "ok"
    assert check.detail.startswith("not installed: yolo (ultralytics), pytorchvideo (pytorchvideo), decord (decord), ")
    assert check.remedy == install_command(
        "yolo,pytorchvideo,decord,train,plots,pandas,ray,s3,gs,timm,pose,openvino,shots"
    )
    assert [check.subject for check in doctor.decoders()] == ["decoder pyav"]
    assert [check.subject for check in doctor.decoded_clips()] == ["clip by pyav"]


def test_a_recipe_whose_package_is_missing_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    checks = {check.subject: check for check in doctor.checkpoints()}
    assert checks["recipe action-net"].level == "warn"
    assert checks["recipe action-net"].detail.endswith(install_command("yolo"))
    assert "lacks" in checks["recipe pamfn"].detail


def test_not_being_installed_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", absent)
    assert [check.level for check in doctor.packages()] == ["fail"]


@pytest.mark.parametrize(("free_gib", "level"), [(1, "warn"), (50, "ok")])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gib: int, level: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", disk_of(free_gib << 30))
    assert doctor.disk(tmp_path).level == level


@pytest.mark.parametrize(("limit_bytes", "level"), [(2 << 30, "warn"), (8 << 30, "ok")])
def test_memory(limit_bytes: int, level: str) -> None:
    assert doctor.memory(limit_bytes).level == level


def test_decoders_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    pyav = next(doctor.decoders())
    assert pyav.level == "ok"
    assert "libavcodec" in pyav.detail
    monkeypatch.setitem(sys.modules, "av", None)
    assert next(doctor.decoders()) == Check("fail", "decoder pyav", ANY, "pip install --force-reinstall av")


def test_restrictions_of_the_decoder_process_are_listed() -> None:
    check = doctor.restriction()
    assert check.subject == "decoder process"
    assert re.match(
        {"ok": "the kernel denies it ", "warn": ".* does not restrict (file|network)"}[check.level], check.detail
    )


def test_torch_that_does_not_load_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(check.level != "fail" for check in doctor.devices())
    monkeypatch.setitem(sys.modules, "torch", None)
    assert [check.level for check in doctor.devices()] == ["fail"]


def test_each_recipe_lists_missing_checkpoints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path / "weights"))
    checks = {check.subject: check for check in doctor.checkpoints()}
    assert list(checks) == ["checkpoints", *(f"recipe {name}" for name in list_recipes())]
    assert checks["recipe gdlt"] == Check(
        "warn", "recipe gdlt", "vst lacks video_swin_b_k600", "`arabesque weights fetch --recipe gdlt`"
    )
    checkpoint = open_cache().path("video_swin_b_k600")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"PK\x03\x04")
    checks = {check.subject: check for check in doctor.checkpoints()}
    assert checks["recipe gdlt"] == Check("ok", "recipe gdlt", "vst ready")
    assert checks["recipe pamfn"].detail.startswith("vst ready; i3d_flow lacks i3d_flow_k400")


def test_this_machine_can_be_examined(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ARABESQUE_WEIGHTS", str(tmp_path))
    subjects = [line[5:].partition(":")[0] for line in CliRunner().invoke(app).stdout.splitlines()]
    assert [each for each in subjects[:6] if each != "extras"] == ["Python", "packages", "processors", "memory"]
