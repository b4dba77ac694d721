"""Feature rows of known content, for tests of the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from arabesque.pipeline.digests import row_key
from arabesque.pipeline.records import FeatureRow, Outcome, OutcomeKind
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.writer import StoreWriter

DIMS = {"vst": 4, "ast": 3}


def settings_of(stream: str, version: int = 1) -> str:
    return hashlib.sha256(f"{stream} {version}".encode()).hexdigest()[:32]


def manifest(version: int = 1, dims: Mapping[str, int] = DIMS) -> dict[str, Any]:
    streams = {
        stream: {"settings_digest": settings_of(stream, version), "dim": dim, "extractor_version": 1, "weights": {}}
        for stream, dim in dims.items()
    }
    return {"format": 1, "recipe": {"name": "test"}, "streams": streams, "made_with": {"arabesque": "0"}}


def new_store(root: Path, dims: Mapping[str, int] = DIMS) -> Path:
    write_manifest(root, manifest(dims=dims))
    return root


def row(
    video_id: str,
    stream: str = "vst",
    *,
    segments: int = 3,
    features: np.ndarray | None = None,
    content: str | None = None,
    version: int = 1,
    outcome: Literal["done", "partial"] = "done",
) -> FeatureRow:
    """Make a row. Features that are not given derive from its key: equal keys give equal rows."""
    settings = settings_of(stream, version)
    digest = hashlib.sha256((content or video_id).encode()).hexdigest()
    key = row_key(digest, settings)
    rng = np.random.default_rng(int(key, 16))
    if features is None:
        features = rng.standard_normal((segments, DIMS[stream]), dtype=np.float32)
    start_s = np.arange(len(features)) * 1.28
    return FeatureRow(
        video_id=video_id,
        stream=stream,
        key=key,
        content_digest=digest,
        settings_digest=settings,
        outcome=outcome,
        features=features.astype(np.float32),
        start_s=start_s,
        end_s=start_s + 1.28,
        provenance={"decoder": "pyav 18", "device": "cpu"},
    )


def outcome_of(
    row: FeatureRow, kind: OutcomeKind | None = None, *, reason: str = "", transient: bool = False
) -> Outcome:
    return Outcome(
        video_id=row.video_id,
        stream=row.stream,
        kind=kind or row.outcome,
        reason=reason,
        transient=transient,
        key=row.key,
        content_digest=row.content_digest,
        settings_digest=row.settings_digest,
        size_bytes=1000,
        modified_ns=2**60 + 1,
        frames_expected=96,
        frames_delivered=96,
        segments=len(row.features),
        decode_s=0.25,
        compute_s=1.5,
    )


def written(root: Any, *rows: FeatureRow, **options: Any) -> Any:
    """Write rows and their outcomes with a new writer into an existing store; return its root."""
    with StoreWriter(root, **options) as writer:
        for made in rows:
            writer.add(made)
            writer.add_outcome(outcome_of(made))
    return root


def shards(root: Path, folder: str = "stream=vst") -> list[Path]:
    return sorted((root / folder).glob("part-*.parquet"))
