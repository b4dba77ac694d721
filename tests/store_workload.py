"""A small run that fills a store, in a process of its own that can be killed. Reads orders from stdin, one JSON a line.

    {"do": "extract" | "set aside", "root": PATH, "kill_at": CALL | null, "kill_after_s": SECONDS | null}

Answers ``{"killed": bool, "calls": disk calls | null}``. Each order runs in a fork, so that imports are paid for once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # noqa: F401 pyarrow imports it at its first array, if it is there: once here, not in every fork
from store_rows import DIMS, manifest, outcome_of, row, settings_of
from tripwire import TrippedOs, pull_the_plug

from arabesque.pipeline.records import FeatureRow
from arabesque.pipeline.store import atomic_files, writer_locks
from arabesque.pipeline.store.compaction import compact, set_aside_stale
from arabesque.pipeline.store.manifest import MANIFEST, write_manifest
from arabesque.pipeline.store.progress_journal import read_progress
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter

VIDEOS = [f"Ball_{number:03d}" for number in range(5)]
SILENT = "Ball_003"


def expected() -> dict[tuple[str, str], FeatureRow]:
    """What an uninterrupted run leaves: every row but the one of the video without sound."""
    rows = [row(video_id, stream, segments=5) for video_id in VIDEOS for stream in DIMS]
    return {(one.video_id, one.stream): one for one in rows if (one.video_id, one.stream) != (SILENT, "ast")}


def extract(root: Path, *, by_timer: bool) -> None:
    """As a run does: resume from what is there, journal segments, add rows and outcomes, compact."""
    if not (root / MANIFEST).exists():
        write_manifest(root, manifest())
    store, journal = FeatureStore(root), read_progress(root)
    ended = {(outcome.video_id, outcome.stream) for outcome in store.outcomes()}
    with StoreWriter(root, max_age_s=0.004 if by_timer else 1000.0) as writer:
        for video_id in VIDEOS:
            for stream in DIMS:
                if (video_id, stream) in ended:
                    continue
                made = row(video_id, stream, segments=5)
                if (video_id, stream) == (SILENT, "ast"):
                    writer.add_outcome(outcome_of(made, "empty", reason="no audio track"))
                    continue
                compute(made, journal.get(made.key, {}), writer, pause_s=0.002 if by_timer else 0.0)
                writer.add(made)
                writer.add_outcome(outcome_of(made))
            if not by_timer and video_id in VIDEOS[1::2]:
                writer.flush()
        writer.flush()
        filled(root).touch()
        compact(root, writer.writer_id)


def filled(root: Path) -> Path:
    """Is there once every row is on disk, and none may ever be missing again."""
    return root.with_name(f"{root.name} is filled")


def compute(made: FeatureRow, finished: dict[int, Any], writer: StoreWriter, *, pause_s: float) -> None:
    for index, feature in enumerate(made.features):
        if index in finished:
            if not np.array_equal(finished[index].feature, feature):
                sys.exit(f"{made.video_id} {made.stream} {index}: the journal holds other numbers")
            continue
        time.sleep(pause_s)
        writer.add_progress(made.key, index, made.start_s[index], made.end_s[index], feature)
        if not pause_s and made.video_id in VIDEOS[2::3] and index == 2:
            writer.flush()


def obey(order: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        tripped = TrippedOs(-1 if order.get("kill_at") is None else order["kill_at"], pull_the_plug)
        for module in (atomic_files, writer_locks):
            setattr(module, "os", tripped)  # noqa: B010 to a type checker it is another module
        root = Path(order["root"])
        if order["do"] == "extract":
            extract(root, by_timer=order.get("kill_after_s") is not None)
        else:
            for stream in DIMS:
                set_aside_stale(root, stream, settings_of(stream))
        os.write(writing, str(tripped.calls).encode())
        os._exit(0)
    os.close(writing)
    if order.get("kill_after_s") is not None:
        time.sleep(order["kill_after_s"])
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"order {order} ended with status {status}")
    calls = os.read(reading, 20)
    os.close(reading)
    return {"killed": status != 0, "calls": int(calls) if calls else None}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)
