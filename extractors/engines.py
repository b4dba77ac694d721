"""Engines that run networks: PyTorch, ``torch.compile``, or OpenVINO on CPUs (extra ``openvino``).

For OpenVINO a network is exported to the user's cache folder, once for each network, weights, shape of an item and
precision, which takes from seconds to minutes. Later runs compile it from the cache. Items are computed one at a time,
so that a row does not depend on the other items of its batch. A network that cannot be exported runs in PyTorch, with a
warning.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import platformdirs
import torch
from torch import Tensor, nn

from ..manifests.optional_packages import require_package
from ..manifests.streams import Precision
from .cuda_graphs import Replay
from .onednn_layers import with_onednn, without_onednn
from .precision import TOLERANCES

_LOG = logging.getLogger(__name__)

Engine = Literal["torch", "compile", "openvino"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
FOLDER, MODEL = "engines", "network.xml"
_HINTS: dict[Precision, str] = {"float32": "f32", "tf32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CURRENT: ContextVar[Engine] = ContextVar("engine", default="torch")


@contextmanager
def building_for(engine: Engine) -> Generator[None, None, None]:
    """Build networks in this block for an engine."""
    token = _CURRENT.set(engine)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current_engine() -> Engine:
    """Return the engine of the enclosing `building_for`."""
    return _CURRENT.get()


def is_exported() -> bool:
    """Return whether the running network is being exported to OpenVINO, whose kernels differ from PyTorch's."""
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def on_engine(network: nn.Module, device: torch.device, precision: Precision) -> Callable[[Tensor], Tensor]:
    """Return the network for the engine of the enclosing `building_for`; OpenVINO runs on CPUs only."""
    if _CURRENT.get() == "compile":
        return CompiledNetwork(network, precision, replays=device.type == "cuda")
    if _CURRENT.get() == "torch" or device.type != "cpu":
        return network
    return OpenVinoNetwork(network, precision)


BACKEND = "inductor"
"""Backend of ``torch.compile``."""


class CompiledNetwork:
    """A network that ``torch.compile`` fuses into few kernels, once for each shape of a batch.

    Smaller batches are padded to the size of the largest batch so far, so that the last batch of a run is not compiled
    separately. A network runs in PyTorch, with a warning, if it cannot be compiled as one graph or if its first rows
    differ from PyTorch's by more than the tolerance of the precision.

    Args:
        network: Maps ``[n, ...]`` to ``[n, dim]``.
        precision: Number format of matrix products and convolutions.
        replays: Capture the compiled network as a CUDA graph for the largest batch of each shape. Graphs and their
            memory are per thread, as two threads may compute two batches at the same time.
    """

    def __init__(self, network: nn.Module, precision: Precision, *, replays: bool = False) -> None:
        self._network = without_onednn(network)  # the compiler has its own kernels
        self._precision: Precision = precision
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._largest: dict[tuple[int, ...], int] = {}
        self._is_refused = False
        self._replays = replays
        self._of_thread = threading.local()

    def __call__(self, items: Tensor) -> Tensor:
        if self._is_refused:
            return self._network(items)
        if self._compiled is None:
            self._compiled = torch.compile(self._network, fullgraph=True, dynamic=False, backend=BACKEND)
        shape = tuple(items.shape[1:])
        largest = self._largest.get(shape, 0)
        if len(items) < largest:
            filling = items[-1:].expand(largest - len(items), *shape)
            return self._replayed(torch.cat([items, filling]), self._compiled)[: len(items)]
        if len(items) == largest:
            return self._replayed(items, self._compiled)
        try:
            rows = self._compiled(items)
            self._check(rows, items)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the compiler runs the network's own code
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            name = type(self._network).__name__
            _LOG.warning("%s of %s: torch.compile cannot run it (%s); PyTorch runs it", name, list(items.shape), reason)
            self._is_refused = True
            return self._network(items)
        self._largest[shape] = len(items)
        return rows

    def _replayed(self, items: Tensor, compiled: Callable[[Tensor], Tensor]) -> Tensor:
        """Compute a batch of the largest size with the graph of this thread, which the first such batch verifies."""
        if not self._replays:
            return compiled(items)
        batches: dict[tuple[int, ...], _FixedBatch] = self._of_thread.__dict__.setdefault("batches", {})
        shape = tuple(items.shape[1:])
        batch = batches.get(shape)
        if batch is not None and batch.size == len(items):
            return batch(items)
        if batch is not None:
            torch.cuda.current_stream(items.device).synchronize()  # the smaller batch's graph may be running
            del batches[shape]
        expected = compiled(items)
        batch = _FixedBatch(compiled, items, type(self._network).__name__)
        if not torch.allclose(batch(items).float(), expected.float(), rtol=0, atol=self._allowed(expected)):
            _LOG.warning("%s: its CUDA graph computes different rows; it is not used", type(self._network).__name__)
            self._replays = False
            return expected
        batches[shape] = batch
        return expected

    def _allowed(self, rows: Tensor) -> float:
        return TOLERANCES[self._precision] * float(rows.float().abs().max().clamp_min(1e-12))

    def _check(self, rows: Tensor, items: Tensor) -> None:
        """Raise ValueError unless PyTorch computes the same rows."""
        expected = self._network(items).float()
        error = float((rows.float() - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        if not error <= TOLERANCES[self._precision]:
            raise ValueError(f"its numbers differ by {error:.1e} of the largest")


class _FixedBatch:
    """A compiled network for batches of one shape, which are copied to the same memory, as a CUDA graph requires."""

    def __init__(self, compiled: Callable[[Tensor], Tensor], items: Tensor, name: str) -> None:
        self.size = len(items)
        self._items = items.clone()
        self._replay = Replay(lambda: compiled(self._items), items.device, f"{name} of {list(items.shape)}")

    def __call__(self, items: Tensor) -> Tensor:
        self._items.copy_(items)
        return self._replay().clone()


class OpenVinoNetwork:
    """A network that OpenVINO computes on the CPU.

    Args:
        network: Maps ``float32 [n, ...]`` to ``[n, dim]``. It is exported for each shape of an item on first use.
        precision: Number format of matrix products and convolutions.

    Raises:
        MissingPackageError: The package openvino is not installed.
    """

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        require_package("openvino", "engine openvino")
        self._network = without_onednn(network)  # OpenVINO can convert PyTorch's layers only
        self._precision: Precision = precision
        self._compiled: dict[tuple[int, ...], Any] = {}  # None: cannot be exported

    def __call__(self, items: Tensor) -> Tensor:
        shape = (1, *items.shape[1:])
        if shape not in self._compiled:
            self._compiled[shape] = self._compile(shape)
        compiled = self._compiled[shape]
        if compiled is None:
            return self._network(items)
        values = items.float().contiguous().numpy()
        rows = [torch.as_tensor(compiled(values[at : at + 1])[0].copy()) for at in range(len(values))]
        return torch.cat(rows)

    def _compile(self, shape: tuple[int, ...]) -> Any:
        openvino = _openvino()
        name = type(self._network).__name__
        core: Any = openvino.Core()
        folder = _cache_folder() / _key(self._network, shape, self._precision)
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
        }
        try:
            if (folder / MODEL).exists():
                return core.compile_model(core.read_model(folder / MODEL), "CPU", settings)
            _LOG.info("%s of %s: exporting to OpenVINO, once on this machine", name, list(shape))
            compiled = core.compile_model(self._export(shape, folder), "CPU", settings)
            self._check(compiled, shape)
            os.rename(folder.with_suffix(f".{os.getpid()}"), folder)
            return compiled
        except Exception as error:  # exporting runs the network's own code
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            _LOG.warning("%s of %s: OpenVINO cannot run it (%s); PyTorch runs it", name, list(shape), reason)
            shutil.rmtree(folder.with_suffix(f".{os.getpid()}"), ignore_errors=True)
            with_onednn(self._network)
            return None

    def _export(self, shape: tuple[int, ...], folder: Path) -> Any:
        """Convert the network and write it next to ``folder``; it is moved there after it was checked."""
        openvino = _openvino()
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast("cpu", enabled=False),
            warnings.catch_warnings(),  # the tracer warns that shapes become constants, which is intended
        ):
            warnings.simplefilter("ignore")
            converted = openvino.convert_model(self._network, example_input=torch.zeros(shape), input=[shape])
        _leave_out_indices(converted)
        staged = folder.with_suffix(f".{os.getpid()}")
        staged.mkdir(parents=True, exist_ok=True)
        openvino.save_model(converted, staged / MODEL, compress_to_fp16=False)
        return converted

    def _check(self, compiled: Any, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless PyTorch computes the same; the tracer turns Python values into constants."""
        values = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        with torch.autocast("cpu", enabled=False):
            expected = self._network(values).float()
        found = torch.as_tensor(compiled(values.numpy())[0])
        error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
        if not error <= TOLERANCES[self._precision]:
            raise ValueError(f"its numbers differ by {error:.1e} of the largest")


def _leave_out_indices(model: Any) -> None:
    """Replace pooling that also returns the index of each maximum, which is a third of its time.

    OpenVINO does this itself if no window extends beyond the end.
    """
    opset = _openvino().opset1
    for pooling in [each for each in model.get_ops() if each.get_type_name() == "MaxPool"]:
        given = pooling.get_attributes()
        if given["rounding_type"] == "floor" or pooling.output(1).get_target_inputs():
            continue
        sizes, found = pooling.input_value(0).shape[2:], pooling.output(0).shape[2:]
        axes = zip(sizes, found, given["kernel"], given["strides"], given["pads_begin"], strict=True)
        behind = [max((count - 1) * step + length - size - before, 0) for size, count, length, step, before in axes]
        plain = opset.max_pool(
            pooling.input_value(0), given["strides"], given["pads_begin"], behind, given["kernel"], "floor"
        )
        pooling.output(0).replace(plain.output(0))
    model.validate_nodes_and_infer_types()


@cache
def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send the version and options of each export to a server."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _cache_folder() -> Path:
    return platformdirs.user_cache_path("arabesque", appauthor=False) / FOLDER


def _key(network: nn.Module, shape: tuple[int, ...], precision: Precision) -> str:
    """Return a digest of everything that an exported network depends on: layers, weights, our code, and versions."""
    digest = hashlib.sha256(f"{network!r} {shape} {precision} {_code()}".encode())
    for name, values in network.state_dict().items():
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


@cache
def _code() -> str:
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    return f"{hashlib.sha256(sources).hexdigest()} torch {torch.__version__} openvino {version('openvino')}"
