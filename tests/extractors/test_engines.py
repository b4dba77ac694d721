"""OpenVINO computes the rows of PyTorch within the tolerance of the precision, and reports what it cannot compute."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from arabesque.extractors.engines import FOLDER, OpenVinoNetwork, building_for
from arabesque.extractors.network_runner import NetworkRunner
from arabesque.extractors.onednn_layers import with_onednn
from arabesque.extractors.precision import TOLERANCES

pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "arabesque" / FOLDER


class Small(nn.Module):
    """Convolution, normalization, pooling and a matrix product."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
            self.head = nn.Linear(16, 8)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))


class Drifting(nn.Module):
    """The tracer makes a constant of what depends on the values."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * float(images.abs().sum() + 1)


def network(seed: int = 0) -> nn.Module:
    return with_onednn(Small(seed).eval().requires_grad_(False))


def images(count: int = 3, side_px: int = 20) -> list[Tensor]:
    return list(torch.randn(count, 3, side_px, side_px, generator=torch.Generator().manual_seed(1)))


def rows(engine: str, precision: str = "float32", module: nn.Module | None = None, **options: int) -> Tensor:
    with building_for(engine):  # type: ignore[arg-type]
        runner = NetworkRunner(module or network(), torch.device("cpu"), precision)  # type: ignore[arg-type]
    return torch.stack(runner.rows(images(**options), lambda batch: batch))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_are_those_of_pytorch(precision: str) -> None:
    expected, found = rows("torch"), rows("openvino", precision)
    assert found.dtype == torch.float32
    error = (found - expected).abs().max() / expected.abs().max()
    assert error <= TOLERANCES[precision]  # type: ignore[index]
    assert torch.equal(rows("openvino", precision, count=1), found[:1]), "other items of a batch change nothing"


def test_a_network_is_exported_once(cache: Path) -> None:
    rows("openvino")
    [model] = cache.glob("*/network.xml")
    written = model.stat().st_mtime_ns
    rows("openvino")
    assert [path.stat().st_mtime_ns for path in cache.glob("*/network.xml")] == [written]
    rows("openvino", side_px=24)
    rows("openvino", module=network(seed=1))
    rows("openvino", "bfloat16")
    assert len(list(cache.glob("*/network.xml"))) == 4, "another shape, other weights, another precision"
    assert not list(cache.glob(".*"))


def test_a_network_that_cannot_be_exported_runs_in_pytorch(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = rows("openvino", module=Drifting())
    torch.testing.assert_close(found, rows("torch", module=Drifting()))
    [message] = [record.getMessage() for record in caplog.records if "OpenVINO" in record.getMessage()]
    assert "Drifting of [1, 3, 20, 20]: OpenVINO cannot run it (its numbers differ by" in message
    assert not list(cache.glob("*"))


def test_other_devices_keep_pytorch() -> None:
    with building_for("openvino"):
        runner = NetworkRunner(network(), torch.device("meta"), "float32")
    assert not isinstance(runner._network, OpenVinoNetwork)
