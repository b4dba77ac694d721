"""The functions of bootstrap.py that need no installation; CI runs the complete script."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_file_is_split_into_torch_with_its_libraries_and_the_rest(bootstrap: ModuleType, name: str) -> None:
    text = (ROOT / name).read_text()
    gpu, others = bootstrap.split_lock(text)
    names = {re.split("[= ]", entry)[0] for entry in gpu}
    assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= names
    assert sorted("".join(gpu + others)) == sorted(text)
    rest = "".join(others)
    assert not re.search(r"^(torch|torchvision|triton|nvidia-cu\S*)==", rest, flags=re.MULTILINE)
    assert "\nnumpy==" in rest
    assert all("--hash=sha256:" in entry for entry in [*gpu, *others] if entry)


def test_the_options_of_an_environment_are_kept(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(bootstrap, "call", lambda *command: calls.append(" ".join(command)))
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)

    def installed(*options: str) -> str:
        calls.clear()
        bootstrap.set_up({*options})
        return " ".join(calls)

    assert str(ROOT / "requirements.lock") in installed()
    assert installed() == ""
    assert str(ROOT / "requirements-dev.lock") in installed("--dev")
    assert installed() == installed("--dev") == ""
    smaller = installed("--cpu")
    assert re.search(r"--no-deps --index-url https://\S+/cpu torch==\S+ torchvision==\S+", smaller)
    assert "torch==" not in (tmp_path / "requirements-cpu.lock").read_text()
    assert installed("--dev", "--cpu") == installed() == ""


def test_mistakes_are_reported_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "bootstrap.py", "--gpu", "arabesque"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert done.stderr == "bootstrap.py: --gpu is not an option; give --dev or --cpu\n"
