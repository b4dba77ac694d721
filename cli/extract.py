"""``arabesque extract``: the main job."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from .executors import CPUS, EXECUTOR, GPUS, RAY_ADDRESS, WORKERS, Wish, chosen_executor

if TYPE_CHECKING:
    import torch

    from ..manifests.recipes import Recipe
    from ..pipeline.extraction import Extraction, RunOptions
    from ..pipeline.failure_budget import FailureBudget
    from ..pipeline.shard import Shard


def extract(
    videos: Annotated[str, typer.Argument(help="A folder of videos (searched below, too), or one video; or a URL.")],
    recipe: Annotated[str, typer.Option(help="A recipe's name (`arabesque recipes`), or a .toml file of your own.")],
    out: Annotated[str, typer.Option(help="The feature store: a new folder or URL, or one to go on with.")],
    stream: Annotated[
        list[str] | None, typer.Option(help="Only this stream of the recipe; may be repeated. Default: all.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="random:SEED runs every network on random weights, to try things out. Never for results."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    decoder: Annotated[str, typer.Option(help="pyav or decord.")] = "pyav",
    decode_workers: Annotated[
        int | None, typer.Option(min=1, help="Videos decoded at once, each in its own process. Default: by cores.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for networks. Default: all cores.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="What a machine may give to the run, e.g. 4GiB: less is decoded and batched at once."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also take up videos that failed for good, and partial ones.")
    ] = False,
    max_failures: Annotated[
        str | None, typer.Option(help="Stop the run once more videos fail than this: 20, or 5% of those to do.")
    ] = None,
    spool_gb: Annotated[
        float,
        typer.Option(min=0.001, help="Disk for copies of videos at a URL, in TMPDIR, for each worker."),
    ] = 20.0,
    float16: Annotated[bool, typer.Option("--float16", help="Store features as float16.")] = False,
    executor: EXECUTOR = "local",
    workers: WORKERS = None,
    ray_address: RAY_ADDRESS = None,
    cpus_per_worker: CPUS = None,
    gpus_per_worker: GPUS = None,
    shard: Annotated[
        str | None, typer.Option(help="Only the videos of one part: 3/16 is the third of sixteen.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what the run would take: time, memory and disk.")
    ] = False,
) -> None:
    """Turn a folder of raw videos into a feature store. Run it again to go on where it stopped.

    Exit status: 0 all done or empty, 3 some videos failed or are partial, 1 the run itself failed, 2 wrong usage.
    """
    from ..manifests.recipes import load_recipe

    if weights is not None and not re.fullmatch(r"random:\d{1,18}", weights):
        raise typer.BadParameter(f"{weights!r} is not random:SEED with a whole number", param_hint="--weights")
    budget, part, memory_bytes = _budget(max_failures), _shard(shard), _memory_bytes(memory)
    chosen = load_recipe(recipe)  # before the heavy imports: a misspelt recipe is told at once
    refuse_unknown_streams(chosen, stream)
    from ..pipeline.extraction import Extraction
    from ..pipeline.status import read_status
    from .dry_run import show_forecast
    from .status import print_status

    here = device if executor == "local" else "cpu"  # where Ray's workers compute, Ray knows
    options = run_options(here, decoder, decode_workers, threads, retry_failed=retry_failed, float16=float16)
    options = replace(options, max_failures=budget, memory_bytes=memory_bytes, spool_bytes=round(spool_gb * 2**30))
    wish = Wish(executor, workers, ray_address, cpus_per_worker, gpus_per_worker)
    options, crew = chosen_executor(wish, options, device, decode_workers, threads)
    if dry_run and crew is not None:
        way_out = "add --executor local --workers 1"
        raise typer.BadParameter(f"it foresees what one worker here takes; {way_out}", param_hint="--dry-run")
    run = Extraction(
        videos, chosen, out, streams=stream or None, weights=weights, options=options, executor=crew, shard=part
    )
    _announce(run, weights)
    if executor == "local":
        warn_of_float16(run)
    if dry_run:
        show_forecast(run)
        raise typer.Exit
    _carry_out(run)
    raise typer.Exit(print_status(read_status(out, run.inputs)))


def _carry_out(run: Extraction) -> None:
    """And says how far off an earlier ``--dry-run`` was."""
    import time

    from ..pipeline.benchmarking.forecast_file import store_bytes, take_forecast, what_it_took
    from .dry_run import how_far_off
    from .progress import show_run

    foreseen, began = take_forecast(run), time.perf_counter()
    before_bytes = None if foreseen is None else store_bytes(run)
    show_run(run)
    if foreseen is not None:
        actual = what_it_took(run, time.perf_counter() - began, before_bytes)
        print(how_far_off(foreseen, actual), file=sys.stderr)


def warn_of_float16(run: Extraction) -> None:
    """One line, where a network would compute in float16 on a CPU."""
    names = [name for name, spec in run.streams.items() if spec.precision == "float16"]
    if names and run.options.device.type == "cpu":
        print(
            f"WARNING: {', '.join(names)}: float16 is for GPUs; on a CPU it can take a hundred times as long as "
            'float32. A recipe of your own with precision = "float32" has other keys, and rows within 4e-3 of these.',
            file=sys.stderr,
        )


def refuse_unknown_streams(recipe: Recipe, names: list[str] | None) -> None:
    for name in names or ():
        if name not in recipe.streams:
            known = ", ".join(recipe.streams)
            raise typer.BadParameter(f"{recipe.name} has no stream {name!r}, but {known}", param_hint="--stream")


def run_options(
    device: str = "auto",
    decoder: str = "pyav",
    decode_workers: int | None = None,
    threads: int | None = None,
    *,
    retry_failed: bool = False,
    float16: bool = False,
) -> RunOptions:
    """Options with every default made definite for this machine; sets torch's number of threads."""
    import os

    import torch

    from ..pipeline.decoding.decoders import BACKENDS
    from ..pipeline.extraction import RunOptions

    if decoder not in BACKENDS:
        raise typer.BadParameter(f"{decoder!r} is none of {', '.join(BACKENDS)}", param_hint="--decoder")
    cores = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    return RunOptions(
        device=_device(device),
        decoder=decoder,
        num_decoders=decode_workers or max(1, min(8, cores // 2)),
        num_cpu_threads=cores,
        retry_failed=retry_failed,
        float16=float16,
    )


def _budget(text: str | None) -> FailureBudget | None:
    if text is None:
        return None
    from ..pipeline.failure_budget import FailureBudget

    try:
        return FailureBudget(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--max-failures") from None


def _shard(text: str | None) -> Shard | None:
    if text is None:
        return None
    from ..pipeline.shard import parse_shard

    try:
        return parse_shard(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--shard") from None


def _memory_bytes(text: str | None) -> int | None:
    if text is None:
        return None
    from ..pipeline.memory import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--memory") from None


def _device(name: str) -> torch.device:
    """The device that was asked for; one that is not there is an error, never another device in silence."""
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise typer.BadParameter(
            f"{name!r} is no device; try auto, cpu, cuda or cuda:1", param_hint="--device"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise typer.BadParameter(
            f"{name!r} is not there: torch sees {torch.cuda.device_count()} GPUs; `arabesque doctor` may say why",
            param_hint="--device",
        )
    return device


def _announce(run: Extraction, weights: str | None) -> None:
    """What is about to happen, on stderr: standard output stays free for what a script may want to read."""
    settled = len(run.inputs.videos) - len(run.pending)
    print(
        f"recipe {run.recipe.name}: {', '.join(run.streams)}\n"
        f"{len(run.inputs.videos)} videos, {settled} settled by earlier runs, {len(run.pending)} to do; "
        f"{run.executor or f'device {run.options.device}, {run.options.num_decoders} decoding'}",
        file=sys.stderr,
    )
    if run.inputs.num_other_files:
        print(f"{run.inputs.num_other_files} files without a video suffix are left out", file=sys.stderr)
    if run.inputs.unlisted:
        folders = ", ".join(run.inputs.unlisted)
        print(f"WARNING: these folders cannot be listed, their videos are left out: {folders}", file=sys.stderr)
    if weights is not None:
        print(
            f"WARNING: {weights.upper()} WEIGHTS. These features mean nothing and say so in the store.", file=sys.stderr
        )
