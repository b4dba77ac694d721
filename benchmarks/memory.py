"""Measure the peak memory of `arabesque extract`: by the length of a video, and against the limit of `--memory`.

    python benchmarks/memory.py --json memory.json --chart memory.png

Generates a video (or uses ``--video``), repeats its packets to make longer ones, and extracts `starter` from each, with
and without a limit; then `starter` and the recipe of a network with several limits, one of them too small. Peaks are
those of the run and its decoders together; shared memory counts once. Linux only.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from charts import BLUE, ORANGE, PALE, aim, bars, lines, picture
from matplotlib.axes import Axes
from measured import ROOT, Found, markdown, parser_for, present

from arabesque.cli.demo_videos.moving_texture import write_moving_texture
from arabesque.pipeline.memory_sizes import parse_bytes

sys.path.insert(0, str(ROOT / "tests"))
from tree_memory import loop, peak_bytes

DRAWN_S = 5.0
AGAINST = {"peak_bytes": "held", "needs_bytes": "refused: it would take"}
COLORS = dict(zip(AGAINST.values(), (BLUE, ORANGE), strict=True))
QUIETLY = {"COLUMNS": "500", "ARABESQUE_METADATA_CACHE": ""}
"""Environment of the runs: wide lines; no metadata cache, which would make the second run faster."""
BY_LENGTH = "starter"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--video", type=Path, help="video to repeat; default: a generated one of 5 s, 640 × 360")
    parser.add_argument("--times", type=int, nargs="+", default=[12, 36, 72], help="numbers of repetitions")
    parser.add_argument("--bound", default="1800MiB", help="limit of the runs by length that have one")
    parser.add_argument(
        "--allowances", nargs="*", default=["512MiB", "1800MiB", "2GiB"], help="of starter, on the shortest"
    )
    parser.add_argument(
        "--recipe", default="gdlt", help="another recipe, on the video without repetition, with random weights"
    )
    parser.add_argument("--recipe-allowances", nargs="*", default=["1GiB", "3GiB"])
    options = parser.parse_args(arguments)
    present(table, draw, options, lambda: measure(options), ["torch", "av"])


def table(found: Found) -> list[str]:
    rows = [
        (
            f"`{run['recipe']}`",
            f"{run['video_s']:.0f} s",
            "no bound" if run["allowed_bytes"] is None else f"{gib(run['allowed_bytes']):.2f} GiB",
            f"{gib(run['peak_bytes']):.2f} GiB" if "peak_bytes" in run else "",
            f"refused: it takes {gib(run['needs_bytes']):.2f} GiB at least" if "needs_bytes" in run else "",
        )
        for run in found["runs"]
    ]
    return markdown(["recipe", "video", "allowed", "held at most", ""], rows)


def measure(options: argparse.Namespace) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        runs = list(all_runs(Path(folder), options))
    return {"video": "drawn, 640 × 360" if options.video is None else options.video.name, "runs": runs}


def all_runs(folder: Path, options: argparse.Namespace) -> Iterator[Found]:
    source = options.video
    if source is None:
        source = folder / "drawn.mp4"
        write_moving_texture(source, duration_s=DRAWN_S, width_px=640, height_px=360)
    lengths = sorted(options.times)
    for times in lengths:
        video = loop(source, folder / f"{times}{source.suffix}", times)
        for allowed in [None, options.bound]:
            yield one_run(video, times, BY_LENGTH, allowed)
    shortest = folder / f"{lengths[0]}{source.suffix}"
    for allowed in options.allowances:
        if allowed != options.bound:
            yield one_run(shortest, lengths[0], BY_LENGTH, allowed)
    for allowed in options.recipe_allowances:
        yield one_run(source, 1, options.recipe, allowed)


def one_run(video: Path, times: int, recipe: str, allowed: str | None) -> Found:
    """Measure a run in a new process. If the limit is too small, the figure is the memory that the run needs."""
    with tempfile.TemporaryDirectory() as out:
        code = "from arabesque.cli.main import app; app()"
        command = [sys.executable, "-c", code, "extract", str(video), "--recipe", recipe, "--out", f"{out}/features"]
        command += ["--weights", "random:0"] if recipe != BY_LENGTH else []
        command += ["--memory", allowed] if allowed is not None else []
        began = time.perf_counter()
        with (
            open(f"{out}/said", "w+", encoding="utf-8") as said,
            subprocess.Popen(command, stdout=said, stderr=said, text=True, env=os.environ | QUIETLY) as run,
        ):
            peak = peak_bytes(run)
        words = Path(out, "said").read_text(encoding="utf-8")
    facts: dict[str, Any] = {
        "recipe": recipe,
        "video_s": length_s(video),
        "allowed_bytes": None if allowed is None else parse_bytes(allowed),
        "wall_s": time.perf_counter() - began,
    }
    refused = re.search(r"it takes ([\d.]+ GiB) at least", words)
    if run.returncode != 0 and refused is None:
        sys.exit(f"{' '.join(command)} ended with status {run.returncode}:\n{words}")
    found = facts | ({"peak_bytes": peak} if refused is None else {"needs_bytes": parse_bytes(refused[1])})
    print(told(found), file=sys.stderr, flush=True)
    return found


def length_s(video: Path) -> float:
    import av

    with av.open(str(video)) as container:
        return (container.duration or 0) / av.time_base


def told(run: Found) -> str:
    allowed = "no bound" if run["allowed_bytes"] is None else f"{gib(run['allowed_bytes']):.2f} GiB allowed"
    end = "refused" if "needs_bytes" in run else f"held {gib(run['peak_bytes']):.2f} GiB"
    return f"{run['recipe']}, {run['video_s']:.0f} s of video, {allowed}: {end}, {run['wall_s']:.0f} s"


def gib(size: float) -> float:
    return size / 2**30


def draw(found: Found, path: Path) -> None:
    title = "Memory is flat in a video's length, and a flag bounds it"
    with picture(path, title, found, 3.6, panels=2) as (left, right):
        draw_lengths(left, found["runs"])
        draw_bounds(right, found["runs"])


def draw_lengths(axes: Axes, runs: Sequence[Found]) -> None:
    by_length = [run for run in runs if run["recipe"] == BY_LENGTH and "peak_bytes" in run]
    bound = by_length[1]["allowed_bytes"]
    series = {
        name: [(run["video_s"] / 60, gib(run["peak_bytes"])) for run in by_length if run["allowed_bytes"] == allowed]
        for name, allowed in (("no bound", None), ("with a bound", bound))
    }
    lines(axes, series, f"minutes of video ({BY_LENGTH})", "GiB held at most", colors=(ORANGE, BLUE))
    aim(axes, gib(bound), f"the bound: {gib(bound):.2f} GiB", upright=False)
    axes.set_ylim(0, 1.3 * gib(max(bound, *(run["peak_bytes"] for run in by_length))))
    axes.set_xlim(0, 1.45 * max(run["video_s"] for run in by_length) / 60)


def draw_bounds(axes: Axes, runs: Sequence[Found]) -> None:
    shortest = {recipe: min(run["video_s"] for run in runs if run["recipe"] == recipe) for recipe in recipes_of(runs)}
    chosen = [run for run in runs if run["allowed_bytes"] and run["video_s"] == shortest[run["recipe"]]]
    chosen.sort(key=lambda run: (run["recipe"] != BY_LENGTH, run["allowed_bytes"]))
    rows = {
        f"{run['recipe']}, {gib(run['allowed_bytes']):.2g} GiB": {
            "allowed": gib(run["allowed_bytes"]),
            **{name: gib(run[key]) for key, name in AGAINST.items() if key in run},
        }
        for run in chosen
    }
    bars(axes, rows, "GiB", colors={"allowed": PALE, **COLORS}, told="{:.2f}".format)


def recipes_of(runs: Sequence[Found]) -> list[str]:
    return list(dict.fromkeys(run["recipe"] for run in runs))


if __name__ == "__main__":
    main()
