"""A small run that fills a store, in a process that can be killed. Reads requests from stdin, one JSON per line.

    {"do": "extract" | "archive" | "repair", "root": PATH, "kill_at": CALL | null, "kill_after_s": SECONDS | null}

Answers ``{"killed": bool, "calls": disk calls | null}``. Each request runs in a fork, so that modules are imported
once.
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
from tripwire import TrippedOs, kill_process

from arabesque.pipeline.records import FeatureRow
from arabesque.pipeline.store.concurrency import writer_locks
from arabesque.pipeline.store.files import local
from arabesque.pipeline.store.maintenance.compaction import archive_stale_rows, compact
from arabesque.pipeline.store.maintenance.repair import repair_store
from arabesque.pipeline.store.manifest import MANIFEST, write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.write_ahead_log import WriteAheadLog
from arabesque.pipeline.store.writer import StoreWriter

VIDEOS = [f"Ball_{number:03d}" for number in range(5)]
SILENT = "Ball_003"


def expected() -> dict[tuple[str, str], FeatureRow]:
    """Return the rows of an uninterrupted run: all but that of the video without audio."""
    rows = [row(video_id, stream, segments=5) for video_id in VIDEOS for stream in DIMS]
    return {(one.video_id, one.stream): one for one in rows if (one.video_id, one.stream) != (SILENT, "ast")}


def extract(root: Path, *, by_timer: bool) -> None:
    """Act as a run: resume, log segments, add rows and outcomes, compact."""
    if not (root / MANIFEST).exists():
        write_manifest(root, manifest())
    store, log = FeatureStore(root), WriteAheadLog(root)
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
                compute(made, log.get(made.key, {}), writer, pause_s=0.002 if by_timer else 0.0)
                writer.add(made)
                writer.add_outcome(outcome_of(made))
            if not by_timer and video_id in VIDEOS[1::2]:
                writer.flush()
        writer.flush()
        filled(root).touch()
        compact(root, writer.writer_id)


def filled(root: Path) -> Path:
    """Return the marker file that is created when every row is on disk; from then on no row may be lost."""
    return root.with_name(f"{root.name} is filled")


def compute(made: FeatureRow, finished: dict[int, Any], writer: StoreWriter, *, pause_s: float) -> None:
    for index, feature in enumerate(made.features):
        if index in finished:
            if not np.array_equal(finished[index].feature, feature):
                sys.exit(f"{made.video_id} {made.stream} {index}: the log holds other numbers")
            continue
        time.sleep(pause_s)
        writer.add_progress(made.key, index, made.start_s[index], made.end_s[index], feature)
        if not pause_s and made.video_id in VIDEOS[2::3] and index == 2:
            writer.flush()


def handle(request: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        tripped = TrippedOs(-1 if request.get("kill_at") is None else request["kill_at"], kill_process)
        for module in (local, writer_locks):
            setattr(module, "os", tripped)  # noqa: B010 to a type checker it is another module
        root = Path(request["root"])
        if request["do"] == "extract":
            extract(root, by_timer=request.get("kill_after_s") is not None)
        elif request["do"] == "repair":
            repair_store(root)
        else:
            for stream in DIMS:
                archive_stale_rows(root, stream, settings_of(stream))
        os.write(writing, str(tripped.calls).encode())
        os._exit(0)
    os.close(writing)
    if request.get("kill_after_s") is not None:
        time.sleep(request["kill_after_s"])
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"request {request} ended with status {status}")
    calls = os.read(reading, 20)
    os.close(reading)
    return {"killed": status != 0, "calls": int(calls) if calls else None}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(handle(json.loads(line))), flush=True)
