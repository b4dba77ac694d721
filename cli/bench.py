"""``arabesque bench``: measure the speed of a recipe on this machine, per stage, and compare with the upper bound."""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..manifests.json_text import to_json
from ..manifests.optional_packages import require_package
from .arguments import WEIGHTS_MANIFEST, check_decoder, check_device, check_streams
from .console import print_json
from .inputs import InputOptions, with_inputs
from .recipe_options import PRECISION, RANDOM, SET, chosen_recipe

if TYPE_CHECKING:
    from ..manifests.recipes import Recipe
    from ..pipeline.benchmarking.benchmark import Benchmark
    from ..pipeline.benchmarking.card_prediction import Counts, Prediction
    from ..pipeline.benchmarking.report import Report, StageCost
    from ..pipeline.benchmarking.workload import Probed
    from ..pipeline.extraction import Extraction
    from ..pipeline.planning.discovery import Inputs
    from ..pipeline.records import VideoFile

_LOG = logging.getLogger(__name__)


NUM_GENERATED = 2
GENERATED_S = 12.0


VIDEOS = Annotated[
    list[str] | None,
    typer.Argument(
        help="Folders of videos, videos, patterns such as 'videos/*.mp4', and URLs. Default: two generated videos, "
        "720p, 25 fps."
    ),
]


@with_inputs("id_prefix", videos=VIDEOS)
def bench(
    inputs: InputOptions,
    recipe: Annotated[str, typer.Option(help="Name of a recipe, or path of a .toml file.")] = "starter",
    stream: Annotated[
        list[str] | None, typer.Option(help="Run only this stream of the recipe; may be repeated. Default: all.")
    ] = None,
    setting: SET = None,
    weights: Annotated[
        str, typer.Option(help="random:SEED, or `cache` for the recipe's checkpoints. The speed is the same.")
    ] = "random:0",
    precision: PRECISION = None,
    device: Annotated[str, typer.Option(help="Device for networks: auto, cpu, cuda or cuda:N.")] = "auto",
    decoder: Annotated[str, typer.Option(help="Decoder backend: pyav or decord.")] = "pyav",
    decode_workers: Annotated[
        int | None, typer.Option(min=1, help="Number of videos decoded in parallel. Default: depends on the cores.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for networks. Default: all cores.")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Approximate duration of the end-to-end run, in seconds.")
    ] = 20.0,
    stage_seconds: Annotated[float, typer.Option(min=0.01, help="Duration of each isolated stage, in seconds.")] = 1.0,
    one_by_one: Annotated[
        bool, typer.Option("--one-by-one", help="Also run each stream alone, to compare with one pass for all.")
    ] = False,
    predict: Annotated[
        str | None,
        typer.Option(
            metavar="CARD",
            help="Instead compute an upper bound of the speed with this GPU, which need not be present, and --threads "
            "CPU cores: h200, h100, a100 or l4.",
        ),
    ] = None,
    weights_manifest: WEIGHTS_MANIFEST = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all results to this JSON file; - prints them.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="Write a chart of the rates to this .png file.")] = None,
) -> None:
    """Measure each stage of a run alone, then all of them together, on up to four of your videos or generated ones.

    With --clips, up to four clips of each of four files are measured; all clips of a file are read in one pass.
    The speed-of-light ratio is the end-to-end rate ÷ the rate of the slowest stage alone; 1 is the upper bound.
    """
    chosen, _ = chosen_recipe(
        recipe, settings=setting, weights=None, precision=precision, weights_manifest=weights_manifest
    )
    check_device(device)
    if decoder == "nvdec":
        raise typer.BadParameter(
            "nvdec decodes only files that an earlier run has decoded on the CPU, so that bench would measure the CPU; "
            "benchmarks/gpu_checks.sh nvdec measures the card",
            param_hint="--decoder",
        )
    check_decoder(decoder)
    _check(chosen, stream, weights, chart, json_file)
    if inputs.are_given and not inputs.name_files:
        options = "--include, --exclude, --limit, --frame-rate"
        raise typer.BadParameter("selects from videos; give their folder", param_hint=options)
    _check_prediction(predict, device, one_by_one=one_by_one, chart=chart)
    found = inputs.find() if inputs.are_given else None
    from ..pipeline.benchmarking.benchmark import Effort, benchmark, probed
    from ..pipeline.extraction import Extraction
    from .extract import run_options, warn_about_float16

    options = run_options("cpu" if predict else device, decoder, decode_workers, threads)
    with _inputs(found) as measured, TemporaryDirectory(prefix="arabesque-bench-") as temporary:
        run = Extraction(
            inputs.videos or [],
            chosen,
            Path(temporary) / "features",
            streams=stream or None,
            weights=None if weights == "cache" else weights,
            options=options,
            inputs=measured,
        )
        if predict is not None:
            with _local_videos(run) as local:
                _predict(run, probed(run, local), predict, stage_seconds, json_file)
            return
        warn_about_float16(run)
        with _local_videos(run) as local:
            measurement = benchmark(
                run, Effort(stage_seconds, seconds), _print_step, lambda streams: probed(run, local)
            )
            alone = _measure_one_by_one(measurement) if one_by_one else None
    facts = measurement.report.as_json() | ({} if alone is None else {"one_by_one": alone})
    if not _write_json(facts, json_file):
        _print_report(measurement.report, alone)
    if chart is not None:
        from .bench_chart import draw_chart

        draw_chart(measurement.report, chart)


def _check_prediction(card: str | None, device: str, *, one_by_one: bool, chart: Path | None) -> None:
    """Raise if the card is unknown, or options are given that a prediction would ignore."""
    if card is None:
        return
    from ..pipeline.benchmarking.cards import CARDS

    if card not in CARDS:
        raise typer.BadParameter(f"{card!r} is not one of {', '.join(CARDS)}", param_hint="--predict")
    given = {"--device": device != "auto", "--one-by-one": one_by_one, "--chart": chart is not None}
    for option, is_given in given.items():
        if is_given:
            raise typer.BadParameter("does not apply to --predict; leave it out", param_hint=option)


def _predict(run: Extraction, videos: Probed, name: str, measure_s: float, json_file: Path | None) -> None:
    """Print the upper bound of the run's speed on a card."""
    from ..pipeline.benchmarking.card_prediction import META, predict
    from ..pipeline.benchmarking.cards import CARDS
    from ..pipeline.benchmarking.end_to_end import Bench
    from ..pipeline.streams import build_streams

    _print_step("building the networks without weights")
    streams = build_streams(run.streams, run.weights, run.settings_digests, META)
    options = replace(run.options, decoding=replace(run.options.decoder_settings, planar=True))
    _print_step("decoding and preparing on this CPU")
    found = predict(Bench(run, streams, options), videos, CARDS[name], options.num_cpu_threads, measure_s)
    if not _write_json(found.as_json(), json_file):
        _print_prediction(found)


def _write_json(facts: Mapping[str, object], file: Path | None) -> bool:
    """Write the results to a file, or print them for ``-``; return whether they were printed."""
    if file == Path("-"):
        print_json(facts)
        return True
    if file is not None:
        file.write_text(to_json(facts), encoding="utf-8")
    return False


def _print_prediction(found: Prediction) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"recipe {found.recipe} on {found.card.name} with {found.cores} CPU cores: a bound, not a measurement"
    table = Table(title=title, title_justify="left")
    table.add_column("for a second of video", no_wrap=True)
    for heading in ("CPU ms", "launches", "GFLOP", "GB", "card ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("decode", _rate(1e3 * found.decode_cpu_s), "", "", "", "")
    table.add_row("preprocess", "", *_counts(found.preprocess, found.preprocess.card_s))
    for each in found.streams:
        counts = ("?",) * 4 if each.not_counted else _counts(each.network, each.network.card_s + each.tvl1_s)
        table.add_row(each.stream, _rate(1e3 * each.prepare_cpu_s), *counts)
    Console().print(table)
    for each in found.streams:
        if each.not_counted:
            print(f"{each.stream}: its network is not counted ({each.not_counted}), so that the bound is too high")
    for resource, seconds in found.seconds.items():
        print(f"{resource}: {1e3 * seconds:.2f} ms, {_rate(1 / seconds) if seconds else 'any'} video s/s")
    print(f"bound by {found.bound}: at most {_rate(found.most_video_s_per_s)} video s/s")


def _counts(counts: Counts, card_s: float) -> tuple[str, ...]:
    return (
        _rate(counts.launches),
        _rate(counts.flop / 1e9),
        _rate(counts.moved_bytes / 1e9),
        _rate(1e3 * card_s),
    )


def _check(recipe: Recipe, streams: list[str] | None, weights: str, chart: Path | None, json_file: Path | None) -> None:
    """Check the options before heavy imports."""
    if weights != "cache" and not RANDOM.fullmatch(weights):
        raise typer.BadParameter(
            f"{weights!r} is neither random:SEED nor cache; give one of them", param_hint="--weights"
        )
    check_streams(recipe, streams, None if weights == "cache" else weights)
    if chart is not None and chart.suffix.lower() != ".png":
        raise typer.BadParameter(f"{chart} does not end in .png; rename it", param_hint="--chart")
    if chart is not None:
        require_package("matplotlib", "--chart")
    for option, file in (("--chart", chart), ("--json", json_file)):
        if file is not None and not file.parent.is_dir():
            raise typer.BadParameter(f"{file}: the folder {file.parent} does not exist; create it", param_hint=option)


@contextmanager
def _inputs(given: Inputs | None) -> Generator[Inputs, None, None]:
    """Yield the given videos, or generated ones that exist until the block ends."""
    if given is not None:
        yield given
        return
    from ..pipeline.planning.discovery import required_videos
    from .demo_videos.moving_texture import write_moving_texture

    _print_step(f"generating {NUM_GENERATED} videos of {GENERATED_S:.0f} s")
    with TemporaryDirectory(prefix="arabesque-bench-") as folder:
        for number in range(NUM_GENERATED):
            write_moving_texture(Path(folder) / f"generated_{number}.mp4", duration_s=GENERATED_S, seed=number)
        yield required_videos([Path(folder)])


@contextmanager
def _local_videos(run: Extraction) -> Generator[list[VideoFile], None, None]:
    """Yield the videos to measure on; those at a URL as copies on the local disk that exist until the block ends."""
    from ..pipeline.benchmarking.benchmark import chosen_videos
    from ..pipeline.stages.fetch import is_remote, local_copies

    chosen = chosen_videos(run.inputs.videos)
    if any(map(is_remote, chosen)):
        _print_step(f"fetching {len(chosen)} of {len(run.inputs.videos)} videos")
    with local_copies(chosen, run.options.prefetch_bytes) as here:
        yield here


def _measure_one_by_one(found: Benchmark) -> dict[str, Any]:
    """Measure one run per stream with the loaded networks, on the videos of the benchmark's end-to-end run."""
    from ..pipeline.benchmarking.end_to_end import run_end_to_end

    streams_s: dict[str, float] = {}
    for stream in found.bench.streams:
        _print_step(f"{stream.name} alone")
        alone = run_end_to_end(found.bench.of(stream.name), found.sample.sources)
        streams_s[stream.name] = alone.spent.wall_s
    one_pass_s, sum_s = found.report.wall_s, sum(streams_s.values())
    return {
        "one_pass_s": one_pass_s,
        "streams_s": streams_s,
        "sum_s": sum_s,
        "one_pass_over_sum": one_pass_s / sum_s,
    }


def _print_step(step: str) -> None:
    _LOG.info(f"{step} …")


def _print_report(report: Report, alone: dict[str, Any] | None) -> None:
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
    print("video s/s: seconds of video per second, stage alone; CPU s: CPU time per second of video, stage alone")
    _print_ratios(report)
    _print_memory(report)
    if alone is not None:
        for name, seconds in alone["streams_s"].items():
            print(f"{name} alone: {seconds:.1f} s")
        one_pass_s, sum_s = alone["one_pass_s"], alone["sum_s"]
        print(f"one pass ÷ one by one: {one_pass_s:.1f} s ÷ {sum_s:.1f} s = {alone['one_pass_over_sum']:.2f}")


def _cells(cost: StageCost, report: Report) -> tuple[str, ...]:
    busy = None if cost.stream else report.utilization.get(cost.stage)
    return (
        f"  {cost.stream}" if cost.stream else cost.stage,
        f"{_rate(cost.units_per_s)} {cost.unit}/s",
        _rate(cost.video_s_per_s),
        _rate(cost.units_per_video_s * report.video_s_per_s),
        "?" if cost.cpu_s is None else f"{cost.cpu_s:.4f}",
        "" if busy is None else f"{busy:.0%}",
    )


def _rate(value: float) -> str:
    """Format with three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _print_ratios(report: Report) -> None:
    limits = report.bounds
    print(
        f"end to end: {report.video_s:.1f} s of video in {report.wall_s:.1f} s, "
        f"{_rate(report.video_s_per_s)} video s/s\n"
        f"slowest stage alone: {limits.slowest.stage}, {_rate(limits.slowest.video_s_per_s)} video s/s; "
        f"speed-of-light ratio {report.slowest_stage_ratio:.2f}"
    )
    if limits.cores_video_s_per_s is not None:
        print(
            f"upper bound from {report.cores} shared cores: {_rate(limits.cores_video_s_per_s)} video s/s; "
            f"ratio to this bound {report.shared_cores_ratio:.2f}"
        )


def _print_memory(report: Report) -> None:
    memory = report.memory
    parts = {"this process": memory.parent_bytes, "each decoder": memory.decoder_bytes, "GPU": memory.device_bytes}
    sizes = [f"{name} {size / 2**20:,.0f} MiB" for name, size in parts.items() if size is not None]
    print(f"peak memory: {', '.join(sizes) or 'unknown on this platform'}")
