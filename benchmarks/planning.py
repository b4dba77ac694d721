"""Measure the planning and resuming of a large folder: time and memory until the first frame is decoded, by step.

python benchmarks/planning.py [--videos 100000] [--done 99000] [--shards usual|scattered] [--folder KEEP] [--json FILE]
       [--before JSON --chart FILE]

Creates a folder of videos (done ones are files of a few bytes, remaining ones are hard links to one short clip) and a
store with three streams of the done videos, in one of two forms. ``usual``: 128 rows per shard and four per row group,
as for rows of 130 segments × 1,024 numbers; the features here are small, because planning does not read them.
``scattered``: 10 rows per shard, as after many killed runs. Every step runs in a new process; memory is its peak,
including imports. ``--folder`` keeps the videos and the store for later runs.

To draw before and after, run the script first with ``PYTHONPATH`` set to the tree of another commit and with another
folder, and pass its figures to the second run (``--before``).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pyarrow as pa
from charts import BLUE, PALE, bars, picture
from measured import Found, markdown, measured_or_read, parser_for, read

from arabesque.cli.demo_videos.routines import write_routine
from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline.digests import row_key
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import Event, SegmentFeature
from arabesque.pipeline.planning.discovery import find_videos
from arabesque.pipeline.planning.resume_index import read_resume_index
from arabesque.pipeline.planning.run_claims import OutcomeWatcher
from arabesque.pipeline.records import FeatureRow, Outcome, VideoFile
from arabesque.pipeline.status import read_status
from arabesque.pipeline.store import shard_writing
from arabesque.pipeline.store.concurrency.writer_locks import WriterLock
from arabesque.pipeline.store.maintenance.compaction import compact
from arabesque.pipeline.store.manifest import write_manifest
from arabesque.pipeline.store.shard_writing import outcomes_table, rows_table, shard_bytes
from arabesque.pipeline.store.shards import StoredOutcome, StoredRow, outcome_values, shard_name
from arabesque.pipeline.store.write_ahead_log import WriteAheadLog

RECIPE = """
name = "planning"
summary = "Three streams without weights"
[sampling]
fps = 12
frames_per_segment = 36
frames_per_step = 18
remainder = "pad-last"
[streams.motion]
extractor = "motion"
settings = { short_side_px = 144 }
[streams.motion_fine]
extractor = "motion"
settings = { short_side_px = 192 }
[streams.rhythm]
extractor = "rhythm"
settings = { short_side_px = 144 }
"""
SEGMENTS, DIM = 8, 4
CLAIMED_SEGMENTS, CLAIMED_DIM = 130, 1_024
ROWS = {"usual": 128, "scattered": 10}
OUTCOMES = {"usual": 120_000, "scattered": 30}
PER_FOLDER = 1_000
TAKES = 1_000
DRAWN = ("find the videos", "read the ledger", "plan (Extraction.pending)", "read_status", "compact")
RUNNING: list[Iterator[Event]] = []


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--done", type=int, default=99_000)
    parser.add_argument("--shards", choices=list(ROWS), default="usual")
    parser.add_argument("--folder", type=Path, help="folder in which videos and store are kept and reused")
    parser.add_argument("--before", type=Path, metavar="JSON", help="figures of an earlier run, for the chart")
    parser.add_argument(
        "--steps", nargs="+", choices=list(STEPS), default=list(STEPS), metavar="STEP", help="only these"
    )
    parser.add_argument("--here", choices=list(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.here:
        print(json.dumps(run_step(options.here, options.folder)), flush=True)
        os._exit(0)  # do not wait for a run that has started
    found = measured_or_read(options, lambda: measure_all(options), ["pyarrow"])
    before = None if options.before is None else read(options.before)
    print(
        f"{found['videos']:,} videos, {found['done']:,} done, {found['shards']} shards", *table(found, before), sep="\n"
    )
    for result in found["results"]:
        print(f"{result['step']}: {result['wall_s']:.2f} s of the clock; {result['told']}")
    if options.chart is not None:
        draw(found, before, options.chart)


def table(found: Found, before: Found | None) -> list[str]:
    """Return the table. MB is the peak beyond that of the imports, if those were measured."""
    now = figures(found)
    if before is None:
        return markdown(
            ["step of planning", "CPU s", "MB"], ([step, f"{cpu:.1f}", f"{mb:.0f}"] for step, (cpu, mb) in now.items())
        )
    then = figures(before)
    rows = [
        [step, f"{then[step][0]:.1f}", f"{cpu:.1f}", f"{cpu / then[step][0]:.2f}", f"{then[step][1]:.0f}", f"{mb:.0f}"]
        for step, (cpu, mb) in now.items()
        if step in then
    ]
    return markdown(["step of planning", "CPU s before", "after", "ratio", "MB before", "after"], rows)


def figures(found: Found) -> dict[str, tuple[float, float]]:
    """Return step → CPU seconds, and MB beyond the imports."""
    results = {result["step"]: result for result in found["results"]}
    idle_mb = results.pop("imports", {"peak_mb": 0.0})["peak_mb"]
    return {step: (result["cpu_s"], result["peak_mb"] - idle_mb) for step, result in results.items()}


def measure_all(options: argparse.Namespace) -> Found:
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        build(root, options.videos, options.done, options.shards)
        results = [measured(step, root) for step in options.steps]
    return {"videos": options.videos, "done": options.done, "shards": options.shards, "results": results}


def draw(found: Found, before: Found | None, path: Path) -> None:
    """Draw processor time, and memory beyond that of the imports."""
    runs = {} if before is None else {f"before ({before['commit']})": before}
    runs["now"] = found
    seconds: dict[str, dict[str, float]] = {step: {} for step in DRAWN}
    sizes: dict[str, dict[str, float]] = {step: {} for step in DRAWN}
    for name, run in runs.items():
        for step, (cpu, mb) in figures(run).items():
            if step in DRAWN:
                seconds[step][name], sizes[step][name] = cpu, mb
    colors = dict(zip(runs, (PALE, BLUE) if before else (BLUE,), strict=True))
    title = f"Planning and resuming {found['videos']:,} videos, of which {found['done']:,} are done, takes seconds"
    with picture(path, title, found, 1.6 + 0.5 * len(seconds), panels=2) as (left, right):
        bars(left, seconds, "CPU seconds", colors=colors, told="{:.1f}".format, room=1.2)
        bars(right, sizes, "MB beyond the imports", colors=colors, told="{:.0f}".format, room=1.2)
        right.set_yticklabels([])


def measured(step: str, root: Path) -> dict[str, object]:
    command = [sys.executable, __file__, "--here", step, "--folder", str(root)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_step(step: str, root: Path) -> dict[str, object]:
    act, copy = STEPS[step], root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    if act is put_in_order:
        shutil.copytree(
            root / "store", copy, copy_function=os.link
        )  # the step merges a copy, so that the store can be reused
    began_s, began_cpu_s = time.perf_counter(), cpu_s()
    told = act(root)
    wall_s, used_s = time.perf_counter() - began_s, cpu_s() - began_cpu_s
    return {"step": step, "wall_s": wall_s, "cpu_s": used_s, "peak_mb": peak_mb(), "told": told}


def peak_mb() -> float:
    """Return the peak of this process. `resource` would return that of the parent process if it is larger."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def cpu_s() -> float:
    """Return the CPU time of this process and its finished children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def nothing(root: Path) -> str:
    return "imports alone"


def find(root: Path) -> str:
    return f"{len(find_videos(root / 'videos').videos)} videos"


def resume_index(root: Path) -> str:
    ends = read_resume_index(root / "store")
    return str(ends.outcome("000/000001", "motion") is not None)


def plan(root: Path) -> str:
    return f"{len(extraction(root).remaining)} pending"


def status(root: Path) -> str:
    found = read_status(root / "store")
    left = found.inputs.left if found.inputs is not None else {}
    return ", ".join(f"{name} {dict(stream.counts)} {left.get(name)} left" for name, stream in found.streams.items())


def progress(root: Path) -> str:
    return f"{len(WriteAheadLog(root / 'store'))} unfinished rows"


def takes(root: Path) -> str:
    """Do the work of the decode stage before it opens a video, ``TAKES`` times."""
    run, news = extraction(root), OutcomeWatcher(root / "store")
    began_s = time.process_time()
    with closing(WriterLock(root / "store", "benchmark")) as claims:
        for file in run.remaining[:TAKES]:
            claims.take(file.video_id)
            news.refresh("benchmark")
        claims.release(file.video_id for file in run.remaining[:TAKES])
    return f"planning, and {1e3 * (time.process_time() - began_s) / TAKES:.2f} CPU ms for each of {TAKES} claims"


def first_segment(root: Path) -> str:
    """Wait for the first segment. The started run is kept in `RUNNING`, because its end is not measured."""
    RUNNING.append(iter(extraction(root)))
    for event in RUNNING[0]:
        if isinstance(event, SegmentFeature):
            return f"{event.stream.name} of {event.plan.video.video_id}"
    raise RuntimeError("no segment was computed; check that videos remain")


def status_command(root: Path) -> str:
    return command("status", str(root / "store"))


def put_in_order(root: Path) -> str:
    done = compact(root / "copy")
    return f"{done.shards_merged} shards merged into {done.shards_written}"


STEPS: dict[str, Callable[[Path], str]] = {
    "imports": nothing,
    "find the videos": find,
    "read the ledger": resume_index,
    "plan (Extraction.pending)": plan,
    "read_status": status,
    "WriteAheadLog": progress,
    "claims of 1,000 videos": takes,
    "extract to the first segment": first_segment,
    "arabesque status": status_command,
    "compact": put_in_order,
}


def command(*arguments: str) -> str:
    code = "import sys; from arabesque.cli.main import app; sys.argv = ['arabesque', *sys.argv[1:]]; app()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return f"{len(done.stdout.splitlines())} lines, {peak:.0f} MB"


def extraction(root: Path) -> Extraction:
    return Extraction(root / "videos", load_recipe(str(root / "planning.toml")), root / "store")


def build(root: Path, videos: int, done: int, shards: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    if (root / "store").exists():
        return
    (root / "planning.toml").write_text(RECIPE)
    write_routine(root / "clip.mp4", seed=0, duration_s=4.0)
    for number in range(videos):
        path = root / "videos" / f"{number // PER_FOLDER:03d}" / f"{number:06d}.mp4"
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        if number < done:
            path.write_bytes(f"{number}".encode())
        else:
            path.hardlink_to(root / "clip.mp4")
    build_store(root, done, shards)


def build_store(root: Path, done: int, shards: str) -> None:
    """Write a store as after a run that has finished the first ``done`` videos."""
    run = extraction(root)
    entries = {name: {**entry, "dim": DIM} for name, entry in run.stream_entries.items()}
    write_manifest(
        root / "building",
        {
            "format": 1,
            "recipe": run.recipe.model_dump(mode="json", exclude_none=True),
            "streams": entries,
            "inputs": {"folder": str((root / "videos").resolve()), "videos": len(run.inputs.videos)},
            "made_with": {},
        },
    )
    files = run.inputs.videos[:done]
    for stream, settings in run.settings_digests.items():
        folder = root / "building" / f"stream={stream}"
        folder.mkdir()
        for sequence, part in enumerate(parts(files, ROWS[shards])):
            table = rows_table([stored_row(file, stream, settings) for file in part], float16=False)
            table = claiming(table, CLAIMED_SEGMENTS, CLAIMED_DIM)
            shard_writing._ROW_GROUP_BYTES = round(4 * table.nbytes / len(table))  # pyright: ignore[reportPrivateUsage]
            (root / "building" / shard_name(f"stream={stream}", "earlier", sequence)).write_bytes(shard_bytes(table))
    shard_writing._ROW_GROUP_BYTES = 2 << 20  # pyright: ignore[reportPrivateUsage]
    ends = [end(file, stream, settings) for file in files for stream, settings in run.settings_digests.items()]
    (root / "building" / "outcomes").mkdir()
    for sequence, part in enumerate(parts(ends, OUTCOMES[shards])):
        stored = [StoredOutcome(outcome_values(one), 1, "earlier") for one in part]
        (root / "building" / shard_name("outcomes", "earlier", sequence)).write_bytes(
            shard_bytes(outcomes_table(stored))
        )
    (root / "building").rename(root / "store")


def claiming(table: pa.Table, segments: int, dim: int) -> pa.Table:
    """Return the table with columns that state larger features, which compaction reads."""
    for name, value in (("segments", segments), ("dim", dim)):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(name), pa.array([value] * len(table), pa.int32()))
    return table


def parts(items: Sequence, size: int) -> Iterator[Sequence]:
    return (items[first : first + size] for first in range(0, len(items), size))


def content(file: VideoFile) -> str:
    return f"{int(Path(str(file.path)).stem):064x}"


def stored_row(file: VideoFile, stream: str, settings: str) -> StoredRow:
    digest, starts = content(file), np.arange(SEGMENTS, dtype=np.float64)
    values = np.zeros((SEGMENTS, DIM), np.float32)
    key = row_key(digest, settings)
    told: dict[str, str] = dict.fromkeys(
        ("arabesque", "torch", "torchvision", "numpy", "av", "python", "decoder"), "0.0.0"
    )
    row = FeatureRow(file.video_id, stream, key, digest, settings, "done", values, starts, starts + 1, told)
    return StoredRow(row, 1, "earlier")


def end(file: VideoFile, stream: str, settings: str) -> Outcome:
    found = os.stat(str(file.path))
    return Outcome(
        file.video_id,
        stream,
        "done",
        key=row_key(content(file), settings),
        content_digest=content(file),
        settings_digest=settings,
        size_bytes=found.st_size,
        modified_ns=found.st_mtime_ns,
        frames_expected=100,
        frames_delivered=100,
        segments=SEGMENTS,
        decode_s=0.25,
        compute_s=0.5,
    )


if __name__ == "__main__":
    main()
