"""Measure whether oneDNN computes matrix products and convolutions faster than PyTorch's default on this machine.

PyTorch uses MKL for products, and its own loops for convolutions of few items on one thread. Which kernel is faster
depends on the processor: MKL uses no AVX-512 on processors other than Intel's, and PyTorch's loops reach a fifth of
oneDNN's speed for 1 × 1 × 1 kernels on an Intel Xeon with AMX. So all kinds of layers are measured once on a machine,
within half a second, and the result is kept in the user's cache folder. It must not change from run to run, because
kernels sum in different orders and their numbers differ by a few units of the last place. `arabesque doctor` shows it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import platformdirs
import torch
from torch import Tensor, nn

_LOG = logging.getLogger(__name__)

Kind = Literal["linear", "conv2d", "conv3d"]
KINDS: tuple[Kind, ...] = ("linear", "conv2d", "conv3d")
ROUNDS = 5
"""Number of measurements of each kernel, alternating between the two. The fastest one counts."""
_CPU_FIELDS = ("vendor_id", "model name", "flags")


def is_available() -> bool:
    """Return whether PyTorch was built with both oneDNN and MKL."""
    return torch.backends.mkldnn.is_available() and torch.backends.mkl.is_available()


@cache
def speed_ratios() -> Mapping[Kind, float]:
    """Return kind of layer → CPU time of oneDNN divided by that of PyTorch's default; below 1 oneDNN is faster.

    The ratios are read from the user's cache folder, or measured and kept there.
    """
    path = _path()
    known = _read(path)
    if known is None:
        measured = measure()
        known = _keep(path, measured) or measured
    return known


def measure() -> dict[Kind, float]:
    """Measure the ratios of `speed_ratios` with typical layers of our networks, in about half a second."""
    found: dict[Kind, float] = {}
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
        for kind in KINDS:
            ours = theirs = 0.0
            for default, onednn in _pairs(kind):
                spent = [(_cpu_s(default), _cpu_s(onednn)) for _ in range(ROUNDS)]
                theirs += min(each[0] for each in spent)
                ours += min(each[1] for each in spent)
            found[kind] = round(ours / max(theirs, 1e-9), 3)
    _LOG.info("kernels of this machine: %s", ", ".join(f"{kind} {ratio:.2f}" for kind, ratio in found.items()))
    return found


def _pairs(kind: Kind) -> list[tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Return typical layers, each as a computation by PyTorch's default and by oneDNN."""
    if kind == "linear":
        layer, values = nn.Linear(768, 1024), torch.rand(256, 768)
        product: Any = torch.ops.mkldnn._linear_pointwise
        return [(lambda: layer(values), lambda: product(values, layer.weight, layer.bias, "none", [], ""))]
    if kind == "conv2d":
        return [_convolutions(nn.Conv2d(128, 128, size, padding=size // 2), (2, 128, 14, 14)) for size in (1, 3)]
    return [_convolutions(nn.Conv3d(96, 64, size, padding=size // 2), (1, 96, 8, 14, 14)) for size in (1, 3)]


def _convolutions(
    layer: nn.Conv2d | nn.Conv3d, shape: tuple[int, ...]
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    values = torch.rand(shape).contiguous(memory_format=layout)
    # each kernel gets weights in the memory layout that networks have with it
    last = layer.weight.contiguous(memory_format=layout)
    settings: Any = (layer.padding, layer.stride, layer.dilation, layer.groups)
    return lambda: layer(values), lambda: torch.mkldnn_convolution(values, last, layer.bias, *settings)


def _cpu_s(run: Callable[[], Tensor]) -> float:
    """Return the CPU time of all threads, which excludes other programs on the machine."""
    began = time.process_time()
    run()
    return time.process_time() - began


def _path() -> Path | None:
    """Return the file of this processor and this PyTorch; None without a cache folder."""
    described = f"{_processor()} {torch.__version__}"
    try:
        folder = platformdirs.user_cache_path("arabesque", appauthor=False)
    except RuntimeError:
        return None
    return folder / "kernels" / f"{hashlib.sha256(described.encode()).hexdigest()[:16]}.json"


def _processor() -> str:
    """Return the model and the instruction sets of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return f"{platform.machine()} {platform.processor()}"
    lines = cpuinfo.read_text().split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.partition("\t")[0].strip() in _CPU_FIELDS)


def _read(path: Path | None) -> dict[Kind, float] | None:
    try:
        stored: Any = {} if path is None else json.loads(path.read_text("utf-8"))
        return {kind: float(stored[kind]) for kind in KINDS}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(path: Path | None, ratios: Mapping[Kind, float]) -> dict[Kind, float] | None:
    """Write the ratios unless another process has done so; return those in the file, or None without a file."""
    if path is None:
        return None
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(json.dumps(ratios), "utf-8")
        if _read(path) is None:
            path.unlink(missing_ok=True)  # damaged
        try:
            os.link(staged, path)
        except FileExistsError:
            pass
        finally:
            staged.unlink()
    except OSError as error:
        _LOG.debug("%s: cannot be written (%s)", path, error)
    return _read(path)
