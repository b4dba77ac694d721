"""``arabesque bench``: how fast a recipe runs here, stage by stage, and how near that is to what is possible."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from .extract import refuse_unknown_streams

if TYPE_CHECKING:
    from ..manifests.recipes import Recipe
    from ..pipeline.benchmarking.one_by_one import OneByOne
    from ..pipeline.benchmarking.report import Report, StageCost
    from ..pipeline.extraction import Extraction

NUM_DRAWN = 2
DRAWN_S = 12.0


def bench(
    videos: Annotated[
        str | None,
        typer.Argument(help="A folder of videos, one video, or a URL. Default: two are drawn, 720p, 25 fps."),
    ] = None,
    recipe: Annotated[str, typer.Option(help="A recipe's name, or a .toml file of your own.")] = "starter",
    stream: Annotated[list[str] | None, typer.Option(help="Only this stream of the recipe; may be repeated.")] = None,
    weights: Annotated[
        str, typer.Option(help="random:SEED, or `cache` for the recipe's checkpoints: they are not faster or slower.")
    ] = "random:0",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    decoder: Annotated[str, typer.Option(help="pyav or decord.")] = "pyav",
    decode_workers: Annotated[
        int | None, typer.Option(min=1, help="Videos decoded at once. Default: by cores.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="About how long to run from end to end.")] = 20.0,
    stage_seconds: Annotated[float, typer.Option(min=0.01, help="How long to run each stage alone.")] = 1.0,
    one_by_one: Annotated[
        bool, typer.Option("--one-by-one", help="Also run each stream by itself, against all in one pass.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything into this file.")] = None,
    chart: Annotated[Path | None, typer.Option(help="Draw the rates into this .png file.")] = None,
) -> None:
    """Measure each stage of a run alone and all of them together, on your videos or drawn ones.

    The speed-of-light ratio is the rate from end to end ÷ that of the slowest stage alone: 1 is as fast as it can get.
    """
    from ..manifests.recipes import load_recipe

    chosen = load_recipe(recipe)
    _check(chosen, stream, weights, chart, json_file)
    from ..pipeline.benchmarking.benchmark import Effort, benchmark
    from ..pipeline.benchmarking.one_by_one import run_one_by_one
    from ..pipeline.extraction import Extraction
    from .extract import run_options, warn_of_float16

    options = run_options(device, decoder, decode_workers, threads)
    with _videos(videos) as folder, TemporaryDirectory(prefix="arabesque-bench-") as nowhere:
        run = Extraction(
            folder,
            chosen,
            Path(nowhere) / "features",
            streams=stream or None,
            weights=None if weights == "cache" else weights,
            options=options,
        )
        warn_of_float16(run)
        with _fetched(run):
            found = benchmark(run, Effort(stage_seconds, seconds), _say)
            alone = run_one_by_one(found, _say) if one_by_one else None
    _print_report(found.report, alone)
    if json_file is not None:
        facts = found.report.as_json() | ({} if alone is None else {"one_by_one": alone.as_json()})
        json_file.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if chart is not None:
        from ..pipeline.benchmarking.chart import draw_chart

        draw_chart(found.report, chart)


def _check(recipe: Recipe, streams: list[str] | None, weights: str, chart: Path | None, json_file: Path | None) -> None:
    """Before anything is imported or measured."""
    refuse_unknown_streams(recipe, streams)
    if weights != "cache" and not re.fullmatch(r"random:\d{1,18}", weights):
        raise typer.BadParameter(f"{weights!r} is neither random:SEED nor cache", param_hint="--weights")
    if chart is not None and chart.suffix.lower() != ".png":
        raise typer.BadParameter(f"{chart} does not end in .png", param_hint="--chart")
    if chart is not None and find_spec("matplotlib") is None:
        raise typer.BadParameter("drawing needs matplotlib: pip install matplotlib", param_hint="--chart")
    for option, file in (("--chart", chart), ("--json", json_file)):
        if file is not None and not file.parent.is_dir():
            raise typer.BadParameter(f"{file}: there is no folder {file.parent}", param_hint=option)


@contextmanager
def _videos(given: str | None) -> Iterator[str]:
    if given is not None:
        yield given
        return
    from ..pipeline.synthetic.moving_texture import write_moving_texture

    _say(f"drawing {NUM_DRAWN} videos of {DRAWN_S:.0f} s")
    with TemporaryDirectory(prefix="arabesque-bench-") as folder:
        for number in range(NUM_DRAWN):
            write_moving_texture(Path(folder) / f"drawn_{number}.mp4", duration_s=DRAWN_S, seed=number)
        yield folder


@contextmanager
def _fetched(run: Extraction) -> Iterator[None]:
    """What is measured on lies here until the block ends, if the run's videos lie at a URL."""
    from ..pipeline.benchmarking.benchmark import MAX_VIDEOS, evenly
    from ..pipeline.spooling import is_remote, local_copies

    chosen = evenly(run.inputs.videos, MAX_VIDEOS)
    if any(map(is_remote, chosen)):
        _say(f"fetching {len(chosen)} of {len(run.inputs.videos)} videos")
    with local_copies(chosen, run.options.spool_bytes) as here:
        run.inputs = replace(run.inputs, videos=tuple(here))
        yield


def _say(step: str) -> None:
    print(f"{step} …", file=sys.stderr, flush=True)


def _print_report(report: Report, alone: OneByOne | None) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"recipe {report.recipe} on {report.device}, {report.cores} CPU threads, {report.num_decoders} decoding"
    table = Table(title=title, title_justify="left")
    table.add_column("stage", no_wrap=True)
    for heading in ("alone", "video s/s", "in the run", "CPU s", "busy"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in report.stages:
        table.add_row(*_cells(cost, report))
    Console().print(table)
    print("video s/s: seconds of video per second, alone; CPU s: processor time for a second of video, alone")
    _print_ratios(report)
    _print_memory(report)
    if alone is not None:
        for name, seconds in alone.streams_s.items():
            print(f"{name} by itself: {seconds:.1f} s")
        print(f"one pass ÷ one by one: {alone.one_pass_s:.1f} s ÷ {alone.sum_s:.1f} s = {alone.ratio:.2f}")


def _cells(cost: StageCost, report: Report) -> tuple[str, ...]:
    busy = None if cost.stream else report.utilisation.get(cost.stage)
    return (
        f"  {cost.stream}" if cost.stream else cost.stage,
        f"{_rate(cost.units_per_s)} {cost.unit}/s",
        _rate(cost.video_s_per_s),
        _rate(cost.units_per_video_s * report.video_s_per_s),
        "?" if cost.cpu_s is None else f"{cost.cpu_s:.4f}",
        "" if busy is None else f"{busy:.0%}",
    )


def _rate(value: float) -> str:
    """Three digits that count, and no powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _print_ratios(report: Report) -> None:
    limits = report.bounds
    print(
        f"end to end: {report.video_s:.1f} s of video, {report.wall_s:.1f} s: {_rate(report.video_s_per_s)} a second\n"
        f"slowest stage alone: {limits.slowest.stage}, {_rate(limits.slowest.video_s_per_s)} video s/s; "
        f"speed-of-light ratio {report.speed_of_light_ratio:.2f}"
    )
    if limits.cores_video_s_per_s is not None:
        print(
            f"all stages' work on {report.cores} cores: {_rate(limits.cores_video_s_per_s)} video s/s at most; "
            f"ratio to the lower bound {report.shared_cores_ratio:.2f}"
        )


def _print_memory(report: Report) -> None:
    memory = report.memory
    parts = {"this process": memory.parent_bytes, "each decoder": memory.decoder_bytes, "GPU": memory.device_bytes}
    told = [f"{name} {size / 2**20:,.0f} MiB" for name, size in parts.items() if size is not None]
    print(f"peak memory: {', '.join(told) or 'not known on this platform'}")
