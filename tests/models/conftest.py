"""Feature stores with scores that a model can learn from the features."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from narrow_networks import narrow_networks

from arabesque.model_contract import random_batch as draw_batch
from arabesque.models.scoring import SegmentBatch
from arabesque.pipeline.digests import row_key
from arabesque.pipeline.records import FeatureRow, Outcome
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.writer import StoreWriter

DIMS = {"motion": 120, "rhythm": 40}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def narrow() -> Iterator[None]:
    """Networks of PAMFN's family have few channels; see `narrow_networks`."""
    with narrow_networks():
        yield


@pytest.fixture
def learnable(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """``learnable(num_videos)``: (store, labels.csv); three latent variables and noise, 7 to 11 segments per video."""

    def make(num_videos: int, *, seed: int = 0, silent: int = 0, partial: int = 0) -> tuple[Path, Path]:
        rng = np.random.default_rng(seed)
        mixing = {stream: rng.standard_normal((3, dim)) for stream, dim in DIMS.items()}
        store = new_store(tmp_path / f"features-{seed}")
        scores: dict[str, float] = {}
        with StoreWriter(store) as writer:
            for number in range(num_videos):
                video_id = f"routine_{number:03d}"
                latents = rng.random(3)
                scores[video_id] = round(float(4 + latents @ [8, 6, 4] + 0.3 * rng.standard_normal()), 2)
                segments = int(rng.integers(7, 12))
                for stream, dim in DIMS.items():
                    if stream == "rhythm" and number < silent:
                        writer.add_outcome(Outcome(video_id, stream, "empty", settings_digest=settings_of(stream)))
                        continue
                    noisy = latents + 0.2 * rng.standard_normal((segments, 3))
                    features = noisy @ mixing[stream] + 0.5 * rng.standard_normal((segments, dim))
                    writer.add(row(video_id, stream, features, "partial" if number >= num_videos - partial else "done"))
        return store, write_labels(tmp_path / f"labels-{seed}.csv", scores)

    return make


def new_store(root: Path, dims: dict[str, int] | None = None) -> Path:
    """Create an empty store with these streams."""
    streams = {
        stream: {"settings_digest": settings_of(stream), "dim": dim, "extractor_version": 1, "weights": {}}
        for stream, dim in (dims or DIMS).items()
    }
    write_manifest(root, {"format": 1, "recipe": {"name": "test"}, "streams": streams, "made_with": {}})
    return root


def settings_of(stream: str) -> str:
    return hashlib.sha256(stream.encode()).hexdigest()[:32]


def row(video_id: str, stream: str, features: np.ndarray, outcome: Literal["done", "partial"] = "done") -> FeatureRow:
    content = hashlib.sha256(video_id.encode()).hexdigest()
    start_s = np.arange(0.0, len(features)) * 1.28
    return FeatureRow(
        video_id=video_id,
        stream=stream,
        key=row_key(content, settings_of(stream)),
        content_digest=content,
        settings_digest=settings_of(stream),
        outcome=outcome,
        features=features.astype(np.float32),
        start_s=start_s,
        end_s=start_s + 1.28,
    )


def write_labels(path: Path, scores: dict[str, float]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "score"])
        writer.writerows(scores.items())
    return path


@pytest.fixture
def random_batch() -> Callable[..., SegmentBatch]:
    """``random_batch({"a": 8}, lengths={"a": [5, 3]})``: seeded features with zeros and False in the padding."""

    return draw_batch
