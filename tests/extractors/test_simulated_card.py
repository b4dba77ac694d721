"""Extractors and runs on a simulated accelerator: rows are those of the CPU, and waits are limited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from arabesque.extractors.precision import TOLERANCES
from arabesque.extractors.table import EXTRACTORS

TESTS = Path(__file__).parents[1]
NUM_SEGMENTS = 2
COMPUTED_ON_THE_CPU = ("motion", "rhythm", "signatures", "transnet", "i3d_flow", "optical_flow", "pose", "key_points")
"""`prepare` computes on the CPU, so that it needs the frames of each segment there; the default flow is OpenCV's."""
WAITS_OF_A_BATCH = {
    **dict.fromkeys(("motion", "rhythm", "signatures", "loudness", "optical_flow"), 0),
    "resnet_crop": 2,  # boxes decide which crops the network sees
    "pose": 4,  # upright crops, turned ones, those turned to the body, and the colors of the boxes
    "key_points": 4,
    "small crops": 3,  # boxes, rows, and the colors of the boxes
    "small flow": 2,  # TV-L1 has no kernel for this device and runs on the CPU
}


REFINED = 1e-4
"""Key points are refined by the curvature of maps, which makes the last digits of other kernels larger: 2.3e-5."""


def measured(tmp_path: Path, *names: str) -> dict[str, Any]:
    """Run the script in a separate process, because the simulated device stays registered with PyTorch."""
    command = [sys.executable, str(TESTS / "simulated_extraction.py"), str(tmp_path), *names]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(name: str, found: dict[str, Any]) -> None:
    """Check that rows are those of the CPU, and the number of waits of the host in a batch."""
    assert found["difference"] <= (REFINED if name in ("pose", "key_points") else TOLERANCES["float32"])
    prepare, forward = (sum(found[step]["waits"].values()) for step in ("prepare", "forward"))
    on_cpu = name in COMPUTED_ON_THE_CPU or name == "small crops"
    assert prepare == (NUM_SEGMENTS if on_cpu else 0), found["prepare"]
    assert forward <= WAITS_OF_A_BATCH.get(name, 1), found["forward"]


def test_a_run_and_small_networks_on_an_accelerator(tmp_path: Path) -> None:
    found = measured(tmp_path, "small clips", "small crops", "small flow", "run")
    run = found.pop("run")
    assert run["difference"] <= TOLERANCES["float32"]
    waits: dict[str, int] = {}
    for thread, places in run["waits"].items():
        for where, times in places.items():
            if thread != "MainThread":  # it copies networks before the first video
                file = where.partition(":")[0]
                waits[file] = waits.get(file, 0) + times
    assert waits.pop("pipeline/stages/transfer.py") <= 2  # the chunks of the clip
    assert waits.pop("extractors/athlete_motion.py") == run["segments"]["motion"]
    assert waits == {"extractors/device_copies.py": 1}, waits  # all images are one batch
    for name, counts in found.items():
        check(name, counts)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EXTRACTORS, "pytorchvideo"])
def test_every_extractor_on_an_accelerator(name: str, tmp_path: Path) -> None:
    check(name, measured(tmp_path, name)[name])
