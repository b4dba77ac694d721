"""Trainings that take a second: thirty videos whose scores are a function of their features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from arabesque.models.checkpoints import ModelCard
from arabesque.models.experiment import Experiment, Stage
from arabesque.models.features import LabeledSamples
from arabesque.models.metric_log import LogFormat
from arabesque.models.protocol import Protocol
from arabesque.models.samples import StreamSegments, stack_samples
from arabesque.models.table import resolve_settings
from arabesque.models.trainer import Trainer, split_of

DIMS = {"vst": 6, "ast": 4}
SMALL = {"hidden_dim": 8}


def make_data(streams: tuple[str, ...]) -> LabeledSamples:
    rng = np.random.default_rng(0)
    quality = rng.random(30)
    videos = {
        f"v{number:02d}": {
            stream: StreamSegments((quality[number] + 0.3 * rng.standard_normal((8, DIMS[stream]))).astype(np.float32))
            for stream in streams
        }
        for number in range(30)
    }
    entries: dict[str, dict[str, Any]] = {stream: {"settings_digest": stream} for stream in streams}
    return LabeledSamples(stack_samples(videos, {s: DIMS[s] for s in streams}), 10 * quality, entries)


def make_run(folder: Path | None, *, device: str = "cpu", log: LogFormat | None = None, **changes: Any) -> Trainer:
    """Return a trainer of a small network; ``before`` are stages before the last, ``stage`` fields of the last one."""
    protocol = {"epochs": 6, "batch_size": 8, "learning_rate": 0.003, "selection": "best-test", **changes}
    model, settings = protocol.pop("model", "context-attention"), protocol.pop("settings", SMALL)
    streams, before, fields = (
        protocol.pop("streams", ("vst", "ast")),
        protocol.pop("before", ()),
        protocol.pop("stage", {}),
    )
    last = Stage(
        protocol=Protocol.model_validate({key: value for key, value in protocol.items() if key != "seed"}), **fields
    )
    experiment = Experiment(model=model, settings=settings, streams=streams, stages=(*before, last))
    data = make_data(experiment.streams)
    data = replace(data, samples=data.samples.to(device))
    card = ModelCard(
        model=experiment.model,
        settings=resolve_settings(experiment.model, experiment.settings),
        dims=data.samples.dims,
        streams={name: dict(entry) for name, entry in data.streams.items()},
        target="score",
        score_range=(0, 10),
        protocol=experiment.protocol,
        seed=changes.get("seed", 0),
        trained_on=(),
        made_with={},
    )
    names = list(data.samples.video_ids)
    return Trainer(data, split_of(data, names[:20], names[20:]), experiment, card, folder, log=log)
