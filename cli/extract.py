"""``arabesque extract``: extract the features of videos into a feature store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.plurals import plural
from .arguments import REPLACE, WEIGHTS_MANIFEST, check_decoder, check_device, check_engine, check_streams
from .console import JSON, print_json
from .executors import (
    CPUS,
    EXECUTOR,
    GPUS,
    RAY_ADDRESS,
    WORKERS,
    ExecutorOptions,
    check_executor_options,
    chosen_executor,
)
from .inputs import InputOptions, with_inputs
from .label_check import DATASET, LABELS, TARGET, check_label_options, check_labels, label_options
from .recipe_options import PRECISION, RECIPE_NAME, SET, WEIGHTS, chosen_recipe, random_roles

if TYPE_CHECKING:
    from ..manifests.recipes import Recipe
    from ..pipeline.extraction import Extraction
    from ..pipeline.failure_budget import FailureBudget
    from ..pipeline.options import RunOptions
    from ..pipeline.planning.discovery import Inputs
    from ..pipeline.planning.partition import Partition
    from ..pipeline.status import StoreStatus


_LOG = logging.getLogger(__name__)


@with_inputs()
def extract(
    recipe: Annotated[str, typer.Option(help=RECIPE_NAME)],
    out: Annotated[str, typer.Option("--out", "-o", help="Feature store: a new or existing folder or URL.")],
    inputs: InputOptions,
    stream: Annotated[
        list[str] | None, typer.Option(help="Extract only this stream of the recipe; may be repeated. Default: all.")
    ] = None,
    setting: SET = None,
    weights: WEIGHTS = None,
    precision: PRECISION = None,
    device: Annotated[str, typer.Option(help="Device for networks: auto, cpu, cuda or cuda:N.")] = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="Engine of networks: torch, compile (torch.compile and CUDA graphs; compiles for minutes, then needs "
            "fewer launches), or openvino on a CPU (extra openvino)."
        ),
    ] = "torch",
    decoder: Annotated[str, typer.Option(help="Decoder backend: pyav, decord or nvdec.")] = "pyav",
    decode_workers: Annotated[
        int | None,
        typer.Option(min=1, help="Number of decoder processes, one video each. Default: depends on the cores."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for networks. Default: all cores.")] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory limit for all processes, e.g. 4GiB; reduces concurrency and batch size. Default: no limit."
        ),
    ] = None,
    gpu_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory limit on each GPU, e.g. 20GiB, shared by the workers on it. Default: all; workers on one GPU "
            "share it evenly."
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also retry videos whose outcome is failed or partial.")
    ] = False,
    max_failures: Annotated[
        str | None,
        typer.Option(help="Stop the run if more videos fail: a number (20) or a share (5%). Default: no limit."),
    ] = None,
    spool_gb: Annotated[
        float,
        typer.Option(min=0.001, help="Disk space in GiB per worker, in TMPDIR, for copies of videos at a URL."),
    ] = 20.0,
    float16: Annotated[bool, typer.Option("--float16", help="Store features as float16. Default: float32.")] = False,
    replace_sources: REPLACE = False,
    executor: EXECUTOR = "local",
    workers: WORKERS = None,
    ray_address: RAY_ADDRESS = None,
    cpus_per_worker: CPUS = None,
    gpus_per_worker: GPUS = None,
    partition: Annotated[
        str | None,
        typer.Option(
            "--partition", "--shard", help="Extract only this part of the videos: 3/16 is the third of sixteen."
        ),
    ] = None,
    weights_manifest: WEIGHTS_MANIFEST = None,
    labels: LABELS = None,
    dataset: DATASET = None,
    target: TARGET = None,
    as_json: JSON = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate time, memory and disk space of the run.")
    ] = False,
) -> None:
    """Extract the features of videos into a feature store. The same command resumes an interrupted run.

    Exit status: 0 all done or empty, 3 some videos failed or are partial, 1 the run itself failed, 2 wrong usage.
    """
    check_label_options(labels, dataset, target)
    budget, part = _failure_budget(max_failures), _partition(partition)
    memory_bytes, gpu_memory_bytes = _bytes_of(memory, "--memory"), _bytes_of(gpu_memory, "--gpu-memory")
    if gpu_memory is not None and device == "cpu":
        raise typer.BadParameter("networks run on the CPU; leave out the option", param_hint="--gpu-memory")
    executor_options = ExecutorOptions(executor, workers, ray_address, cpus_per_worker, gpus_per_worker)
    local_device = device if executor == "local" else "cpu"  # Ray chooses the devices of its workers
    if executor == "ray" or (workers or 1) > 1:
        _check_not_dry_run(dry_run)
    check_executor_options(executor_options, device)
    check_device(local_device)
    check_decoder(decoder)
    chosen_engine = check_engine(engine, device)
    chosen, override = chosen_recipe(
        recipe, settings=setting, weights=weights, precision=precision, weights_manifest=weights_manifest
    )
    check_streams(chosen, stream, override)
    _LOG.info(f"recipe {chosen.name}: {', '.join(stream or chosen.streams)}")  # before imports that take a second
    from ..pipeline.store.files.storage import as_store_path
    from ..pipeline.store.manifest import refuse_other_recipe
    from ..pipeline.store.store import Store

    found = inputs.find()
    if labels is not None:
        matched = check_labels(labels, {*(file.video_id for file in found.videos), *found.clashes}, dataset, target)
        for line in matched.lines():
            _LOG.info(line)
    store = Store.open(out)
    refuse_other_recipe(store, chosen.name, chosen.changes)
    from ..pipeline.finished import is_finished, remember
    from ..pipeline.status import read_status

    roots = [as_store_path(each) for each in inputs.videos or ()]
    if part is None and is_finished(
        store, chosen, stream, override, found, roots=roots, id_prefix=inputs.id_prefix, retry_failed=retry_failed
    ):
        _announce_finished(chosen, stream or [*chosen.streams], found, override)
        if dry_run:
            if as_json:
                print_json(None)
            else:
                print("nothing remains to be done")
            raise typer.Exit
        raise typer.Exit(_print_result(read_status(store, found), as_json=as_json))
    from ..pipeline.extraction import Extraction
    from .dry_run import show_estimate

    options = run_options(local_device, decoder, decode_workers, threads, retry_failed=retry_failed, float16=float16)
    options = replace(options, max_failures=budget, memory_bytes=memory_bytes, prefetch_bytes=round(spool_gb * 2**30))
    options = replace(
        options, replaces_sources=replace_sources, engine=chosen_engine, gpu_memory_bytes=gpu_memory_bytes
    )
    options, workers_executor = chosen_executor(executor_options, options, device, decode_workers, threads)
    if workers_executor is not None:
        _check_not_dry_run(dry_run)
    run = Extraction(
        inputs.videos or [],
        chosen,
        store,
        streams=stream or None,
        weights=override,
        options=options,
        executor=workers_executor,
        partition=part,
        id_prefix=inputs.id_prefix,
        inputs=found,
    )
    remember(chosen, run.streams)
    _announce(run, override)
    if executor == "local":
        warn_about_float16(run)
    if dry_run:
        show_estimate(run, as_json=as_json)
        raise typer.Exit
    _execute(run, label_options(labels, dataset, target))
    raise typer.Exit(_print_result(read_status(store, run.inputs), as_json=as_json))


def _print_result(found: StoreStatus, *, as_json: bool) -> int:
    """Print the status of the inputs, and return the exit status."""
    from .status import print_status, status_facts

    if not as_json:
        return print_status(found, of_inputs=True)
    print_json(status_facts(found))
    return 3 if (found.inputs or found).troubles else 0


def _check_not_dry_run(dry_run: bool) -> None:
    if dry_run:
        raise typer.BadParameter(
            "estimates a single local worker; add --executor local --workers 1", param_hint="--dry-run"
        )


def _execute(run: Extraction, labels: str) -> None:
    """Execute the run; after an earlier ``--dry-run``, print the error of its estimate."""
    import time

    from ..pipeline.benchmarking.estimate_file import measure_run, pop_estimate, store_bytes
    from .dry_run import estimate_error
    from .progress import show_run

    estimate, began = pop_estimate(run), time.perf_counter()
    before_bytes = None if estimate is None else store_bytes(run)
    show_run(run, labels)
    if estimate is not None:
        actual = measure_run(run, time.perf_counter() - began, before_bytes)
        _LOG.info(estimate_error(estimate, actual))


def warn_about_float16(run: Extraction) -> None:
    """Print a warning if a network would compute in float16 on a CPU."""
    names = [name for name, spec in run.streams.items() if spec.precision == "float16"]
    if names and run.options.device.type == "cpu":
        _LOG.warning(
            f"{', '.join(names)}: float16 is meant for GPUs; on a CPU it can be 100 times slower than "
            'float32. With precision = "float32" in a recipe file, the keys differ and the rows agree to 4e-3.'
        )


def run_options(
    device: str = "auto",
    decoder: str = "pyav",
    decode_workers: int | None = None,
    threads: int | None = None,
    *,
    retry_failed: bool = False,
    float16: bool = False,
) -> RunOptions:
    """Return options with all defaults resolved for this machine. Sets the number of threads of torch."""
    from ..pipeline.machine import options_for_machine

    check_device(device)
    check_decoder(decoder)
    options = options_for_machine(device, decoder=decoder, decode_workers=decode_workers, threads=threads)
    return replace(options, retry_failed=retry_failed, float16=float16)


def _failure_budget(text: str | None) -> FailureBudget | None:
    if text is None:
        return None
    from ..pipeline.failure_budget import FailureBudget

    try:
        return FailureBudget(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--max-failures") from None


def _partition(text: str | None) -> Partition | None:
    if text is None:
        return None
    from ..pipeline.planning.partition import parse_partition

    try:
        return parse_partition(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--partition") from None


def _bytes_of(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    from ..pipeline.memory_sizes import parse_bytes

    try:
        return parse_bytes(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _announce(run: Extraction, override: str | None) -> None:
    """Log a summary of the run."""
    num_videos, num_remaining = len(run.inputs.videos), len(run.remaining)
    _LOG.info(
        f"{plural(num_videos, 'video')}, {num_videos - num_remaining} finished by earlier runs, "
        f"{num_remaining} remaining; "
        f"{run.executor or f'device {run.options.device}, {run.options.num_decoders} decoding'}"
    )
    _announce_inputs(run.inputs)
    _announce_random(random_roles(run.recipe, [*run.streams], override))


def _announce_finished(recipe: Recipe, streams: Sequence[str], inputs: Inputs, override: str | None) -> None:
    """Log the summary of a run in which nothing remains to be done."""
    num_videos = len(inputs.videos)
    _LOG.info(f"{plural(num_videos, 'video')}, {num_videos} finished by earlier runs, 0 remaining")
    _announce_inputs(inputs)
    _announce_random(random_roles(recipe, [*streams], override))


def _announce_inputs(inputs: Inputs) -> None:
    """Log the files that a run ignores or cannot find."""
    if inputs.num_other_files:
        _LOG.info(f"ignored: {plural(inputs.num_other_files, 'file')} without a video suffix")
    if inputs.missing:
        names = ", ".join(inputs.missing[:3])
        more = f" and {len(inputs.missing) - 3:,} more" if len(inputs.missing) > 3 else ""
        _LOG.warning(f"{plural(len(inputs.missing), 'listed file')} cannot be found and will fail: {names}{more}")
    if inputs.unlisted:
        folders = ", ".join(inputs.unlisted)
        _LOG.warning(f"these folders cannot be listed, their videos are ignored: {folders}")


def _announce_random(roles: Sequence[str]) -> None:
    """Log the checkpoints that random weights replace."""
    if roles:
        _LOG.warning(
            f"RANDOM WEIGHTS in {', '.join(roles)}. Features of these streams are meaningless; the store records it."
        )
