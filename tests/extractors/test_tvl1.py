from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from arabesque.extractors.optical_flow.tvl1 import flow_function, tvl1
from arabesque.extractors.optical_flow.tvl1_numba_kernels import compiled
from arabesque.extractors.optical_flow.tvl1_settings import TVL1, Kernel, Mode, Variant

GOLDEN = Path(__file__).parents[1] / "golden"
"""tvl1_NAME.npz: two gray frames of a real video and OpenCV 5's flow between them, with median and without."""

FEW_STEPS = {"warps": 2, "inner_iterations": 4, "outer_iterations": 2, "epsilon": 0.0}
"""No early stop, which may come an iteration sooner or later by rounding alone."""


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def texture(x: Tensor, y: Tensor, waves_px: tuple[float, float] = (8, 40)) -> Tensor:
    """Smooth and random, defined between pixels too."""
    random = np.random.default_rng(0)
    value = torch.zeros_like(x)
    for _ in range(40):
        angle, phase = random.uniform(0, 2 * np.pi, size=2)
        frequency = 2 * np.pi / random.uniform(*waves_px)
        value += torch.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y) + phase)
    return (128 + 9 * value).clamp(0, 255).round().to(torch.uint8)


def grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return y, x


def turned(x: Tensor, y: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """About (75, 60), radians."""
    x, y = x - 75, y - 60
    return 75 + np.cos(angle) * x - np.sin(angle) * y, 60 + np.sin(angle) * x + np.cos(angle) * y


def clip(frames: int = 4, height: int = 60, width: int = 75) -> Tensor:
    """A texture that drifts to the left, faster and faster."""
    y, x = grid(height, width)
    return torch.stack([texture(x + 0.4 * index**2, y) for index in range(frames)])


def end_point_difference(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).norm(dim=-3)


@pytest.mark.parametrize("kernel", ["fused", pytest.param("torch", marks=pytest.mark.slow)])
@pytest.mark.parametrize("median_px", [1, 5])
@pytest.mark.parametrize("name", ["skater", "dancer", "sport"])
def test_exact_mode_agrees_with_opencv(name: str, median_px: int, kernel: Kernel, device: str) -> None:
    """OpenCV under 1e-4 gray levels of noise differs from itself by half of this."""
    with np.load(GOLDEN / f"tvl1_{name}.npz") as golden:
        gray = torch.from_numpy(golden["gray"])
        opencv = torch.from_numpy(golden[f"median{median_px}"]).float().permute(2, 0, 1)
    flow = tvl1(gray.to(device), TVL1(median_px=median_px, kernel=kernel))[0].cpu()
    difference = end_point_difference(flow, opencv).flatten()
    assert difference.mean() <= 0.02
    assert difference.quantile(0.95) <= 0.05


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("variant", ["opencv5", "opencv4", "cuda"])
@pytest.mark.parametrize(("angle", "shift"), [(0.0, (2.3, -1.4)), (0.03, (0.0, 0.0))], ids=["translation", "rotation"])
def test_flow_is_the_motion_away_from_borders(
    angle: float, shift: tuple[float, float], variant: Variant, mode: Mode
) -> None:
    y, x = grid(120, 150)
    second = texture(*turned(x - shift[0], y - shift[1], -angle))
    column, row = turned(x, y, angle)
    truth = torch.stack([column + shift[0] - x, row + shift[1] - y])
    flow = tvl1(torch.stack([texture(x, y), second]), TVL1(variant=variant, mode=mode))[0]
    assert end_point_difference(flow, truth)[20:-20, 20:-20].max() < 0.1


def test_big_motions_are_found() -> None:
    y, x = grid(256, 256)
    flow = tvl1(torch.stack([texture(at, y, waves_px=(60, 200)) for at in (x, x - 30)]), TVL1())[0]
    inside = end_point_difference(flow, torch.tensor([30.0, 0.0])[:, None, None])[60:-60, 60:-60]
    assert inside.max() < 0.5


@pytest.mark.parametrize(
    ("variant", "median_px"), [("opencv5", 1), ("opencv5", 3), ("opencv5", 5), ("opencv4", 5), ("cuda", 1)]
)
def test_kernels_agree(variant: Variant, median_px: int, device: str) -> None:
    """Where no rounding can make one of them stop sooner than the other."""
    settings = TVL1(variant=variant, median_px=median_px, **FEW_STEPS)
    plain = tvl1(clip(), settings.model_copy(update={"kernel": "torch"}))
    assert end_point_difference(tvl1(clip().to(device), settings).cpu(), plain).mean() < 1e-3


@pytest.mark.parametrize("variant", ["opencv5", "cuda"])
@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_kernels_stop_together(variant: Variant, epsilon: float, device: str) -> None:
    """A stop that came at another iteration would show as .01 px and more."""
    settings = TVL1(variant=variant, epsilon=epsilon, warps=2)
    plain = tvl1(clip(), settings.model_copy(update={"kernel": "torch"}))
    assert end_point_difference(tvl1(clip().to(device), settings).cpu(), plain).mean() < 1e-3


@pytest.mark.parametrize("kernel", ["fused", "torch"])
def test_a_pair_depends_on_nothing_else(kernel: Kernel, device: str, threads: Callable[[int], None]) -> None:
    """Neither on the batch, nor on the threads, nor on the layout in memory."""
    settings, frames = TVL1(kernel=kernel, warps=2), clip(5).to(device)
    threads(1)
    together = tvl1(frames, settings)
    alone = torch.cat([tvl1(frames[index : index + 2], settings) for index in range(4)])
    threads(3)
    strided = torch.stack([frames.flip(2), frames], dim=-1)[..., 1]
    assert torch.equal(alone, together)
    assert torch.equal(tvl1(strided, settings), together)


@pytest.mark.parametrize("variant", ["opencv5", "cuda"])
@pytest.mark.parametrize("kernel", ["fused", "torch"])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (15, 90), (33, 16), (20, 17)])
def test_small_frames_have_a_flow(size: tuple[int, int], kernel: Kernel, variant: Variant, device: str) -> None:
    flow = tvl1(clip(3, *size).to(device), TVL1(variant=variant, kernel=kernel, warps=2, outer_iterations=1))
    assert flow.shape == (2, 2, *size)
    assert flow.isfinite().all()


@pytest.mark.parametrize("kernel", ["fused", "torch"])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_what_is_uniform_stands_still(level: int, kernel: Kernel, device: str) -> None:
    frames = torch.full((3, 40, 50), level, dtype=torch.uint8, device=device)
    inside = tvl1(frames, TVL1(kernel=kernel))[..., 4:-4, 4:-4]
    assert torch.equal(inside, torch.zeros_like(inside))


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(1, 32, 32, dtype=torch.uint8),
        torch.zeros(3, 32, 32),
        torch.zeros(3, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(3, 0, 32, dtype=torch.uint8),
    ],
)
def test_wrong_input_is_named(wrong: Tensor) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[2 or more, h, w\]"):
        tvl1(wrong, TVL1())


def test_devices_without_a_kernel_are_named() -> None:
    with pytest.raises(ValueError, match=r'no fused kernel for meta; set kernel = "torch"'):
        tvl1(torch.zeros(2, 32, 32, dtype=torch.uint8, device="meta"), TVL1())


def test_cuda_without_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, f"{tvl1.__module__}_triton", raising=False)
    monkeypatch.delitem(sys.modules, f"{tvl1.__module__}_triton_kernels", raising=False)
    with pytest.raises(ImportError, match=r'needs the package triton; install it, or set kernel = "torch"'):
        flow_function("fused", "cuda")


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"warps": 2, "inner_iterations": 4, "outer_iterations": 2, "epsilon": 0.2},
        {"variant": "opencv4", "warps": 1, "inner_iterations": 7, "outer_iterations": 2, "median_px": 3},
        {"variant": "cuda", "warps": 2, "inner_iterations": 4, "outer_iterations": 2, "epsilon": 0.2},
    ],
)
def test_triton_kernels_agree_in_the_interpreter(settings: dict[str, Any]) -> None:
    pytest.importorskip("triton")
    case = {"height": 10, "width": 12, "settings": settings}
    program = [sys.executable, str(Path(__file__).with_name("tvl1_interpreted.py")), json.dumps(case)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    printed = subprocess.run(program, env=environment, check=True, capture_output=True, text=True).stdout
    result = json.loads(printed)
    assert result["difference"] < 1e-4
    assert result["motion"] > 0.1


@pytest.mark.slow
def test_triton_kernels_compile_without_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an H100's architecture; the iteration without shared memory and barriers, which is its point."""
    pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from arabesque.extractors.optical_flow import tvl1_triton_kernels as kernels

    def compiled_code(function: Any, **constants: Any) -> str:
        types = dict.fromkeys(function.arg_names, "i32")
        types |= dict.fromkeys(("images", "following", "data", "state", "errors", "bound"), "*fp32")
        types |= dict.fromkeys(("side", "steps", "left", "iteration", "done"), "*i32")
        types |= {"limit": "fp32", **dict.fromkeys(constants, "constexpr")}
        signature = {name: types[name] for name in function.arg_names}
        options = {"num_warps": 1, "enable_fp_fusion": True}
        source = ASTSource(function, signature=signature, constexprs=constants)
        return compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    iteration = compiled_code(kernels.iterate, ITERATIONS=5, ROWS=64, COLUMNS=64)
    assert "shfl" in iteration
    assert "shared" not in iteration
    assert "bar.sync" not in iteration
    for lazy in (False, True):
        compiled_code(kernels.judge, ITERATIONS=5, LAZY=lazy)
    compiled_code(kernels.linearize, CUBIC=-0.75, REPLICATE=False, PER_PX=32, PIXELS=256)
    compiled_code(kernels.linearize, CUBIC=-0.5, REPLICATE=True, PER_PX=0, PIXELS=256)
    for side_px in (3, 5):
        compiled_code(kernels.filter_median, SIDE_PX=side_px, PIXELS=256)


def test_defaults_follow_variant_and_mode() -> None:
    assert TVL1(variant="cuda").median_px == 1
    assert (TVL1(mode="fast").warps, TVL1(mode="fast", warps=4).warps, TVL1().warps) == (2, 4, 5)
    assert TVL1.model_validate(TVL1(mode="fast", variant="cuda").model_dump()) == TVL1(mode="fast", variant="cuda")
    with pytest.raises(ValueError, match=r'"cuda" has no median filter; leave median_px = 5 out'):
        TVL1(variant="cuda", median_px=5)


def test_compiles_where_no_cache_can_be_written() -> None:
    """A function of no file has no place for one."""
    namespace: dict[str, Any] = {}
    exec("def following(number): return number + 1", namespace)
    assert compiled(namespace["following"])(1) == 2
