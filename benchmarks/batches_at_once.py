"""Compare runs with one batch in networks at a time with runs with two, each on half of the threads.

    python benchmarks/batches_at_once.py [VIDEO] [--recipe everything] [--stream vst …] [--json FILE] [--chart FILE]

For each stream of a recipe alone, whole runs over the video (default: a generated texture of ten seconds without audio)
are measured from decoding to the written rows, alternately with one batch and with two. Random weights are loaded
before. Times are wall-clock seconds, the best of the rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from charts import BLUE, aim, bars, picture
from measured import Found, markdown, parser_for, present

from arabesque.cli.demo_videos.moving_texture import write_moving_texture
from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline.benchmarking.benchmark import probed
from arabesque.pipeline.benchmarking.end_to_end import Bench, run_end_to_end, sources_of
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.machine import options_for_machine
from arabesque.pipeline.planning.discovery import required_videos


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--recipe", default="everything")
    parser.add_argument("--stream", nargs="+", help="default: all streams of the recipe")
    parser.add_argument("--precision", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(given)
    present(table, draw, options, lambda: measure(options), ["torch"])


def table(found: Found) -> list[str]:
    rows = [
        [
            f"`{row['stream']}`",
            row["precision"],
            f"{row['one_s']:.1f}",
            f"{row['two_s']:.1f}",
            f"**{row['two_s'] / row['one_s']:.2f}**",
        ]
        for row in found["results"]
    ]
    return markdown(["stream, alone", "precision", "one batch at a time, s", "two", "ratio"], rows)


def measure(options: argparse.Namespace) -> Found:
    given = options_for_machine("cpu")
    recipe = load_recipe(options.recipe)
    results: list[Found] = []
    with TemporaryDirectory() as folder:
        video = options.video or Path(folder, "drawn.mp4")
        if options.video is None:
            write_moving_texture(video, duration_s=10.0)
        inputs = required_videos([video])
        for name, precision in product(options.stream or recipe.streams, options.precision):
            spec = recipe.streams[name].model_copy(update={"precision": precision})
            run = Extraction(
                video,
                recipe.model_copy(update={"streams": {name: spec}}),
                Path(folder) / f"{name} {precision}",
                weights="random:0",
                inputs=inputs,
                options=given,
            )
            bench = Bench(run, [run.build_stream(name)], given)
            sources = sources_of(probed(run, inputs.videos))
            run_end_to_end(bench, sources)  # warm-up: loads lazily and compiles
            turns: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(options.rounds):
                for number, seconds in turns.items():
                    here = replace(bench, options=replace(given, num_batches=number))
                    seconds.append(run_end_to_end(here, sources).spent.wall_s)
            best = {number: min(seconds) for number, seconds in turns.items()}
            results.append({"stream": name, "precision": precision, "one_s": best[1], "two_s": best[2]})
            print(results[-1], flush=True)
    return {"threads": torch.get_num_threads(), "results": results}


def draw(found: Found, path: Path) -> None:
    rows = {f"{row['stream']}, {row['precision']}": {"ratio": row["two_s"] / row["one_s"]} for row in found["results"]}
    with picture(path, "Two batches at a time beside one", found, 1.4 + 0.4 * len(rows)) as (axes,):
        bars(axes, rows, "time with two batches ÷ time with one", colors={"ratio": BLUE}, told="{:.2f}".format)
        aim(axes, 1.0, "as fast")


if __name__ == "__main__":
    main()
