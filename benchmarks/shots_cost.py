"""Measure the cost that `arabesque shots` adds to a run of `starter`: both in one pass, against `starter` alone.

python benchmarks/shots_cost.py [--video drawn FILE …] [--seconds 40] [--rounds 3] [--chart FILE]

``drawn`` is a video that the script encodes (1280 × 720, 25 fps, H.264, with music). Runs with and without the streams
of `shots` alternate, each with a new store; the search for boundaries, replays and routines counts for `shots`. The
best round counts, in CPU seconds of the process and its decoders, to reduce the effect of other load; wall-clock
seconds are those of the same rounds.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from charts import BLUE, aim, bars, picture
from measured import Found, markdown, parser_for, present
from moving_texture import moving_texture
from numpy.typing import NDArray

from arabesque.cli.demo_videos.music import beat_times, compose
from arabesque.cli.demo_videos.routines import FPS, encode
from arabesque.manifests.recipes import Recipe, load_recipe
from arabesque.manifests.shot_rules import load_shot_rules
from arabesque.models.broadcast.edits import STREAMS, read_edits
from arabesque.pipeline.extraction import Extraction
from arabesque.pipeline.machine import options_for_machine
from arabesque.pipeline.planning.discovery import required_videos
from arabesque.pipeline.store.reader import FeatureStore

AIM = 0.25
"""Aim for the added cost, as a share of `starter` alone."""


def main(given: Sequence[str] | None = None) -> None:
    parser = parser_for(__doc__)
    parser.add_argument("--video", nargs="+", default=["drawn"], help="files, or `drawn`")
    parser.add_argument("--seconds", type=float, default=40, help="length of the generated video")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(given)
    present(
        table,
        draw,
        options,
        lambda: {"videos": [of_video(name, options.seconds, options.rounds) for name in options.video]},
        ["torch", "av"],
    )


def table(found: Found) -> list[str]:
    titles = ["what `shots` adds to `starter`", "CPU s, `starter`", "with `shots`", "**added**", "added on the clock"]
    rows = [
        [
            f"`{video['video']}`: {video['kind']}",
            f"{video['cpu_s']['starter']:.2f}",
            f"{video['cpu_s']['with shots']:.2f}",
            f"**{added(video, 'cpu_s'):.0%}**",
            f"{added(video, 'wall_s'):.0%}",
        ]
        for video in found["videos"]
    ]
    return markdown(titles, rows)


def added(video: Found, unit: str) -> float:
    return video[unit]["with shots"] / video[unit]["starter"] - 1


def draw(found: Found, path: Path) -> None:
    rows = {video["video"].partition("_")[0]: {"added": added(video, "cpu_s")} for video in found["videos"]}
    title = "What `shots` adds to `starter` in one pass"
    with picture(path, title, found, 1.4 + 0.5 * len(rows)) as (axes,):
        room = max(1.3 * AIM / max(row["added"] for row in rows.values()), 1.18)
        unit = "share of the CPU seconds of starter"
        bars(axes, rows, unit, colors={"added": BLUE}, told="{:.0%}".format, room=room)
        aim(axes, AIM, f"limit: {AIM:.0%}")


def of_video(name: str, seconds: float, num_rounds: int) -> Found:
    """Return the best round of each kind of run, after a warm-up round."""
    with tempfile.TemporaryDirectory() as folder:
        video = draw_video(Path(folder, "drawn.mp4"), seconds) if name == "drawn" else Path(name)
        kind = kind_of(video)
        rounds: dict[str, list[tuple[float, float]]] = {"starter": [], "with shots": []}
        for number in range(num_rounds + 1):
            for run in rounds:
                rounds[run].append(cost_of_run(video, Path(folder, f"{run} {number}"), with_shots=run != "starter"))
    counted = {run: costs[1:] for run, costs in rounds.items()}
    return {
        "video": video.stem,
        "kind": kind,
        "rounds": counted,
        "cpu_s": {run: min(cpu_s for cpu_s, _ in costs) for run, costs in counted.items()},
        "wall_s": {run: min(wall_s for _, wall_s in costs) for run, costs in counted.items()},
    }


def kind_of(video: Path) -> str:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        rate, end_s = stream.average_rate or 0, (container.duration or 0) / av.time_base
        return f"{stream.codec_context.name}, {stream.width}×{stream.height}, {float(rate):.0f} fps, {end_s:.0f} s"


def cost_of_run(video: Path, out: Path, *, with_shots: bool) -> tuple[float, float]:
    """Return CPU and wall-clock seconds of one run, including its decoder processes, which have ended by then."""
    starter, shots = load_recipe("starter"), load_recipe("shots")
    streams = dict(starter.streams)
    if with_shots:
        streams |= {name: shots.streams[name] for name in STREAMS["content"]}
    recipe = Recipe(name="starter-and-shots", summary="both in one pass", streams=streams)
    cpu_s, wall_s = cpu_seconds(), time.perf_counter()
    inputs = required_videos([video])
    for event in Extraction(video, recipe, out, options=options_for_machine("cpu"), inputs=inputs):
        del event
    if with_shots:
        paths = {file.video_id: str(file.path) for file in inputs.videos}
        (edit,) = read_edits(FeatureStore(out), paths, "content", load_shot_rules(), {})
        assert edit.shots
    return cpu_seconds() - cpu_s, time.perf_counter() - wall_s


def cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def draw_video(path: Path, seconds: float) -> Path:
    """Write a video of a texture that moves to and fro, is mirrored and inverted every five seconds, with music."""
    pictures = moving_texture(48, 720, 1280).frames.permute(0, 2, 3, 1).contiguous().numpy()
    to_and_fro = [*range(len(pictures)), *range(len(pictures) - 2, 0, -1)]

    def shown() -> Iterator[NDArray[np.uint8]]:
        for number in range(round(seconds * FPS)):
            frame = pictures[to_and_fro[number % len(to_and_fro)]]
            yield np.ascontiguousarray(255 - frame[:, ::-1]) if number // (5 * FPS) % 2 else frame

    music = compose(seconds, beat_times(seconds, 112.0, first_s=0.3), np.random.default_rng(0))
    encode(path, shown(), music, (1280, 720))
    return path


if __name__ == "__main__":
    main()
