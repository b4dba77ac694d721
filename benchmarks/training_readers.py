"""How fast training reads features: one ``.npy`` file per video, and a store in its four ways.

python benchmarks/training_readers.py [--videos 512] [--json FILE] [--chart FILE]

Draws features of 130 segments and 1,024 numbers, float32 of float16 precision (how published features come, and how a
store packs them), writes them both ways below a temporary folder, and reads every video once, in random order, padded
into batches of 32. The disk's cache is warm for all: what is compared is the work of the processor.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from charts import BLUE, GREY, aim, picture, stacks
from measured import Found, markdown, measured_or_read, parser_for
from torch.utils.data import DataLoader, Dataset

from arabesque.pipeline.keys import row_key
from arabesque.pipeline.records import FeatureRow, Outcome
from arabesque.pipeline.store import AlignedSamples, FeatureStore, collate_padded
from arabesque.pipeline.store.compaction import compact
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.streamed_samples import StreamedSamples
from arabesque.pipeline.store.writer import StoreWriter

SEGMENTS, DIM, BATCH = 130, 1024, 32
SETTINGS = "0" * 32


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--videos", type=int, default=512)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    found = measured_or_read(options, lambda: measure_all(options), ["torch", "pyarrow"])
    sizes = found["size_mb"]
    print(f"{found['videos']} videos of [{SEGMENTS}, {DIM}]; .npy {sizes['npy']:.0f} MB, store {sizes['store']:.0f} MB")
    print(*table(found), sep="\n")
    if options.chart is not None:
        draw(found, options.chart)


def table(found: Found) -> list[str]:
    one_by_one = found["results"][0]["videos_per_s"]
    rows = [
        [
            result["reader"],
            f"{result['videos_per_s']:,.0f}",
            f"{result['videos_per_s'] / one_by_one:.2f}",
            f"{result['set_up_s']:.2f} s",
        ]
        for result in found["results"]
    ]
    return markdown(["reader", "videos/s", "ratio", "set-up"], rows)


def measure_all(options: argparse.Namespace) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_both(root, options.videos)
        results = [measure(name, make, options.videos) for name, make in readers(root).items()]
        sizes = {name: size_mb(root / name) for name in ("npy", "store")}
    return {"videos": options.videos, "size_mb": sizes, "results": results}


def draw(found: Found, path: Path) -> None:
    """``.npy`` files are grey, and the line that the first of them draws is what others have to reach."""
    results = found["results"]
    by_files = [result["reader"].startswith(".npy") for result in results]
    rows = {
        result["reader"]: {"files" if files else "a store": result["videos_per_s"]}
        for result, files in zip(results, by_files, strict=True)
    }
    one_by_one = results[0]["videos_per_s"]
    notes = {name: f"   {sum(row.values()) / one_by_one:.2f} ×" for name, row in rows.items()}
    title = "Training reads a store in memory faster than files, from the disk slower"
    with picture(path, title, found, 1.2 + 0.36 * len(rows)) as (axes,):
        colours, told = {"files": GREY, "a store": BLUE}, "{:,.0f}".format
        stacks(axes, rows, "videos a second", colours=colours, told=told, notes=notes, room=1.2)
        aim(axes, one_by_one, ".npy files one by one")


def write_both(root: Path, count: int) -> None:
    store, plain = root / "store", root / "npy"
    plain.mkdir()
    entry = {"settings_digest": SETTINGS, "dim": DIM, "extractor_version": 1, "weights": {}}
    write_manifest(store, {"format": 1, "recipe": {"name": "benchmark"}, "streams": {"vst": entry}, "made_with": {}})
    generator = np.random.default_rng(0)
    starts = np.arange(SEGMENTS, dtype=np.float64) * 1.28
    with StoreWriter(store) as writer:
        for number in range(count):
            name = f"v{number:05d}"
            values = generator.standard_normal((SEGMENTS, DIM), np.float32).astype(np.float16).astype(np.float32)
            np.save(plain / f"{name}.npy", values)
            digest = f"{number:064x}"
            key = row_key(digest, SETTINGS)
            writer.add(FeatureRow(name, "vst", key, digest, SETTINGS, "done", values, starts, starts + 1.28, {}))
            end = Outcome(name, "vst", "done", key=key, content_digest=digest, settings_digest=SETTINGS)
            writer.add_outcome(end)
    compact(store, writer.writer_id)


class OneFilePerVideo(Dataset[torch.Tensor]):
    """What everyone writes."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.npy"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.load(self.paths[index]))


def readers(root: Path) -> dict[str, Callable[[], Iterable[Any]]]:
    def samples(**options: Any) -> AlignedSamples:
        return AlignedSamples(FeatureStore(root / "store"), ["vst"], **options)

    def plain(workers: int = 0) -> Iterable[Any]:
        files = OneFilePerVideo(root / "npy")
        return DataLoader(files, BATCH, shuffle=True, collate_fn=torch.stack, num_workers=workers)

    def shuffled(source: Any, workers: int = 0) -> Iterable[Any]:
        return DataLoader(source, BATCH, shuffle=True, collate_fn=collate_padded, num_workers=workers)

    def streamed(workers: int = 0) -> Iterable[Any]:
        return DataLoader(StreamedSamples(samples()), BATCH, collate_fn=collate_padded, num_workers=workers)

    return {
        ".npy files one by one": plain,
        ".npy files one by one, 2 workers": lambda: plain(2),
        "AlignedSamples, any order": lambda: shuffled(samples()),
        "AlignedSamples, in memory": lambda: shuffled(samples(in_memory=True)),
        "StreamedSamples": streamed,
        "StreamedSamples, 2 workers": lambda: streamed(2),
        "what `arabesque train` reads, in memory": lambda: routines(root / "store"),
    }


def routines(store: Path) -> Iterable[Any]:
    """As `arabesque train` reads: one padded tensor, cut into batches by index."""
    from arabesque.models.features import read_store
    from arabesque.models.routines import stack_routines

    found = read_store(FeatureStore(store))
    held = stack_routines(found.videos, found.dims)

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            return (held.whole(rows) for rows in torch.randperm(len(held)).split(BATCH))

    return Batches()


def measure(name: str, make: Callable[[], Iterable[Any]], count: int) -> dict[str, Any]:
    """The best of three passes; setting up (listing, reading into memory) apart."""
    began = time.perf_counter()
    reader = make()
    set_up_s = time.perf_counter() - began
    passes = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in reader:
            pass
        passes.append(time.perf_counter() - began)
    return {"reader": name, "videos_per_s": count / min(passes), "set_up_s": set_up_s}


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
