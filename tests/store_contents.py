"""What a store holds, in a form that two stores can be compared by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from arabesque.pipeline.store.reader import FeatureStore


def stored_rows(out: Path) -> tuple[dict[tuple[str, str], Any], dict[tuple[str, str], Any]]:
    """Rows and outcomes by (video, stream): all of them that does not say when or by whom it was written."""
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
    ends = {
        (end.video_id, end.stream): (end.kind, end.reason, end.key, end.segments, end.frames_expected)
        for end in store.outcomes()
    }
    return rows, ends
