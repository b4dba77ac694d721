"""Rows of extractors on the CPU and on a simulated accelerator, and what a batch costs there, as JSON.

python tests/simulated_extractors.py NAME …

A batch of two segments goes through the stages ``prepare`` and ``network`` twice; the second time counts, because
tables are copied to the device when they are first used.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from extractor_cases import CASES, Case, OnePerson
from fakes import video
from numpy.typing import NDArray
from simulated_card import CARD, LAUNCHES, WAITS, simulated_card

from arabesque.extractor_contract import ExtractorContract
from arabesque.extractors import athlete_search
from arabesque.extractors.checkpoints import RandomWeights
from arabesque.extractors.protocol import Shared
from arabesque.extractors.table import build
from arabesque.pipeline.items import Batch, SegmentFeature, SegmentTask, Stream
from arabesque.pipeline.planning.plan import plan_video
from arabesque.pipeline.stages.compute import Forward, prepare


def main() -> None:
    torch.set_num_threads(1)
    results = {name: compared(name, CASES.get(name, Case())) for name in sys.argv[1:]}
    print(json.dumps(results))


def compared(name: str, case: Case) -> dict[str, Any]:
    """Return the largest difference between the devices as a share of a row's largest number, waits and launches."""
    contract = ExtractorContract(name + case.variant, num_frames=case.frames, settings=case.settings)
    with ExitStack() as stack:
        if name in ("pose", "key_points"):  # an untrained detector finds no one
            stack.enter_context(mock.patch.object(athlete_search, "load_detector", return_value=OnePerson()))
        on_cpu, _ = rows_on(contract, torch.device("cpu"))
        stack.enter_context(simulated_card())
        on_card, counts = rows_on(contract, CARD)
    differences = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(on_cpu, on_card, strict=True)]
    return {"difference": max(differences), **counts}


def rows_on(contract: ExtractorContract, device: torch.device) -> tuple[list[NDArray[np.float32]], dict[str, Any]]:
    """Return the rows, or parts, of two segments, and what their batch costs."""
    spec = contract.resolved
    extractor = build(spec, {role: RandomWeights(0) for role in spec.weights}, device)
    stream = Stream(contract.name, spec, extractor, "settings", {})
    plan, _ = plan_video(video(num_frames=40), [stream], {})
    network = Forward(device)
    features: list[NDArray[np.float32]] = []
    counts: dict[str, Any] = {}
    for _ in range(2):
        tasks: list[SegmentTask] = []
        for segment in contract.segments[:2]:
            frames = None if segment.frames is None else segment.frames.to(device)
            tasks.append(SegmentTask(plan, stream, replace(segment, frames=frames, shared=Shared())))
        counts = {}
        with counting(counts, "prepare"):
            prepared = [prepare(task) for task in tasks]
        assert all(isinstance(each, SegmentTask) for each in prepared), prepared
        with counting(counts, "forward"):
            results = network(Batch(stream, tuple(prepared))).results  # type: ignore[arg-type]
        assert all(isinstance(each, SegmentFeature) for each in results), results
        features = [each.feature for each in results]  # type: ignore[union-attr]
    return features, counts


class counting:
    """Count waits and launches in a block."""

    def __init__(self, counts: dict[str, Any], step: str) -> None:
        self._counts, self._step = counts, step

    def __enter__(self) -> None:
        WAITS.clear()
        LAUNCHES.clear()

    def __exit__(self, *_: object) -> None:
        waits = Counter[str]()
        for (_, kind, where), times in WAITS.items():
            waits[f"{where} {kind}"] += times
        self._counts[self._step] = {"waits": dict(waits), "launches": sum(LAUNCHES.values())}


if __name__ == "__main__":
    main()
