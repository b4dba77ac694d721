"""The faster kernel is measured once on a machine, and all processes use the first result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from arabesque.extractors import kernel_choice, onednn_layers
from arabesque.extractors.kernel_choice import KINDS, is_available, measure, speed_ratios


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    speed_ratios.cache_clear()
    yield tmp_path
    speed_ratios.cache_clear()


def kept(cache: Path) -> Path:
    [path] = cache.rglob("kernels/*.json")
    return path


def test_each_kind_of_layer_is_measured() -> None:
    if not is_available():
        pytest.skip("PyTorch without oneDNN or MKL")
    before = torch.get_rng_state()
    found = measure()
    assert found.keys() == set(KINDS)
    assert all(0.01 < ratio < 100 for ratio in found.values())
    assert torch.equal(torch.get_rng_state(), before)


def test_later_processes_use_the_first_result(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = dict.fromkeys(KINDS, 2.0)
    monkeypatch.setattr(kernel_choice, "measure", lambda: slow)
    assert speed_ratios() == slow
    monkeypatch.setattr(kernel_choice, "measure", lambda: pytest.fail("measured again"))
    speed_ratios.cache_clear()
    assert speed_ratios() == slow
    assert not any(onednn_layers.onednn_pays(kind) for kind in KINDS)
    kept(cache).write_text(json.dumps(slow | {"conv3d": 0.5}))
    speed_ratios.cache_clear()
    assert [kind for kind in KINDS if onednn_layers.onednn_pays(kind)] == (["conv3d"] if is_available() else [])


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"linear": "x", "conv2d": 1, "conv3d": 1}'])
def test_a_damaged_file_is_measured_again(cache: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(kernel_choice, "measure", lambda: dict.fromkeys(KINDS, 1.5))
    speed_ratios()
    kept(cache).write_text(content)
    speed_ratios.cache_clear()
    assert speed_ratios()["linear"] == 1.5
    assert json.loads(kept(cache).read_text())["linear"] == 1.5


def test_concurrent_measurements_use_the_first_stored_result(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "measure", lambda: dict.fromkeys(KINDS, 0.5))
    speed_ratios()
    path, first = kept(cache), kept(cache).read_text()

    def measure() -> dict[kernel_choice.Kind, float]:
        path.write_text(first)  # by another process during the measurement
        return dict.fromkeys(KINDS, 2.0)

    path.unlink()
    monkeypatch.setattr(kernel_choice, "measure", measure)
    speed_ratios.cache_clear()
    assert speed_ratios()["conv2d"] == 0.5


def test_without_a_cache_folder_the_process_measures(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "arabesque").write_text("a file where the folder should be")
    monkeypatch.setattr(kernel_choice, "measure", lambda: dict.fromkeys(KINDS, 0.9))
    assert speed_ratios()["linear"] == 0.9
