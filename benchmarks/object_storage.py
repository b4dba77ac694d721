"""Measure a store on object storage: requests by kind, and seconds with the latency of real requests.

python benchmarks/object_storage.py [--videos 600] [--shards 30] [--latency-ms 30] [--json FILE] [--chart FILE]

The storage is a moto server in another process. Every response is delayed by the latency, concurrently for concurrent
requests, so that sequential requests take as long as over a network. Bandwidth is not simulated.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import s3fs
from charts import BLUE, GREEN, ORANGE, PALE, SKY, picture, stacks
from measured import ROOT, Found, markdown, parser_for, present

from arabesque.pipeline.digests import row_key
from arabesque.pipeline.planning.resume_index import read_resume_index
from arabesque.pipeline.records import FeatureRow, Outcome
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.maintenance.verify import check_store
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.writer import StoreWriter

sys.path.insert(0, str(ROOT / "tests"))
from object_server import new_bucket, s3_server

SETTINGS, DIM, SEGMENTS = "5" * 32, 1024, 40
KINDS = {"put_object": "PUT", "get_object": "GET", "head_object": "HEAD", "list_objects_v2": "LIST"}
COLUMNS = {"PUT": ORANGE, "GET": BLUE, "HEAD": PALE, "LIST": SKY, "DELETE": GREEN}


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--videos", type=int, default=600)
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--latency-ms", type=float, default=30.0)
    options = parser.parse_args(given)
    present(table, draw, options, lambda: measure(options), ["s3fs", "moto", "pyarrow"])


def table(found: Found) -> list[str]:
    rows = [
        [step["step"], *(str(step["requests"].get(kind, 0)) for kind in COLUMNS), f"{step['wall_s']:.1f}"]
        for step in found["steps"]
    ]
    return markdown(["step on S3", *COLUMNS, "s"], rows)


def measure(options: argparse.Namespace) -> Found:
    steps: list[Found] = []
    with s3_server():
        root = f"{new_bucket()}/features"
        with counted(options.latency_ms / 1e3, steps) as step:
            written = step("write, merging on the way", lambda: write(root, options))
            step("plan: read the ledger", lambda: read_resume_index(root))
            store = step("open", lambda: FeatureStore(root))
            step("read one row", lambda: store.read("v00000", "vst"))
            step("read all rows", lambda: sum(1 for _ in store.scan("vst")))
            step("verify", lambda: check_store(root))
            step("compact", lambda: compact(root, written))
            step("plan again", lambda: read_resume_index(root))
    return {"videos": options.videos, "shards": options.shards, "latency_ms": options.latency_ms, "steps": steps}


def draw(found: Found, path: Path) -> None:
    rows = {step["step"]: {kind: step["requests"].get(kind, 0) for kind in COLUMNS} for step in found["steps"]}
    notes = {step["step"]: f"   {step['wall_s']:.1f} s" for step in found["steps"]}
    kind = f"{found['videos']} rows in {found['shards']} shards, {found['latency_ms']:.0f} ms a request"
    title = "What a store on object storage asks of it, and how long that takes"
    with picture(path, title, found, 1.2 + 0.34 * len(rows)) as (axes,):
        stacks(axes, rows, f"requests ({kind})", colors=COLUMNS, told="{:.0f}".format, notes=notes)


def write(root: str, options: argparse.Namespace) -> str:
    """Write the store, and return the id of the writer."""
    stream = {"settings_digest": SETTINGS, "dim": DIM, "extractor_version": 1, "weights": {}}
    write_manifest(root, {"format": 1, "recipe": {"name": "b"}, "streams": {"vst": stream}, "made_with": {}})
    rng, start_s = np.random.default_rng(0), np.arange(SEGMENTS, dtype=np.float64)
    with StoreWriter(root, max_age_s=1e6, max_small_shards=10**9) as writer:
        for number in range(options.videos):
            name, digest = f"v{number:05}", f"{number:064x}"
            key, values = row_key(digest, SETTINGS), rng.standard_normal((SEGMENTS, DIM), np.float32)
            writer.add(FeatureRow(name, "vst", key, digest, SETTINGS, "done", values, start_s, start_s + 1))
            writer.add_outcome(Outcome(name, "vst", "done", "", False, key, digest, SETTINGS, 1, 1, segments=SEGMENTS))
            if (number + 1) % (options.videos // options.shards) == 0:
                writer.flush()
        return writer.writer_id


@contextmanager
def counted(latency_s: float, steps: list[Found]) -> Iterator[Callable[[str, Callable[[], Any]], Any]]:
    """Yield ``step(name, act)``: it calls ``act``, adds its requests and time to ``steps``, and returns its result."""
    made: Counter[str] = Counter()
    call = s3fs.S3FileSystem._call_s3

    async def late(self: s3fs.S3FileSystem, method: str, *arguments: Any, **options: Any) -> Any:
        made[KINDS.get(method, "DELETE" if "delete" in method else method)] += 1
        await asyncio.sleep(latency_s)
        return await call(self, method, *arguments, **options)

    pages = s3fs.S3FileSystem._iterdir

    async def listed(self: s3fs.S3FileSystem, *arguments: Any, **options: Any) -> Any:
        made["LIST"] += 1
        await asyncio.sleep(latency_s)
        async for entry in pages(self, *arguments, **options):
            yield entry

    def step(name: str, act: Callable[[], Any]) -> Any:
        made.clear()
        began = time.perf_counter()
        result = act()
        steps.append({"step": name, "requests": dict(made), "wall_s": time.perf_counter() - began})
        return result

    patched: Any = s3fs.S3FileSystem
    patched._call_s3, patched._iterdir = late, listed
    try:
        yield step
    finally:
        patched._call_s3, patched._iterdir = call, pages


if __name__ == "__main__":
    main()
