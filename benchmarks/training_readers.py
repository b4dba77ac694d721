"""Measure how fast training reads features: one ``.npy`` file per video, and a store in four ways.

python benchmarks/training_readers.py [--videos 512 | --features FILE.npz] [--json FILE] [--chart FILE]
python benchmarks/training_readers.py --features FILE.npz --compressions

Generates features of 130 segments × 1,024 numbers, float32 with float16 precision (like published features), or uses
the arrays of a file; writes them in both forms to a temporary folder, and reads every video once, in random order,
padded into batches of 32. The disk cache is warm for all readers, and the figure is videos per second of CPU time. The
first pass over a store verifies the checksum of each row.

``--compressions`` compares ways to store the numbers, by their size and the reading of one row at a time.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from charts import BLUE, GRAY, aim, picture, stacks
from measured import Found, markdown, measured_or_read, parser_for
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from arabesque.pipeline.digests import row_key
from arabesque.pipeline.records import FeatureRow, Outcome
from arabesque.pipeline.store import AlignedDataset, FeatureStore, collate_padded
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.streaming_dataset import StreamingDataset
from arabesque.pipeline.store.writer import StoreWriter

SEGMENTS, DIM, BATCH = 130, 1024, 32
SETTINGS = "0" * 32
LEAF = "features.list.element.list.element"
WAYS = [
    ("zstd, byte-stream-split, 4 rows a group", "zstd", "BYTE_STREAM_SPLIT", 4),
    ("zstd, byte-stream-split, 1 row a group", "zstd", "BYTE_STREAM_SPLIT", 1),
    ("LZ4, byte-stream-split, 1 row a group", "lz4", "BYTE_STREAM_SPLIT", 1),
    ("none, 1 row a group", "none", "PLAIN", 1),
]
"""Name, compression, encoding, rows per row group"""


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--videos", type=int, default=512)
    parser.add_argument("--features", type=Path, help="An .npz file with an array for each video.")
    parser.add_argument("--compressions", action="store_true")
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    if options.compressions:
        print(*compressions(arrays_of(options)), sep="\n")
        return
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
            f"{result['first_pass_per_s']:,.0f}",
            f"{result['set_up_s']:.2f} s",
        ]
        for result in found["results"]
    ]
    return markdown(["reader", "videos per CPU second", "ratio", "first pass", "set-up"], rows)


def measure_all(options: argparse.Namespace) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        root, arrays = Path(folder), arrays_of(options)
        write_both(root, arrays)
        results = [measure(name, make, len(arrays)) for name, make in readers(root).items()]
        sizes = {name: size_mb(root / name) for name in ("npy", "store")}
    return {"videos": len(arrays), "size_mb": sizes, "results": results}


def draw(found: Found, path: Path) -> None:
    """Draw the readers; ``.npy`` files are gray, and the rate of `np.load` is a line."""
    results = found["results"]
    by_files = [result["reader"].startswith((".npy", "np.load")) for result in results]
    rows = {
        result["reader"]: {"files" if files else "a store": result["videos_per_s"]}
        for result, files in zip(results, by_files, strict=True)
    }
    one_by_one = results[0]["videos_per_s"]
    notes = {name: f"   {sum(row.values()) / one_by_one:.2f} ×" for name, row in rows.items()}
    title = "A row of a store is read nearly as fast as a file"
    with picture(path, title, found, 1.2 + 0.36 * len(rows)) as (axes,):
        colors, told = {"files": GRAY, "a store": BLUE}, "{:,.0f}".format
        stacks(axes, rows, "videos per CPU second", colors=colors, told=told, notes=notes, room=1.2)
        aim(axes, one_by_one, "np.load")


def arrays_of(options: argparse.Namespace) -> dict[str, NDArray[Any]]:
    """Return video id → ``[segments, dim]``."""
    if options.features is not None:
        with np.load(options.features) as archive:
            return {name: archive[name] for name in archive.files}
    generator = np.random.default_rng(0)
    drawn = (generator.standard_normal((SEGMENTS, DIM), np.float32).astype(np.float16) for _ in range(options.videos))
    return {f"v{number:05d}": array.astype(np.float32) for number, array in enumerate(drawn)}


def compressions(arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Return a table of sizes and rates of reading one row at a time in random order, by pyarrow or by position."""
    values = [array.astype(np.float32) for array in arrays.values()]
    order = np.random.default_rng(0).permutation(len(values))
    vectors: Any = pa.FixedSizeListArray
    lists: Any = pa.ListArray
    segments = vectors.from_arrays(pa.array(np.concatenate(values).ravel()), values[0].shape[1])
    column = lists.from_arrays(pa.array(np.cumsum([0, *map(len, values)], dtype=np.int32)), segments)
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, compression, encoding, size in WAYS:
            path = Path(folder) / "x.parquet"
            options: dict[str, Any] = {"compression": compression, "column_encoding": {LEAF: encoding}}
            pq.write_table(  # pyright: ignore[reportUnknownMemberType]
                pa.table({"features": column}), path, row_group_size=size, use_dictionary=False, **options
            )
            with pq.ParquetFile(path, memory_map=True) as file:
                began = time.process_time()
                for place in order:
                    file.read_row_group(int(place) // size, use_threads=False)  # pyright: ignore
                per_s = len(order) / (time.process_time() - began)
            rows.append([name, f"{path.stat().st_size / 1e6:.1f} MB", f"{per_s:,.0f}"])
        path = Path(folder) / "plain"
        path.write_bytes(b"".join(array.tobytes() for array in values))
        ends = np.cumsum([array.nbytes for array in values])
        with path.open("rb") as opened:
            began = time.process_time()
            for place in order:
                found = np.empty(values[place].shape, np.float32)
                os.preadv(opened.fileno(), [found.data.cast("B")], int(ends[place] - found.nbytes))
            per_s = len(order) / (time.process_time() - began)
        rows.append(["none, by its position", f"{ends[-1] / 1e6:.1f} MB", f"{per_s:,.0f}"])
    return markdown(["numbers", "size", "rows per CPU second"], rows)


def write_both(root: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    store, plain = root / "store", root / "npy"
    plain.mkdir()
    dim = next(iter(arrays.values())).shape[1]
    entry = {"settings_digest": SETTINGS, "dim": dim, "extractor_version": 1, "weights": {}}
    write_manifest(store, {"format": 1, "recipe": {"name": "benchmark"}, "streams": {"vst": entry}, "made_with": {}})
    with StoreWriter(store) as writer:
        for number, (name, array) in enumerate(arrays.items()):
            np.save(plain / f"{name}.npy", array)
            values, starts = array.astype(np.float32), np.arange(len(array), dtype=np.float64) * 1.28
            digest = f"{number:064x}"
            key = row_key(digest, SETTINGS)
            writer.add(FeatureRow(name, "vst", key, digest, SETTINGS, "done", values, starts, starts + 1.28, {}))
            end = Outcome(name, "vst", "done", key=key, content_digest=digest, settings_digest=SETTINGS)
            writer.add_outcome(end)
    compact(store, writer.writer_id)


class OneFilePerVideo(Dataset[torch.Tensor]):
    """The usual dataset of ``.npy`` files."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.npy"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.load(self.paths[index]))


def padded(arrays: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(arrays, batch_first=True)


def one_by_one(read: Callable[[Any], Any], names: Sequence[Any]) -> Iterator[Any]:
    """Read only, without tensors and batches."""
    return (read(names[place]) for place in np.random.default_rng(0).permutation(len(names)))


def load_float32(path: Path) -> NDArray[np.float32]:
    """Load as float32, like the store."""
    return np.load(path).astype(np.float32)


class Passes:
    """An iterable that can be read again."""

    def __init__(self, begin: Callable[[], Iterator[Any]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[Any]:
        return self._begin()


def readers(root: Path) -> dict[str, Callable[[], Iterable[Any]]]:
    def samples(**options: Any) -> AlignedDataset:
        return AlignedDataset(FeatureStore(root / "store"), ["vst"], **options)

    def plain(workers: int = 0) -> Iterable[Any]:
        files = OneFilePerVideo(root / "npy")
        return DataLoader(files, BATCH, shuffle=True, collate_fn=padded, num_workers=workers)

    def shuffled(source: Any, workers: int = 0) -> Iterable[Any]:
        return DataLoader(source, BATCH, shuffle=True, collate_fn=collate_padded, num_workers=workers)

    def streamed(workers: int = 0) -> Iterable[Any]:
        return DataLoader(StreamingDataset(samples()), BATCH, collate_fn=collate_padded, num_workers=workers)

    def rows() -> Iterable[Any]:
        store = FeatureStore(root / "store")
        return Passes(lambda: one_by_one(lambda name: store.read(name, "vst"), store.video_ids))

    def scan() -> Iterable[Any]:
        store = FeatureStore(root / "store")
        return Passes(lambda: store.scan("vst"))

    paths = sorted((root / "npy").glob("*.npy"))
    return {
        "np.load, any order": lambda: Passes(lambda: one_by_one(np.load, paths)),
        "np.load to float32, any order": lambda: Passes(lambda: one_by_one(load_float32, paths)),
        "FeatureStore.read, any order": rows,
        "FeatureStore.scan, in order": scan,
        ".npy files one by one": plain,
        ".npy files one by one, 2 workers": lambda: plain(2),
        "AlignedDataset, any order": lambda: shuffled(samples()),
        "AlignedDataset, in memory": lambda: shuffled(samples(in_memory=True)),
        "StreamingDataset": streamed,
        "StreamingDataset, 2 workers": lambda: streamed(2),
        "what `arabesque train` reads, in memory": lambda: routines(root / "store"),
    }


def routines(store: Path) -> Iterable[Any]:
    """Read like `arabesque train`: one padded tensor, which is divided into batches by index."""
    from arabesque.models.features import read_store
    from arabesque.models.samples import stack_samples

    found = read_store(FeatureStore(store))
    held = stack_samples(found.videos, found.dims)

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            return (held.whole(rows) for rows in torch.randperm(len(held)).split(BATCH))

    return Batches()


def measure(name: str, make: Callable[[], Iterable[Any]], count: int) -> dict[str, Any]:
    """Measure set-up (listing, reading into memory), the first pass, and the best of three later passes."""
    began = cpu_s()
    reader = make()
    set_up_s = cpu_s() - began
    passes: list[float] = []
    for _ in range(4):
        began = cpu_s()
        for _ in reader:
            pass
        passes.append(cpu_s() - began)
    first, *later = passes
    return {
        "reader": name,
        "videos_per_s": count / min(later),
        "first_pass_per_s": count / first,
        "set_up_s": set_up_s,
    }


def cpu_s() -> float:
    """Return the CPU time of this process and of its finished workers."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
