"""OpenVINO computes the rows of PyTorch within the tolerance of the precision, and reports what it cannot compute."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

from arabesque.extractors.engines import FOLDER, OpenVinoNetwork, building_for
from arabesque.extractors.i3d import StridedMaxPool
from arabesque.extractors.network_runner import NetworkRunner
from arabesque.extractors.onednn_layers import with_onednn
from arabesque.extractors.precision import TOLERANCES
from arabesque.extractors.window_attention import with_window_attention

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
    """A network with a value-dependent factor, which the tracer replaces by a constant."""

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


class Shifted(nn.Module):
    """A block of Video Swin whose windows are shifted, and a pool whose windows extend beyond the end."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            attention = ShiftedWindowAttention3d(8, window_size=[2, 4, 4], shift_size=[1, 2, 2], num_heads=2)
        self.attention = with_window_attention(attention)
        self.pool = StridedMaxPool((1, 3, 3), (1, 2, 2))

    def forward(self, images: Tensor) -> Tensor:
        volume = images.reshape(len(images), 4, 8, 8, 8)
        return self.pool(self.attention(volume).relu().permute(0, 4, 1, 2, 3)).flatten(1)


def test_networks_have_another_form_for_the_export(caplog: pytest.LogCaptureFixture) -> None:
    block = Shifted().eval().requires_grad_(False)
    values = list(torch.randn(2, 4, 8, 64, generator=torch.Generator().manual_seed(1)))
    with building_for("openvino"):
        runner = NetworkRunner(block, torch.device("cpu"), "float32")
    with caplog.at_level(logging.WARNING):
        found = torch.stack(runner.rows(values, lambda batch: batch))
    assert not caplog.records, "exported, not run in PyTorch"
    torch.testing.assert_close(found, block(torch.stack(values)))


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
