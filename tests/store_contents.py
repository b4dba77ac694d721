"""The contents of a store in a form that can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arabesque.pipeline.store.reader import FeatureStore


def stored_rows(out: Path) -> tuple[dict[tuple[str, str], Any], dict[tuple[str, str], Any]]:
    """Return rows and outcomes by (video, stream), without writer and time."""
    store = FeatureStore(out, partial=True)
    rows = {
        (video, stream): (
            features.key,
            features.outcome,
            features.values.tobytes(),
            features.start_s.tobytes(),
            features.end_s.tobytes(),
        )
        for video in store
        for stream, features in store[video].items()
    }
    outcomes = {
        (end.video_id, end.stream): (end.kind, end.reason, end.key, end.segments, end.frames_expected)
        for end in store.outcomes()
    }
    return rows, outcomes
