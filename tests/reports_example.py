"""A store with hostile names, one real clip, a model and labels, for tests of reports."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from store_rows import manifest, outcome_of, row

from arabesque.cli.demo_videos.routines import write_routine
from arabesque.models.checkpoints import ModelCard, new_network, save_checkpoint
from arabesque.models.protocol import Protocol
from arabesque.models.table import resolve_settings
from arabesque.pipeline.records import Outcome
from arabesque.pipeline.store.manifest import read_manifest, write_manifest
from arabesque.pipeline.store.writer import StoreWriter

HOSTILE = "<script>alert(1)<b>"
"""The id of the clip: a valid file name"""
QUOTED = "a'b\"&amp;/é"
REASON = "<img src=x onerror=alert(2)>: cannot be decoded"
DIMS = {"motion": 222, "rhythm": 62}


@dataclass(frozen=True)
class Example:
    store: Path
    videos: Path
    model: Path
    labels: Path
    ids: tuple[str, ...]


def make_example(root: Path) -> Example:
    """Make ten videos with features, one of them without audio, one with a hole, two with equal bytes; one failed."""
    (root / "videos").mkdir()
    write_routine(root / "videos" / f"{HOSTILE}.mp4", 3, duration_s=3.0)
    described = manifest(dims=DIMS)
    described["recipe"] |= {"streams": {name: {"extractor": name} for name in DIMS}}
    described["inputs"] = {"folder": str(root / "videos"), "videos": 14}
    write_manifest(root / "features", described)
    ids = (HOSTILE, QUOTED, *(f"club/routine_{number}" for number in range(8)))
    rng = np.random.default_rng(0)
    with StoreWriter(root / "features") as writer:
        for index, name in enumerate(ids):
            for stream, dim in DIMS.items():
                if (name, stream) == ("club/routine_7", "rhythm"):
                    writer.add_outcome(Outcome(name, stream, "empty", "the video has no audio track"))
                    continue
                values = rng.standard_normal((2 if name == HOSTILE else 5, dim)).astype(np.float32)
                content = "club/routine_0" if index == 3 else name
                made = row(name, stream, features=values, content=content)
                is_partial = (name, stream) == ("club/routine_6", "motion")
                writer.add(replace(made, outcome="partial") if is_partial else made)
                outcome = outcome_of(made, "partial" if is_partial else None, reason="1 hole" if is_partial else "")
                holes = {"holes": ((1.0, 2.0),), "lost_share": 0.16} if is_partial else {}
                writer.add_outcome(replace(outcome, **holes))
        for stream in DIMS:
            writer.add_outcome(Outcome("broken", stream, "failed", REASON))
    streams = read_manifest(root / "features")["streams"]
    card = ModelCard(
        model="context-attention",
        settings=resolve_settings("context-attention", {"hidden_dim": 8}),
        dims=DIMS,
        streams=streams,
        target="score",
        score_range=(0, 25),
        protocol=Protocol(epochs=1),
        seed=0,
        trained_on=ids[:3],
        made_with={},
    )
    save_checkpoint(root / "model", new_network(card), card)
    lines = [f'"{name.replace(chr(34), chr(34) * 2)}",{8 + index}' for index, name in enumerate(ids)]
    (root / "labels.csv").write_text("\n".join(["video_id,score", *lines]) + "\n")
    return Example(root / "features", root / "videos", root / "model", root / "labels.csv", ids)
