"""Networks for ``torch.compile``: each is one graph, and the engine ``compile`` gives PyTorch's rows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
import torch
from extractor_cases import CASES, Case
from recorded_graphs import Idle, is_capturing, put_graphs
from torch import Tensor, nn
from torchvision.models.video import SwinTransformer3d

from arabesque.extractor_contract import ExtractorContract
from arabesque.extractors import engines, network_runner, video_swin
from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.cuda_graphs import Replay
from arabesque.extractors.engines import building_for
from arabesque.extractors.network_runner import NetworkRunner
from arabesque.extractors.table import build

META = torch.device("meta")
NETWORKS = (
    *("i3d_rgb", "i3d_flow", "video_swin_b", "resnet_frame", "ast", "c3d", "vggish", "panns_cnn14", "s3d"),
    *("r2plus1d_34", "pytorchvideo"),
)


def forward_on_meta(name: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> list[Tensor | None]:
    """Run a batch through an extractor without numbers; a break of the graph raises an error."""

    def compiled(network: nn.Module, *_: Any) -> Any:
        return torch.compile(network, fullgraph=True, dynamic=False, backend="eager")

    monkeypatch.setattr(network_runner, "on_engine", compiled)
    torch.compiler.reset()
    contract = ExtractorContract(name + case.variant, num_frames=case.frames, settings=case.settings)
    spec = contract.resolved
    extractor = build(spec, {role: RandomWeights(0) for role in spec.weights}, META)
    return extractor.forward([extractor.prepare(segment) for segment in contract.segments[:2]])


def narrow_swin(**_: Any) -> SwinTransformer3d:
    return SwinTransformer3d([2, 4, 4], 8, [2, 2], [1, 2], [8, 7, 7], num_classes=400)


def test_shifted_windows_do_not_break_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_swin, "swin3d_b", narrow_swin)
    case = Case(frames=2, settings={"geometry": {"steps": [{"size_px": [80, 80]}]}})
    rows = forward_on_meta("video_swin_b", case, monkeypatch)
    assert [row.shape for row in rows if row is not None] == [(16,), (16,)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_one_graph(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = forward_on_meta(name, CASES.get(name, Case()), monkeypatch)
    assert all(row is not None and row.device == META for row in rows)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.head = nn.Linear(6, 4)

    def forward(self, items: Tensor) -> Tensor:
        return self.head(items).relu()


class Asking(Small):
    """Reads a number on the host, which breaks the graph."""

    def forward(self, items: Tensor) -> Tensor:
        return super().forward(items) * (2 if float(items.sum()) > 0 else 1)


class Drifting(Small):
    """Computes other values when it is compiled."""

    def forward(self, items: Tensor) -> Tensor:
        return super().forward(items) + (1 if torch.compiler.is_compiling() else 0)


def items(count: int) -> list[Tensor]:
    return list(torch.randn(5, 6, generator=torch.Generator().manual_seed(1))[:count])


def runner_of(engine: Any, network: nn.Module) -> NetworkRunner:
    with building_for(engine):
        return NetworkRunner(network.eval().requires_grad_(False), torch.device("cpu"), "float32")


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the batches for which a graph was compiled; the graph runs as it is."""
    found: list[tuple[int, ...]] = []

    def backend(graph: Any, examples: list[Tensor]) -> Any:
        found.extend(tuple(each.shape) for each in examples if each.shape[1:] == (6,) and each.shape[0] != 4)
        return graph.forward

    torch.compiler.reset()
    monkeypatch.setattr(engines, "BACKEND", backend)
    return found


def test_a_smaller_batch_is_filled_up_instead_of_compiled(shapes: list[tuple[int, ...]]) -> None:
    runner, plain = runner_of("compile", Small()), runner_of("torch", Small())
    for count in (3, 5, 2, 5, 1):
        found = torch.stack(runner.rows(items(count), lambda batch: batch))
        torch.testing.assert_close(found, torch.stack(plain.rows(items(count), lambda batch: batch)))
    assert shapes == [(3, 6), (5, 6)]


@pytest.mark.parametrize(("network", "reason"), [(Asking, "Asking of [3, 6]"), (Drifting, "its numbers differ by")])
def test_a_network_that_cannot_be_compiled_runs_in_pytorch(
    network: type[nn.Module], reason: str, shapes: list[tuple[int, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    runner, plain = runner_of("compile", network()), runner_of("torch", network())
    with caplog.at_level(logging.WARNING, logger="arabesque.extractors.engines"):
        runner.rows(items(3), lambda batch: batch)
        found = runner.rows(items(3), lambda batch: batch)
    torch.testing.assert_close(torch.stack(found), torch.stack(plain.rows(items(3), lambda batch: batch)))
    [message] = [record.getMessage() for record in caplog.records if "torch.compile" in record.getMessage()]
    assert reason in message
    assert message.endswith("PyTorch runs it")


class Recorded:
    """Replaces a captured graph: it reads and writes the memory of the first call."""

    made: ClassVar[list[Recorded]] = []
    drifts = False

    def __init__(self, launch: Callable[[], Tensor], device: torch.device, name: str) -> None:
        self._launch, self.name, self.num_replays = launch, name, 0
        self._result = launch()
        self.made.append(self)

    def __call__(self) -> Tensor:
        self.num_replays += 1
        self._result.copy_(self._launch())
        return self._result.add_(1) if self.drifts else self._result


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    monkeypatch.setattr(engines, "Replay", Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    monkeypatch.setattr(torch.cuda, "current_stream", Idle)
    return Recorded.made


def test_only_the_largest_batch_of_a_shape_is_captured(shapes: list[tuple[int, ...]], recorded: list[Recorded]) -> None:
    """Two graphs for batches of five sizes; rows stay as they are when the next batch is computed."""
    network = Small().eval().requires_grad_(False)
    compiled = engines.CompiledNetwork(network, "float32", replays=True)
    found = {count: compiled(torch.stack(items(count))) for count in (3, 2, 3, 5, 1, 4, 5)}
    for count, rows in found.items():
        torch.testing.assert_close(rows, network(torch.stack(items(count))))
    assert shapes == [(3, 6), (5, 6)]
    assert [(each.name, each.num_replays) for each in recorded] == [("Small of [3, 6]", 2), ("Small of [5, 6]", 3)]


def test_each_thread_has_graphs_and_memory_of_its_own(shapes: list[tuple[int, ...]], recorded: list[Recorded]) -> None:
    compiled = engines.CompiledNetwork(Small().eval().requires_grad_(False), "float32", replays=True)
    batch = torch.stack(items(3))
    compiled(batch)
    rows = compiled(batch)
    with ThreadPoolExecutor(1) as other:
        for _ in range(2):
            assert torch.equal(other.submit(compiled, batch).result(), rows)
    assert len(recorded) == 2
    assert shapes == [(3, 6)]


def test_a_graph_that_gives_other_rows_is_not_used(
    shapes: list[tuple[int, ...]],
    recorded: list[Recorded],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Recorded, "drifts", True)
    network = Small().eval().requires_grad_(False)
    compiled = engines.CompiledNetwork(network, "float32", replays=True)
    batch = torch.stack(items(3))
    for _ in range(3):
        torch.testing.assert_close(compiled(batch), network(batch))
    assert len(recorded) == 1
    assert "Small: its CUDA graph computes different rows" in caplog.text


def test_kernels_that_cannot_be_captured_are_launched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_graphs(monkeypatch)
    calls: list[bool] = []

    def launch() -> int:
        calls.append(is_capturing())
        if is_capturing():
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return 7

    replay = Replay(launch, torch.device("cuda", 1), "Some network")
    assert [replay(), replay()] == [7, 7]
    assert calls == [True, False, False]
    assert "Some network: no CUDA graph (operation not permitted when stream is capturing); the" in caplog.text
    assert Replay(is_capturing, torch.device("cuda", 1), "another")() is True
