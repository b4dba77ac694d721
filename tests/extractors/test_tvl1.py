from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from recorded_graphs import Graph, RecordedKernel, is_capturing, put_graphs
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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


def test_large_motions_are_estimated() -> None:
    y, x = grid(256, 256)
    flow = tvl1(torch.stack([texture(at, y, waves_px=(60, 200)) for at in (x, x - 30)]), TVL1())[0]
    inside = end_point_difference(flow, torch.tensor([30.0, 0.0])[:, None, None])[60:-60, 60:-60]
    assert inside.max() < 0.5


@pytest.mark.parametrize(
    ("variant", "median_px"), [("opencv5", 1), ("opencv5", 3), ("opencv5", 5), ("opencv4", 5), ("cuda", 1)]
)
def test_kernels_agree(variant: Variant, median_px: int, device: str) -> None:
    """Compared at iterations where rounding cannot make one of them stop earlier."""
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
def test_a_pair_does_not_depend_on_other_pairs(kernel: Kernel, device: str, threads: Callable[[int], None]) -> None:
    """A pair does not depend on the batch, the threads or the layout in memory."""
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
def test_uniform_frames_have_zero_flow(level: int, kernel: Kernel, device: str) -> None:
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
@pytest.mark.parametrize("replays", [False, True])
def test_triton_kernels_agree_in_the_interpreter(settings: dict[str, Any], replays: bool) -> None:
    pytest.importorskip("triton")
    case = {"height": 10, "width": 12, "settings": settings, "replays": replays}
    program = [sys.executable, str(Path(__file__).with_name("tvl1_interpreted.py")), json.dumps(case)]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([*sys.path])}
    printed = subprocess.run(program, env=environment, check=True, capture_output=True, text=True).stdout
    result = json.loads(printed)
    assert result["difference"] < 1e-4
    assert result["motion"] > 0.1
    assert (result["graphs"] > 0) is replays


class Count:
    """Replaces a Triton kernel, and counts its launches."""

    def __init__(self, launches: Counter[str], name: str) -> None:
        self._launches, self._name = launches, name

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*_: Any, **__: Any) -> None:
            self._launches[self._name] += 1
            programs = f"programs of {self._name}"
            self._launches[programs] = max(self._launches[programs], math.prod(grid))

        return launch


class CountOperations(TorchDispatchMode):
    """Counts the launches by torch itself."""

    def __init__(self, launches: Counter[str]) -> None:
        super().__init__()
        self._launches = launches

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._launches["torch"] += not func.is_view
        return func(*args, **(kwargs or {}))


KERNELS = ("begin_round", "filter_median", "iterate", "judge", "linearize")


def launches_of(num_clips: int, rounds: int, monkeypatch: pytest.MonkeyPatch, *, replays: bool = False) -> Counter[str]:
    """Run the host's part of TV-L1 on CUDA without memory and kernels; every pair is done in the given round."""
    pytest.importorskip("triton")
    from arabesque.extractors.optical_flow import tvl1_triton

    launches = Counter[str]()
    for name in KERNELS:
        monkeypatch.setattr(tvl1_triton, name, RecordedKernel(Count(launches, name)))

    class Answer:
        """The result arrives a round late, as on a card; its copy is one operation."""

        def __init__(self, device: torch.device) -> None:
            self.asked = 0

        def forget(self) -> None:
            self.asked = 0

        def was(self, condition: Tensor) -> bool:
            self.asked += 1
            launches["torch"] += 1
            return self.asked > rounds

    monkeypatch.setattr(tvl1_triton, "LateAnswer", Answer)
    clips = [torch.zeros(33, 256, 341, dtype=torch.uint8, device="meta")] * num_clips
    with CountOperations(launches):
        flows = tvl1_triton.flows_of_clips(clips, TVL1(), replays=replays)
    assert [flow.shape for flow in flows] == [(32, 2, 256, 341)] * num_clips
    return launches


@pytest.mark.parametrize(("rounds", "most"), [(1, 2.5), (3, 4.5), (10, 9.5)])
def test_the_pairs_of_a_batch_share_their_launches(rounds: int, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of sixteen segments has 512 pairs: launches are as many as for one segment, which has 37 a pair."""
    alone, together = launches_of(1, rounds, monkeypatch), launches_of(16, rounds, monkeypatch)
    assert {name: together[name] for name in KERNELS} == {name: alone[name] for name in KERNELS}
    assert together["programs of iterate"] == 16 * alone["programs of iterate"] > 10_000
    num_launches = sum(together[name] for name in (*KERNELS, "torch"))
    assert num_launches / 512 < most, num_launches


class CaptureKernels(Graph):
    """Counts one launch instead of those of its kernels."""

    launches_of_host: Counter[str]

    def replay(self) -> None:
        self.launches_of_host["graphs"] += 1


@pytest.mark.parametrize(("rounds", "most"), [(1, 1.5), (3, 1.7), (10, 2.4)])
def test_a_captured_round_is_one_launch(rounds: int, most: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a batch of sixteen segments, whose rounds an earlier batch has captured."""
    pytest.importorskip("triton")
    from arabesque.extractors.optical_flow import tvl1_triton

    monkeypatch.setattr(tvl1_triton, "_MEMORY", tvl1_triton.FixedMemory())
    graphs = put_graphs(monkeypatch)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", CaptureKernels)
    CaptureKernels.launches_of_host = Counter()
    launches_of(16, rounds, monkeypatch, replays=True)
    num_levels = len(graphs)
    assert num_levels == 5
    CaptureKernels.launches_of_host.clear()
    found = launches_of(16, rounds, monkeypatch, replays=True)
    assert len(graphs) == num_levels
    assert {name for name in KERNELS if found[name]} == {"linearize"}
    num_launches = sum(found[name] for name in ("linearize", "torch")) + CaptureKernels.launches_of_host["graphs"]
    assert num_launches / 512 < most, num_launches


def test_a_round_has_nothing_that_a_capture_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round neither allocates memory nor reads from the device: torch launches nothing in a capture."""
    pytest.importorskip("triton")
    from arabesque.extractors.optical_flow import tvl1_triton

    monkeypatch.setattr(tvl1_triton, "_MEMORY", tvl1_triton.FixedMemory())
    graphs = put_graphs(monkeypatch)
    in_captures: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if is_capturing():
                in_captures.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        launches_of(2, 3, monkeypatch, replays=True)
    assert len(graphs) == 5
    assert in_captures == []


def test_memory_of_a_thread_stays_until_a_larger_batch_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from arabesque.extractors.optical_flow.tvl1_triton import FixedMemory

    put_graphs(monkeypatch)
    memory, cpu, marker = FixedMemory(), torch.device("cpu"), cast("Any", object())

    def addresses(size_bytes: int) -> list[int]:
        memory.begin(size_bytes, cpu)
        memory.begin_level()
        return [memory.empty((3, 5), torch.float32).data_ptr() for _ in range(2)]

    first = addresses(4096)
    memory.rounds["level"] = marker
    assert first[1] - first[0] == 512
    assert addresses(1024) == addresses(4096) == first
    assert memory.rounds == {"level": marker}
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.extend((addresses(4096), dict(memory.rounds))))
    thread.start()
    thread.join()
    assert seen[0] != first
    assert seen[1] == {}
    addresses(8192)
    assert memory.rounds == {}


def test_clips_of_two_sizes_and_parts_of_clips_are_batches() -> None:
    pytest.importorskip("triton")
    from arabesque.extractors.optical_flow.tvl1_triton import batches_of

    clips = [torch.arange(5)[:, None, None], torch.arange(10, 13)[:, None, None], torch.arange(20, 22)[:, None, None]]
    found = [[part.flatten().tolist() for part in batch] for batch in batches_of(clips, 3)]
    assert found == [[[0, 1, 2, 3]], [[3, 4], [10, 11, 12]], [[20, 21]]]


COMPUTE_CAPABILITIES = (80, 89, 90, 100, 120)
MOST_REGISTERS = 208
"""Of `iterate`: ten warps of it share a multiprocessor of an H100. It takes 168 (sm_80) to 204 (sm_120)."""


AMD_CARDS = (("gfx90a", 64), ("gfx942", 64), ("gfx1100", 32))
"""Architecture and lanes of a warp: MI200, MI300, Radeon RX 7900."""


def compile_kernel(function: Any, card: int | tuple[str, int], num_warps: int = 1, **constants: Any) -> Any:
    """Compile a kernel for another card: a compute capability of NVIDIA's, or one of `AMD_CARDS`.

    `iterate` and `judge` run in one warp, the others in four.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    types = dict.fromkeys(function.arg_names, "i32")
    types |= dict.fromkeys(("images", "following", "data", "state", "errors", "bound"), "*fp32")
    types |= dict.fromkeys(("side", "steps", "left", "iteration", "done"), "*i32")
    types |= {"limit": "fp32", **dict.fromkeys(constants, "constexpr")}
    signature = {name: types[name] for name in function.arg_names}
    source = ASTSource(function, signature=signature, constexprs=constants)
    options = {"num_warps": num_warps, "enable_fp_fusion": True}
    target = GPUTarget("cuda", card, 32) if isinstance(card, int) else GPUTarget("hip", *card)
    return compile(source, target=target, options=options)


def resources_of(compiled: Any, folder: Path) -> dict[str, int]:
    """Return the registers of a thread, and the bytes of its stack and local memory, to which registers spill."""
    import triton

    file = folder / "kernel.cubin"
    file.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    printed = subprocess.run([tool, "--dump-resource-usage", file], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", printed)}


@pytest.mark.parametrize(
    "capability", [pytest.param(each, marks=[] if each == 90 else [pytest.mark.slow]) for each in COMPUTE_CAPABILITIES]
)
def test_the_iteration_compiles_without_spills(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It also compiles without shared memory and barriers, as intended."""
    pytest.importorskip("triton")
    from arabesque.extractors.optical_flow import tvl1_triton_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    iteration = compile_kernel(kernels.iterate, capability, ITERATIONS=5, ROWS=64, COLUMNS=64)
    assert "shfl" in iteration.asm["ptx"]
    assert "bar.sync" not in iteration.asm["ptx"]
    used = resources_of(iteration, tmp_path)
    assert used.keys() == {"REG", "STACK", "LOCAL", "SHARED"}
    assert used["REG"] <= MOST_REGISTERS
    assert used["STACK"] == used["LOCAL"] == 0, "registers spill"
    assert iteration.metadata.shared == 0


@pytest.mark.slow
@pytest.mark.parametrize("capability", COMPUTE_CAPABILITIES)
def test_the_other_kernels_compile_without_spills(
    capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from arabesque.extractors.optical_flow import tvl1_triton_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for function, num_warps, constants in other_kernels(kernels):
        used = resources_of(compile_kernel(function, capability, num_warps, **constants), tmp_path)
        assert used["STACK"] == used["LOCAL"] == 0, (function, used)


def other_kernels(kernels: Any) -> list[tuple[Any, int, dict[str, Any]]]:
    """Kernel, warps and constants of all kernels but `iterate`."""
    return [
        *((kernels.judge, 1, {"ITERATIONS": 5, "LAZY": lazy}) for lazy in (False, True)),
        (kernels.linearize, 4, {"CUBIC": -0.75, "REPLICATE": False, "PER_PX": 32, "PIXELS": 256}),
        (kernels.linearize, 4, {"CUBIC": -0.5, "REPLICATE": True, "PER_PX": 0, "PIXELS": 256}),
        *((kernels.filter_median, 4, {"SIDE_PX": side_px, "PIXELS": 256}) for side_px in (3, 5)),
        (kernels.begin_round, 4, {"IS_FILTERED": True, "INNER": 30, "ITERATIONS": 5, "PAIRS": 256}),
    ]


@pytest.mark.parametrize("card", AMD_CARDS)
def test_the_kernels_compile_for_rocm_without_spills(
    card: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from arabesque.extractors.optical_flow import tvl1_triton_kernels as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    iteration = kernels.iterate, 1, {"ITERATIONS": 5, "ROWS": 64, "COLUMNS": 64}
    for function, num_warps, constants in (iteration, *other_kernels(kernels)):
        compiled = compile_kernel(function, card, num_warps, **constants)
        used = dict(re.findall(r"\.(\w+_spill_count|private_segment_fixed_size):\s*(\d+)", compiled.asm["amdgcn"]))
        assert used == dict.fromkeys(("vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size"), "0")
        assert compiled.metadata.shared == 0


def test_defaults_follow_variant_and_mode() -> None:
    assert TVL1(variant="cuda").median_px == 1
    assert (TVL1(mode="fast").warps, TVL1(mode="fast", warps=4).warps, TVL1().warps) == (2, 4, 5)
    assert TVL1.model_validate(TVL1(mode="fast", variant="cuda").model_dump()) == TVL1(mode="fast", variant="cuda")
    with pytest.raises(ValueError, match=r'"cuda" has no median filter; remove median_px = 5'):
        TVL1(variant="cuda", median_px=5)


def test_compiles_where_no_cache_can_be_written() -> None:
    """A function without a file has no cache folder."""
    namespace: dict[str, Any] = {}
    exec("def following(number): return number + 1", namespace)
    assert compiled(namespace["following"])(1) == 2
