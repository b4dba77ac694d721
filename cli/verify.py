"""``arabesque verify`` and ``arabesque repair``: check a store for damage, and repair it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..manifests.plurals import plural
from ..manifests.urls import public_url
from .arguments import ID_PREFIX, check_device, check_store_path
from .console import JSON, print_json
from .import_features import show_files
from .inputs import CLIPS

if TYPE_CHECKING:
    from ..pipeline.store.maintenance.verify import StoreCheck
    from ..pipeline.verification import Recomputed

_LOG = logging.getLogger(__name__)


MAX_LINES = 20


def verify(
    store: Annotated[str, typer.Argument(help="Feature store.")],
    videos: Annotated[
        str | None, typer.Option(help="Folder of the videos; recompute --sample of them and compare.")
    ] = None,
    clips: CLIPS = None,
    id_prefix: ID_PREFIX = "",
    sample: Annotated[int, typer.Option(min=1, help="Number of videos to recompute.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed that selects these videos.")] = 0,
    device: Annotated[str, typer.Option(help="Device for networks: auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: JSON = False,
) -> None:
    """Read every byte and row of a store and report damage.

    Exit status: 0 no problem, 3 something is damaged, missing or different, 1 the store cannot be read, 2 wrong usage.
    """
    from ..pipeline.planning.selection import InputSelection, find_inputs
    from ..pipeline.store.maintenance.verify import check_store

    check_device(device)
    check_store_path(store)
    places, has_inputs = () if videos is None else (videos,), videos is not None or clips is not None
    if has_inputs:
        find_inputs(InputSelection(places, id_prefix=id_prefix, clips=clips))
    with show_files("checking") as on_file:
        check = check_store(store, on_file)
    settings, recomputed = _settings(check), []
    if has_inputs and not check.damaged_files:
        recomputed = _recompute(store, videos, clips, id_prefix, sample, seed, device)
    problems = [*_lines(check), *(f"{name}: {problem}" for name, problem in settings.items())]
    problems += [f"{one.video_id!r} [{one.stream}]: {one.problem}" for one in recomputed if one.problem]
    if as_json:
        found = {"sound": not problems, "settings": settings, "recomputed": [asdict(one) for one in recomputed]}
        print_json(found | _facts(check))
    else:
        _print_check(check, recomputed, problems)
    if has_inputs and check.damaged_files:
        _LOG.warning("no video was recomputed: repair the store first")
    raise typer.Exit(3 if problems else 0)


def repair(
    store: Annotated[str, typer.Argument(help="Feature store. Runs may write to it at the same time.")],
    as_json: JSON = False,
) -> None:
    """Move damaged files of a store to .damaged, keep every intact row, and list the rows to recompute.

    Exit status: 0 the store is complete, 3 rows are missing (run `arabesque extract` again), 1 it cannot be repaired.
    """
    from ..pipeline.store.maintenance.repair import repair_store

    check_store_path(store)
    with show_files("checking") as on_file:
        done = repair_store(store, on_file)
    if as_json:
        print_json(asdict(done))
        raise typer.Exit(3 if done.missing else 0)
    for name in done.set_aside:
        print(f"moved: {name} is now in {public_url(store).rstrip('/')}/.damaged")
    if done.set_aside:
        print(f"{done.rows_kept} intact rows of damaged files were kept")
    if done.manifest_restored:
        print("arabesque.toml was restored from its copy")
    if done.leftovers:
        print(f"removed: {plural(done.leftovers, 'unfinished file')} of killed runs")
    _print_problems([f"{video_id!r} [{stream}]: has to be recomputed" for video_id, stream in done.missing])
    if done.missing:
        print(f"`arabesque extract` with --out {public_url(store)} recomputes {plural(len(done.missing), 'row')}")
    elif not done.set_aside:
        print("nothing is damaged")
    raise typer.Exit(3 if done.missing else 0)


def _settings(check: StoreCheck) -> dict[str, str]:
    from ..pipeline.store.manifest import MANIFEST
    from ..pipeline.verification import settings_problems

    return {} if MANIFEST in check.damaged_files else settings_problems(check.root)


def _recompute(
    store: str, videos: str | None, clips: str | None, id_prefix: str, sample: int, seed: int, device: str
) -> list[Recomputed]:
    from ..pipeline.store.manifest import read_manifest
    from ..pipeline.verification import recompute
    from .extract import run_options

    options = run_options(device, decoder=read_manifest(store)["made_with"].get("decoder", "pyav"))
    with show_files("recomputing") as on_video:
        return recompute(
            store, videos, sample, clips=clips, id_prefix=id_prefix, seed=seed, options=options, on_video=on_video
        )


def _facts(check: StoreCheck) -> dict[str, Any]:
    counts = {name: value for name, value in vars(check).items() if name.startswith("num_")}
    return counts | {"findings": [asdict(one) for one in check.findings]}


def _print_check(check: StoreCheck, recomputed: Sequence[Recomputed], problems: Sequence[str]) -> None:
    rows, outcomes = plural(check.num_rows, "row"), plural(check.num_outcomes, "outcome")
    print(f"{plural(check.num_files, 'file')}, {check.num_bytes / 1e6:,.1f} MB, {rows}, {outcomes}")
    for one in recomputed:
        if not one.problem:
            error = f"relative error {one.relative_error:.1e} (tolerance {one.allowed:.0e})"
            print(f"recomputed: {one.video_id!r} [{one.stream}]: {error}")
    _print_problems(problems)
    if check.damaged_files:
        print(
            f"`arabesque repair {public_url(check.root)}` moves damaged files to .damaged and keeps their intact rows"
        )
    elif check.missing:
        print("`arabesque extract` with this --out computes the missing rows")
    elif not problems:
        print("no damage found")


def _lines(check: StoreCheck) -> Iterator[str]:
    for one in check.findings:
        about = f"{one.video_id!r} [{one.stream}]" if one.video_id else ""
        yield ": ".join(part for part in (one.file, about, one.problem) if part)


def _print_problems(lines: Sequence[str]) -> None:
    for line in lines[:MAX_LINES]:
        print(line)
    if len(lines) > MAX_LINES:
        print(f"… and {len(lines) - MAX_LINES} more; --json lists them all")
