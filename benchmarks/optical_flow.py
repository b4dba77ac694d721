"""Measure speed and accuracy of each optical flow, beside OpenCV's and torchvision's own in the same run.

    python benchmarks/optical_flow.py                             all devices and methods of this machine
    python benchmarks/optical_flow.py --device cuda --methods tvl1 raft_large

Frames of 256 × 341 px are on the device before the measurement starts; warm-up (compilation, caches) is reported
separately. The implementations alternate, and the best round of each counts. Accuracy is the end-point error on a
synthetic scene with known flow, and for TV-L1 the difference from OpenCV's on real frames.

Needs only torch, torchvision, numpy and pydantic, so that it runs on a GPU machine without further packages; on a CPU,
TV-L1 also needs numba. OpenCV's rows need cv2, and its TV-L1 opencv-contrib, which replaces opencv-python for one run:

    uv pip install --no-deps --target /tmp/contrib opencv-contrib-python-headless
    PYTHONPATH=/tmp/contrib python benchmarks/optical_flow.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measured import (
    ROOT,
    Found,
    measured_or_read,
    parser_for,
)  # first: it makes arabesque importable if it is not installed
from moving_texture import MovingTexture, moving_texture
from optical_flow_floors import raft_floors, tvl1_floors
from optical_flow_references import opencv_flow, pairwise_raft
from torch import Tensor
from torchvision.models import optical_flow

from arabesque.extractors.checkpoints import CheckpointFile, RandomWeights, read_state_dict
from arabesque.extractors.engines import ENGINES, building_for
from arabesque.extractors.optical_flow import METHODS, make_flow
from arabesque.extractors.optical_flow.opencv import Dis, Farneback
from arabesque.extractors.optical_flow.raft import Raft
from arabesque.extractors.optical_flow.tvl1 import tvl1
from arabesque.extractors.optical_flow.tvl1_settings import TVL1

SETTINGS: dict[str, Any] = {
    "dis": Dis(),
    "farneback": Farneback(),
    "tvl1": TVL1(),
    "tvl1_fast": TVL1(mode="fast"),
    "tvl1_cuda": TVL1(variant="cuda"),
    "raft_large": Raft(),
    "raft_small": Raft(model="raft_small"),
    "raft_large_bfloat16": Raft(network_precision="bfloat16"),
}
"""Rows of the table. ``tvl1_cuda`` is denseflow's arithmetic, on any device."""

COLUMNS = {
    "pairs_per_s": ("pairs/s", 9, 1),
    "cpu_s_per_pair": ("CPU s", 8, 4),
    "ratio": ("ratio", 7, 2),
    "differs_px": ("differ px", 11, 5),
    "error_mean_px": ("error px", 10, 3),
    "error_p95_px": ("95 %", 8, 3),
}
"""Field of a row → its title, width and digits."""

Flow = Callable[[Tensor], Tensor]
"""``uint8 [time, channels, height, width]`` → ``float32 [time - 1, 2, height, width]``"""


@dataclass
class Contender:
    """One implementation of one method on one device."""

    implementation: str
    flow: Flow
    frames: Tensor
    result: Tensor = field(default_factory=lambda: torch.empty(0))
    warm_up_s: float = 0.0
    best_s: float = float("inf")
    best_cpu_s: float = float("inf")

    @property
    def pairs_per_s(self) -> float:
        return (len(self.frames) - 1) / self.best_s

    def run(self) -> float:
        """Return the seconds for all pairs."""
        began, began_cpu = time.perf_counter(), time.process_time()
        self.result = self.flow(self.frames)
        if self.frames.is_cuda:
            torch.cuda.synchronize()
        self.best_cpu_s = min(self.best_cpu_s, time.process_time() - began_cpu)
        return time.perf_counter() - began


@dataclass(frozen=True)
class Row:
    """Figures of a contender."""

    method: str
    device: str
    implementation: str
    num_pairs: int
    pairs_per_s: float
    cpu_s_per_pair: float
    """CPU time of all threads, which other load affects least."""
    warm_up_s: float
    ratio: float | None
    """Speed of our implementation ÷ that of the other, if both ran on this device."""
    differs_px: float | None
    """Mean end-point difference between the two implementations."""
    error_mean_px: float | None
    error_p95_px: float | None
    """End-point error on the synthetic scene; None for random weights."""


def main(given: Sequence[str] | None = None) -> None:
    options = parse(given)
    torch.set_num_threads(options.threads)
    titles = "".join(f"{title:>{width}}" for title, width, _ in COLUMNS.values())
    print(f"{'method':12}{'device':8}{'by':14}{titles}")
    found = measured_or_read(options, lambda: measure(options), ["torch", "torchvision", "numpy"])
    for row in found["rows"] if options.redraw else []:
        show(row)
    print(json.dumps({name: found[name] for name in ("difference_from_opencv_on_real_frames", "floors")}, indent=1))
    if options.chart is not None:
        draw(found, options.chart)


def measure(options: argparse.Namespace) -> Found:
    rows: list[Row] = []
    floors: dict[str, Any] = {}
    for device in options.device:
        scene = moving_texture((options.gpu_pairs if device == "cuda" else options.pairs) + 1, *options.size)
        for method in options.methods:
            if device == "cpu" or METHODS[SETTINGS[method].method].runs_in == "forward":
                rows += race(method, device, scene, options)
            if device == "cuda":
                floors |= floors_of(method, scene, options)
    return {
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": options.threads,
        "frames_px": options.size,
        "rows": [asdict(row) for row in rows],
        "difference_from_opencv_on_real_frames": golden(options.golden, options.device),
        "floors": floors,
    }


def draw(found: Found, path: Path) -> None:
    """Draw the speed of each method relative to the other implementation, if there is one."""
    from charts import BLUE, aim, bars, picture

    raced = [row for row in found["rows"] if row["ratio"] is not None]
    others = {(row["method"], row["device"]): row for row in found["rows"] if row["implementation"] != "arabesque"}
    rows = {row["method"]: {"": row["ratio"]} for row in raced}
    notes = {
        (
            row["method"],
            "",
        ): f"   {row['pairs_per_s']:.3g} pairs/s, {other['implementation']} {other['pairs_per_s']:.3g}"
        for row in raced
        for other in [others[row["method"], row["device"]]]
    }
    title = "Optical flow: how many times as fast as OpenCV's and torchvision's own"
    with picture(path, title, found, 1.3 + 0.36 * len(rows)) as (axes,):
        bars(axes, rows, "times as fast", colors={"": BLUE}, told="{:.2f} ×".format, notes=notes, room=1.5)
        aim(axes, 1.0, "as fast as theirs")


def parse(given: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_for(__doc__)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    parser.add_argument("--device", nargs="+", choices=["cpu", "cuda"], default=devices)
    parser.add_argument("--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--engine", choices=ENGINES, default="torch", help="of RAFT's networks")
    parser.add_argument("--size", nargs=2, type=int, default=[256, 341], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--pairs", type=int, default=16, help="on a CPU")
    parser.add_argument("--gpu-pairs", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--weights", nargs="*", default=[], metavar="MODEL=FILE", help="torchvision's RAFT checkpoints")
    parser.add_argument(
        "--golden", nargs="*", type=Path, default=sorted((ROOT / "tests" / "golden").glob("tvl1_*.npz"))
    )
    return parser.parse_args(given)


def race(method: str, device: str, scene: MovingTexture, options: argparse.Namespace) -> list[Row]:
    """Measure our implementation and, if there is one, the other, alternately."""
    contenders = contenders_for(method, device, scene, options)
    for contender in contenders:
        contender.warm_up_s = contender.run()
    for _ in range(options.repeats):
        for contender in contenders:
            contender.best_s = min(contender.best_s, contender.run())
    ours, *others = contenders
    means_something = not method.startswith("raft") or method in dict(weights_given(options))
    rows: list[Row] = []
    for contender in contenders:
        ratio = ours.pairs_per_s / others[0].pairs_per_s if others and contender is ours else None
        differs = float((ours.result - others[0].result).norm(dim=1).mean()) if ratio else None
        mean_px, p95_px = scene.error_px(contender.result) if means_something else (None, None)
        rows.append(
            Row(
                method,
                device,
                contender.implementation,
                len(contender.frames) - 1,
                contender.pairs_per_s,
                contender.best_cpu_s / (len(contender.frames) - 1),
                contender.warm_up_s,
                ratio,
                differs,
                mean_px,
                p95_px,
            )
        )
        show(asdict(rows[-1]))
    return rows


def contenders_for(method: str, device: str, scene: MovingTexture, options: argparse.Namespace) -> list[Contender]:
    settings = SETTINGS[method]
    frames = (scene.frames if METHODS[settings.method].color else scene.gray[:, None]).to(device)
    weights = raft_weights(method, options)
    with building_for(options.engine):
        contenders = [Contender("arabesque", of_one_clip(settings, weights, torch.device(device)), frames)]
    if isinstance(settings, Raft):
        state_dict = raft_state_dict(settings, weights["flow"])
        contenders.append(Contender("torchvision", pairwise_raft(settings, torch.device(device), state_dict), frames))
    elif device == "cpu" and method in ("dis", "farneback", "tvl1"):
        other = opencv_flow(method, options.threads)
        if other is not None:
            contenders.append(Contender("OpenCV", other, frames))
    return contenders


def weights_given(options: argparse.Namespace) -> list[tuple[str, Path]]:
    pairs = [given.partition("=") for given in options.weights]
    return [(model, Path(path)) for model, _, path in pairs]


def raft_weights(method: str, options: argparse.Namespace) -> dict[str, CheckpointFile | RandomWeights]:
    path = dict(weights_given(options)).get(method)
    if path is None:
        return {"flow": RandomWeights(0)}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"flow": CheckpointFile(method, path, digest, "raft-torchvision")}


def raft_state_dict(settings: Raft, weights: CheckpointFile | RandomWeights) -> dict[str, Tensor]:
    if isinstance(weights, CheckpointFile):
        return read_state_dict(weights)
    torch.manual_seed(weights.seed)
    return getattr(optical_flow, settings.model)(weights=None).state_dict()


def of_one_clip(settings: Any, weights: Mapping[str, Any], device: torch.device) -> Callable[[Tensor], Tensor]:
    flow = make_flow(settings, weights, device)
    return lambda frames: flow([frames])[0]


def floors_of(method: str, scene: MovingTexture, options: argparse.Namespace) -> dict[str, Any]:
    settings = SETTINGS[method]
    device = torch.device("cuda")
    if isinstance(settings, TVL1):
        endless = settings.model_copy(update={"epsilon": 0.0})
        frames = scene.gray[:33, None].to(device)
        return {method: tvl1_floors(of_one_clip(endless, {}, device), endless, frames)}
    if isinstance(settings, Raft):
        flow = of_one_clip(settings, raft_weights(method, options), device)
        return {method: raft_floors(flow, settings, scene.frames[:33].to(device))}
    return {}


def golden(paths: Sequence[Path], devices: Sequence[str]) -> list[dict[str, Any]]:
    """Compare TV-L1 with OpenCV 5.0's flow between real frames: files with ``gray``, ``median1`` and ``median5``."""
    found: list[dict[str, Any]] = []
    for path in paths:
        with np.load(path) as arrays:
            for device in devices:
                gray = torch.from_numpy(arrays["gray"]).to(device)
                for mode, median_px in (("exact", 1), ("exact", 5), ("fast", 5)):
                    flow = tvl1(gray, TVL1.model_validate({"mode": mode, "median_px": median_px}))[0].cpu()
                    wanted = torch.from_numpy(arrays[f"median{median_px}"]).float().permute(2, 0, 1)
                    distance = (flow - wanted).norm(dim=0)
                    figures = {"mean_px": float(distance.mean()), "p95_px": float(distance.quantile(0.95))}
                    found.append({"pair": path.stem, "device": device, "mode": mode, "median_px": median_px} | figures)
    return found


def show(row: Found) -> None:
    values = ((row[name], width, digits) for name, (_, width, digits) in COLUMNS.items())
    cells = "".join(f"{'–' if value is None else f'{value:.{digits}f}':>{width}}" for value, width, digits in values)
    print(f"{row['method']:12}{row['device']:8}{row['implementation']:14}{cells}", flush=True)


if __name__ == "__main__":
    main()
