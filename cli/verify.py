"""``arabesque verify`` and ``arabesque repair``: whether a store is what was written, and mending one that is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .import_features import show_files

if TYPE_CHECKING:
    from ..pipeline.store.verifying import StoreCheck
    from ..pipeline.verification import Recomputed

MAX_LINES = 20


def verify(
    store: Annotated[str, typer.Argument(help="A feature store.")],
    videos: Annotated[
        str | None, typer.Option(help="The folder of its videos: also compute --sample of them again and compare.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many videos to compute again.")] = 3,
    seed: Annotated[int, typer.Option(help="Chooses them.")] = 0,
    device: Annotated[str, typer.Option(help="To compute on: auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Read every byte and row of a store and say what is not as it was written.

    Exit status: 0 all is well, 3 something is damaged, missing or different, 1 it cannot be read, 2 wrong usage.
    """
    from ..pipeline.store.verifying import check_store

    with show_files("checking") as on_file:
        check = check_store(store, on_file)
    settings, again = _settings(check), []
    if videos is not None and not check.damaged_files:
        again = _recompute(store, videos, sample, seed, device)
    problems = [*_lines(check), *(f"{name}: {problem}" for name, problem in settings.items())]
    problems += [f"{one.video_id!r} [{one.stream}]: {one.problem}" for one in again if one.problem]
    if as_json:
        found = {"sound": not problems, "settings": settings, "recomputed": [asdict(one) for one in again]}
        typer.echo(json.dumps(found | _facts(check), indent=2, ensure_ascii=False))
    else:
        _print_check(check, again, problems)
    if videos is not None and check.damaged_files:
        print("no video was computed again: repair the store first", file=sys.stderr)
    raise typer.Exit(3 if problems else 0)


def repair(
    store: Annotated[str, typer.Argument(help="A feature store; runs may go on writing to it.")],
    as_json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Set aside what is damaged in a store, keep every row that is good, and say what the next run computes again.

    Exit status: 0 the store is whole, 3 rows are missing now: run `arabesque extract` again, 1 it cannot be mended.
    """
    from ..pipeline.store.repairing import repair_store

    with show_files("checking") as on_file:
        done = repair_store(store, on_file)
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2, ensure_ascii=False))
        raise typer.Exit(3 if done.missing else 0)
    for name in done.set_aside:
        print(f"set aside: {name} is in {store.rstrip('/')}/.damaged now")
    if done.set_aside:
        print(f"{done.rows_kept} rows of damaged files are good, and kept")
    if done.manifest_restored:
        print("arabesque.toml stands as it was, from its copy")
    if done.leftovers:
        print(f"{done.leftovers} unfinished files of killed runs are removed")
    _print_problems([f"{video_id!r} [{stream}]: to be computed again" for video_id, stream in done.missing])
    if done.missing:
        print(f"`arabesque extract` with --out {store} computes these {len(done.missing)} rows anew")
    elif not done.set_aside:
        print("nothing is damaged")
    raise typer.Exit(3 if done.missing else 0)


def _settings(check: StoreCheck) -> dict[str, str]:
    from ..pipeline.store.manifest import MANIFEST
    from ..pipeline.verification import settings_problems

    return {} if MANIFEST in check.damaged_files else settings_problems(check.root)


def _recompute(store: str, videos: str, sample: int, seed: int, device: str) -> list[Recomputed]:
    from ..pipeline.store.manifest import read_manifest
    from ..pipeline.verification import recompute
    from .extract import run_options

    options = run_options(device, decoder=read_manifest(store)["made_with"].get("decoder", "pyav"))
    with show_files("computing again") as on_video:
        return recompute(store, videos, sample, seed=seed, options=options, on_video=on_video)


def _facts(check: StoreCheck) -> dict[str, Any]:
    counts = {name: value for name, value in vars(check).items() if name.startswith("num_")}
    return counts | {"findings": [asdict(one) for one in check.findings]}


def _print_check(check: StoreCheck, again: Sequence[Recomputed], problems: Sequence[str]) -> None:
    size = f"{check.num_bytes / 1e6:,.1f} MB"
    print(f"{check.num_files} files, {size}, {check.num_rows} rows, {check.num_outcomes} outcomes")
    for one in again:
        if not one.problem:
            off = f"off by {one.relative_error:.1e} of {one.allowed:.0e}"
            print(f"computed again: {one.video_id!r} [{one.stream}]: {off}")
    _print_problems(problems)
    if check.damaged_files:
        print(f"`arabesque repair {check.root}` sets aside what is damaged and keeps what is good of it")
    elif check.missing:
        print("`arabesque extract` with this --out computes what is missing")
    elif not problems:
        print("all is as it was written")


def _lines(check: StoreCheck) -> Iterator[str]:
    for one in check.findings:
        about = f"{one.video_id!r} [{one.stream}]" if one.video_id else ""
        yield ": ".join(part for part in (one.file, about, one.problem) if part)


def _print_problems(lines: Sequence[str]) -> None:
    for line in lines[:MAX_LINES]:
        print(line)
    if len(lines) > MAX_LINES:
        print(f"… and {len(lines) - MAX_LINES} more; --json lists them all")
