"""Trainings of a second: thirty routines whose features say how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from arabesque.models.checkpoints import ModelCard
from arabesque.models.experiment import Experiment
from arabesque.models.features import LabelledRoutines
from arabesque.models.protocol import Protocol
from arabesque.models.routines import Placed, stack_routines
from arabesque.models.seed_run import SeedRun, split_of
from arabesque.models.table import resolve_settings

DIMS = {"vst": 6, "ast": 4}
SMALL = {"hidden_dim": 8}


def make_data(streams: tuple[str, ...]) -> LabelledRoutines:
    rng = np.random.default_rng(0)
    quality = rng.random(30)
    videos = {
        f"v{number:02d}": {
            stream: Placed((quality[number] + 0.3 * rng.standard_normal((8, DIMS[stream]))).astype(np.float32))
            for stream in streams
        }
        for number in range(30)
    }
    entries: dict[str, dict[str, Any]] = {stream: {"settings_digest": stream} for stream in streams}
    return LabelledRoutines(stack_routines(videos, {s: DIMS[s] for s in streams}), 10 * quality, entries)


def make_run(folder: Path, **changes: Any) -> SeedRun:
    protocol = {"epochs": 6, "batch_size": 8, "learning_rate": 0.003, "selection": "best-test", **changes}
    experiment = Experiment(
        model=protocol.pop("model", "context-attention"),
        settings=protocol.pop("settings", SMALL),
        streams=protocol.pop("streams", ("vst", "ast")),
        branches=protocol.pop("branches", None),
        protocol=Protocol.model_validate({key: value for key, value in protocol.items() if key != "seed"}),
    )
    data = make_data(experiment.streams)
    card = ModelCard(
        model=experiment.model,
        settings=resolve_settings(experiment.model, experiment.settings),
        dims=data.routines.dims,
        streams={name: dict(entry) for name, entry in data.streams.items()},
        target="score",
        score_range=(0, 10),
        protocol=experiment.protocol,
        seed=changes.get("seed", 0),
        trained_on=(),
        made_with={},
    )
    names = list(data.routines.video_ids)
    return SeedRun(data, split_of(data, names[:20], names[20:]), experiment, card, folder)
