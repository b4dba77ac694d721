"""Check on this CPU that the roofline of `arabesque bench --predict` is a bound, and how tight it is.

    python benchmarks/prediction.py ../shared/videos/skating_720x1280_portrait.mp4

This processor is described as a "card" by its rates of float32 products of 2048 × 2048 matrices and of copies of
256 MB, on one thread. The prediction of `--predict` for this card is compared with the CPU seconds of the networks,
with random weights, on the middle segment of the video (default: a generated texture without audio). A share clearly
above 1 would show an error of the model, because an operation takes at least the longer of the times of its arithmetic
and its memory traffic. Data in the cache move faster than in memory, so that streams of small operations may exceed 1.
Streams without a network, and athlete crops, are left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from charts import BLUE, aim, bars, picture
from measured import Found, markdown, parser_for, present

from arabesque.cli.demo_videos.moving_texture import write_moving_texture
from arabesque.manifests.recipes import load_recipe
from arabesque.pipeline.benchmarking.benchmark import probed
from arabesque.pipeline.benchmarking.card_prediction import META, predict
from arabesque.pipeline.benchmarking.cards import Card
from arabesque.pipeline.benchmarking.end_to_end import Bench
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.items import SegmentTask, Stream
from arabesque.pipeline.planning.discovery import required_videos
from arabesque.pipeline.segment_inputs import read_segments
from arabesque.pipeline.streams import build_streams

SIDE = 2048
COPIED_BYTES = 2**28


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--recipe", default="everything")
    parser.add_argument("--stream", nargs="+", help="default: all streams of the recipe")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(given)
    torch.set_num_threads(1)
    present(table, draw, options, lambda: measure(options), ["torch"])


def table(found: Found) -> list[str]:
    rows = [
        [
            f"`{row['stream']}`",
            f"{row['gflop']:.1f}",
            f"{1e3 * row['bound_s']:.0f}",
            f"{1e3 * row['measured_s']:.0f}",
            f"{row['share']:.2f}",
        ]
        for row in found["results"]
    ]
    return markdown(["stream, one segment", "GFLOP", "bound, CPU ms", "measured", "bound ÷ measured"], rows)


def measure(options: argparse.Namespace) -> Found:
    numbers = torch.randn(SIDE, SIDE)
    source, target = (torch.zeros(COPIED_BYTES, dtype=torch.uint8) for _ in range(2))
    flop_per_s = 2 * SIDE**3 / best_s(lambda: numbers @ numbers, 5)
    bytes_per_s = 2 * COPIED_BYTES / best_s(lambda: target.copy_(source), 5)
    print(f"{flop_per_s / 1e9:.0f} GFLOP/s and {bytes_per_s / 1e9:.1f} GB/s on one thread")
    card = Card("this CPU", flop_per_s, flop_per_s, flop_per_s, bytes_per_s, tvl1_pairs_per_s=float("inf"))
    with TemporaryDirectory() as folder:
        video = options.video or Path(folder, "drawn.mp4")
        if options.video is None:
            write_moving_texture(video, duration_s=3.0)
        inputs = required_videos([video])
        run = Extraction(
            video,
            load_recipe(options.recipe),
            Path(folder) / "features",
            streams=options.stream,
            weights="random:0",
            inputs=inputs,
        )
        videos = probed(run, inputs.videos)
        without_numbers = build_streams(run.streams, run.weights, run.settings_digests, META)
        found = predict(Bench(run, without_numbers, run.options), videos, card, cores=1, measure_s=0.1)
        bounds = {each.stream: each for each in found.streams if each.network.flop and not each.not_counted}
        streams = build_streams(run.streams, run.weights, run.settings_digests, torch.device("cpu"))
        measured = forward_seconds(video, [stream for stream in streams if stream.name in bounds], options.rounds)
    results: list[Found] = []
    for name, measured_s in measured.items():
        counts = bounds[name].network.times(1 / bounds[name].segments_per_video_s)
        results.append(
            {
                "stream": name,
                "gflop": counts.flop / 1e9,
                "bound_s": counts.card_s,
                "measured_s": measured_s,
                "share": counts.card_s / measured_s,
            }
        )
    return {"gflop_per_s": flop_per_s / 1e9, "gb_per_s": bytes_per_s / 1e9, "results": results}


def forward_seconds(video: Path, streams: list[Stream], rounds: int) -> dict[str, float]:
    """Return the CPU seconds of each stream's network for the middle segment of a video."""
    seconds: dict[str, float] = {}
    for item in read_segments(video, streams, lambda _, count: [count // 2] if count else [], torch.device("cpu")):
        if isinstance(item, SegmentTask):
            extractor = item.stream.extractor
            prepared = extractor.prepare(item.segment)
            seconds[item.stream.name] = best_s(lambda run=extractor, one=prepared: run.forward([one]), rounds)
    return seconds


def best_s(work: Callable[[], Any], rounds: int) -> float:
    """Return the lowest CPU seconds of the rounds, after a warm-up call."""
    work()
    found: list[float] = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def draw(found: Found, path: Path) -> None:
    rows = {row["stream"]: {"share": row["share"]} for row in found["results"]}
    with picture(path, "The predicted bound beside the measured time", found, 1.4 + 0.4 * len(rows)) as (axes,):
        bars(axes, rows, "bound as a share of the measured CPU time", colors={"share": BLUE}, told="{:.2f}".format)
        aim(axes, 1.0, "no network is faster than its bound")


if __name__ == "__main__":
    main()
