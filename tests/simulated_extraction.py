"""Compare features on the CPU and on a simulated accelerator, and print differences, waits and launches as JSON.

python tests/simulated_extraction.py FOLDER NAME …

NAME is an extractor of the table, one of `SMALL`, or ``run``, which extracts a clip with several streams. A batch of
two segments passes the stages ``prepare`` and ``network`` twice; the second time counts, because tables are copied to
the device when they are first used.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from clips import Clip, write_clip
from extractor_cases import CASES, Case, OnePerson
from fakes import video
from numpy.typing import NDArray
from simulated_card import CARD, LAUNCHES, WAITS, simulated_card
from torch import Tensor, nn
from torchvision.models.video import SwinTransformer3d

from arabesque.extractor_contract import ExtractorContract
from arabesque.extractors import athlete_search
from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.protocol import SegmentInput, Shared, VideoParts
from arabesque.extractors.table import build
from arabesque.manifests.recipes import parse_recipe
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import Batch, SegmentFeature, SegmentTask, Stream
from arabesque.pipeline.options import RunOptions
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.records import Outcome
from arabesque.pipeline.stages.compute import Forward, prepare
from arabesque.pipeline.store.reader import FeatureStore

CPU = torch.device("cpu")


def narrow_swin(**_: Any) -> SwinTransformer3d:
    """Video Swin with few channels and blocks; its windows are shifted as in the published one."""
    return SwinTransformer3d([2, 4, 4], 8, [2, 2, 2, 2], [1, 2, 4, 8], [8, 7, 7], num_classes=400)


class FewPeople(nn.Module):
    """Replaces YOLOv3: finds three people in each picture, one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        boxes = [[200, 300, 90, 200], [205, 300, 90, 200], [400, 320, 120, 260], [320, 300, 50, 101]]
        self.boxes = nn.Buffer(torch.tensor(boxes, dtype=torch.float32))

    def forward(self, pictures: Tensor) -> Tensor:
        brightness = pictures.mean(dim=(1, 2, 3))[:, None, None]
        scores = brightness.expand(-1, len(self.boxes), 1)
        found = [self.boxes.expand(len(pictures), -1, -1) + brightness, torch.ones_like(scores), scores]
        return torch.cat([*found, torch.zeros(*scores.shape[:2], 79, device=pictures.device)], dim=2)


@dataclass(frozen=True)
class Small:
    """Settings and replacements that make an extractor small."""

    extractor: str
    case: Case
    patches: Mapping[str, Any]
    """``module.name`` in extractors → its replacement"""
    dim: int | None = None


SMALL_PICTURES = {"steps": [{"size_px": [64, 64]}]}
SMALL: dict[str, Small] = {
    "small clips": Small(
        "video_swin_b",
        Case(frames=2, settings={"geometry": {"steps": [{"size_px": [80, 80]}]}}),
        {"video_swin.swin3d_b": narrow_swin},
        dim=64,
    ),
    "small flow": Small(
        "optical_flow",
        Case(
            frames=3,
            settings={
                "flow": {"method": "tvl1", "mode": "fast", "scales": 1},
                "geometry": {"steps": [{"size_px": [32, 32]}], "gray": True},
            },
        ),
        {},
    ),
    "small crops": Small(
        "resnet_crop",
        Case(
            frames=1,
            settings={
                "detector": "yolov3",
                "athlete": "track",
                "link_threshold": 0.2,
                "crop_geometry": SMALL_PICTURES,
            },
        ),
        {"yolov3.load_yolov3": lambda _: FewPeople()},
    ),
}
RECIPE = """
name = "small"
summary = "streams of each kind"
[sampling]
fps = 8
frames_per_segment = 8
frames_per_step = 6
remainder = "pad-last"
[streams.motion]
extractor = "motion"
settings = { short_side_px = 48 }
[streams.images]
extractor = "torchvision:mobilenet_v3_small.IMAGENET1K_V1"
settings = { geometry = { steps = [{ size_px = [32, 32] }] } }
[streams.sound]
extractor = "loudness"
"""


def main() -> None:
    torch.set_num_threads(1)
    folder, *names = sys.argv[1:]
    results: dict[str, Any] = {}
    for name in names:
        if name == "run":
            results[name] = compared_runs(Path(folder))
        else:
            results[name] = compared(SMALL.get(name) or Small(name, CASES.get(name, Case()), {}))
    print(json.dumps(results))


def compared(small: Small) -> dict[str, Any]:
    """Return the largest difference between the devices as a share of a row's largest number, waits and launches."""
    name, case = small.extractor, small.case
    contract = ExtractorContract(name + case.variant, num_frames=case.frames, settings=case.settings)
    with ExitStack() as stack:
        if name in ("pose", "key_points"):  # an untrained detector finds no one
            stack.enter_context(mock.patch.object(athlete_search, "load_detector", return_value=OnePerson()))
        for patched, replacement in small.patches.items():
            stack.enter_context(mock.patch(f"arabesque.extractors.{patched}", replacement))
        on_cpu, _ = rows_on(contract, CPU, small.dim)
        stack.enter_context(simulated_card())
        on_card, counts = rows_on(contract, CARD, small.dim)
    return {"difference": largest_difference(on_cpu, on_card), "length": len(on_cpu[0]), **counts}


def largest_difference(of_cpu: list[NDArray[np.float32]], of_card: list[NDArray[np.float32]]) -> float:
    """Return the largest difference as a share of a row's largest number."""
    assert len(of_cpu) > 0
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)) for a, b in zip(of_cpu, of_card, strict=True))


def rows_on(
    contract: ExtractorContract, device: torch.device, dim: int | None
) -> tuple[list[NDArray[np.float32]], dict[str, Any]]:
    """Return the rows, or parts, of two segments, and the waits and launches of their batch."""
    spec = contract.resolved
    extractor = build(spec, {role: RandomWeights(0) for role in spec.weights}, device)
    if dim is not None:
        extractor.dim, extractor.shape = dim, (dim,)
    stream = Stream(contract.name, spec, extractor, "settings")
    plan, _ = plan_video(video(num_frames=40), [stream], {})
    network = Forward(device)
    features: list[NDArray[np.float32]] = []
    counts: dict[str, Any] = {}
    for _ in range(2):
        tasks: list[SegmentTask] = []
        for segment in contract.segments[:2]:
            frames = None if segment.frames is None else segment.frames.to(device)
            tasks.append(SegmentTask(plan, stream, replace(segment, frames=frames, shared=Shared())))
        with counting(counts, "prepare"):
            prepared = [prepare(task) for task in tasks]
        done = [each for each in prepared if isinstance(each, SegmentTask)]
        assert len(done) == len(prepared), prepared
        with counting(counts, "forward"):
            results = network(Batch(stream, tuple(done))).results
        rows = [each.feature for each in results if isinstance(each, SegmentFeature)]
        features = [row_of(extractor, row, segment) for row, segment in zip(rows, contract.segments, strict=False)]
        assert len(features) == len(results), results
    return features, counts


def row_of(extractor: Any, row: NDArray[np.float32] | None, segment: SegmentInput) -> NDArray[np.float32]:
    """Return a row; that of a part is made as if its segment were a whole video."""
    assert row is not None
    if not hasattr(extractor, "start_video"):
        return row
    parts: VideoParts = extractor.start_video()
    parts.add(0, row, segment.frame_times_s[: int(row[1])])
    finished = parts.finish()
    assert finished.boxes is not None
    edges = np.nan_to_num(finished.boxes.edges_px.ravel()) / np.float32(finished.boxes.width_px)
    return np.concatenate([finished.features[0], edges])


def compared_runs(folder: Path) -> dict[str, Any]:
    """Extract a clip twice on each device; return the largest difference, and the waits of each stage's threads."""
    (folder / "videos").mkdir()
    write_clip(folder / "videos/a.mp4", Clip(num_frames=75, beeps_s=(0.5, 1.5)))
    stores: list[FeatureStore] = []
    stages: dict[str, Counter[str]] = {}
    for device in (CPU, CARD):
        with simulated_card():
            for out in (folder / f"{device.type}-first", folder / device.type):  # tables are copied in the first
                WAITS.clear()
                options = RunOptions(device=device, num_decoders=1, num_cpu_threads=1)
                recipe = parse_recipe(RECIPE, "small.toml")
                run = Extraction(folder / "videos", recipe, out, weights="random:0", options=options)
                outcomes = {event.stream: event.kind for event in run if isinstance(event, Outcome)}
                assert outcomes == dict.fromkeys(("motion", "images", "sound"), "done"), outcomes
        stores.append(FeatureStore(out))
    for (thread, kind, where), times in WAITS.items():
        stages.setdefault(thread, Counter())[f"{where} {kind}"] += times
    found = [[store["a"][name].values for name in store["a"]] for store in stores]
    numbers = {name: len(stores[1]["a"][name].values) for name in stores[1]["a"]}
    return {"difference": largest_difference(*found), "waits": stages, "segments": numbers}


@contextmanager
def counting(counts: dict[str, Any], step: str) -> Iterator[None]:
    """Count the waits and launches in a block."""
    WAITS.clear()
    LAUNCHES.clear()
    yield
    waits = Counter[str]()
    for (_, kind, where), times in WAITS.items():
        waits[f"{where} {kind}"] += times
    counts[step] = {"waits": dict(waits), "launches": sum(LAUNCHES.values())}


if __name__ == "__main__":
    main()
