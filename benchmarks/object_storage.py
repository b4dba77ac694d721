"""What a store on object storage asks of it: requests by kind, and seconds where each takes as long as real ones do.

python benchmarks/object_storage.py [--videos 600] [--shards 30] [--latency-ms 30]

Against a moto server in a process of its own. Every answer is held back by the latency, several at once where they were
asked for at once, so that requests in a row cost time here as they do over a network; bytes do not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import s3fs

from arabesque.pipeline.keys import row_key
from arabesque.pipeline.ledger import read_ledger
from arabesque.pipeline.records import FeatureRow, Outcome
from arabesque.pipeline.store.compaction import compact
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.reader import FeatureStore
from arabesque.pipeline.store.verifying import check_store
from arabesque.pipeline.store.writer import StoreWriter

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from object_server import new_bucket, s3_server

SETTINGS, DIM, SEGMENTS = "5" * 32, 1024, 40
KINDS = {"put_object": "PUT", "get_object": "GET", "head_object": "HEAD", "list_objects_v2": "LIST"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=600)
    parser.add_argument("--shards", type=int, default=30)
    parser.add_argument("--latency-ms", type=float, default=30.0)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, {date.today()}; {options}\n")
    print("| step | PUT | GET | HEAD | LIST | DELETE | s |\n|---|---|---|---|---|---|---|")
    with s3_server():
        root = f"{new_bucket()}/features"
        with counted(options.latency_ms / 1e3) as step:
            written = step(f"write {options.videos} rows in {options.shards} shards", lambda: write(root, options))
            step("plan: read the ledger", lambda: read_ledger(root))
            store = FeatureStore(root)
            step("read one row", lambda: store.read("v00000", "vst"))
            step("read all rows", lambda: sum(1 for _ in store.scan("vst")))
            step("verify", lambda: check_store(root))
            step("compact", lambda: compact(root, written))
            step("plan again", lambda: read_ledger(root))


def write(root: str, options: argparse.Namespace) -> str:
    """Returns the writer's id."""
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
def counted(latency_s: float) -> Iterator[Callable[[str, Callable[[], Any]], Any]]:
    """``step(name, act)`` prints a line of the table and returns what ``act`` did."""
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
        numbers = " | ".join(str(made[kind]) for kind in ("PUT", "GET", "HEAD", "LIST", "DELETE"))
        print(f"| {name} | {numbers} | {time.perf_counter() - began:.1f} |", flush=True)
        return result

    s3fs.S3FileSystem._call_s3, s3fs.S3FileSystem._iterdir = late, listed
    try:
        yield step
    finally:
        s3fs.S3FileSystem._call_s3, s3fs.S3FileSystem._iterdir = call, pages


if __name__ == "__main__":
    main()
