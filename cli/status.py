"""``arabesque status``: count the outcomes in a store and the inputs that remain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..manifests.plurals import plural
from .console import JSON, print_json
from .inputs import InputOptions, with_inputs
from .label_check import DATASET, LABELS, TARGET, check_label_options, check_labels

if TYPE_CHECKING:
    from ..pipeline.records import Outcome
    from ..pipeline.status import InputStatus, StoreStatus, StreamStatus

MAX_REASONS = 12
KINDS = ("done", "empty", "partial", "failed")


VIDEOS = Annotated[
    list[str] | None,
    typer.Argument(help="Folders or videos to compare with the store. Default: those of the latest run."),
]


@with_inputs(videos=VIDEOS)
def status(
    store: Annotated[str, typer.Argument(help="Feature store.")],
    inputs: InputOptions,
    labels: LABELS = None,
    dataset: DATASET = None,
    target: TARGET = None,
    as_json: JSON = False,
    all_reasons: Annotated[
        bool,
        typer.Option("--all", help=f"List every failed, partial or empty video. Default: the first {MAX_REASONS}."),
    ] = False,
) -> None:
    """Count the outcomes in the store (done, empty, partial, failed) and what remains, and list the reasons.

    Exit status: 0 nothing in the store failed, 3 some videos failed or are partial.
    """
    from ..pipeline.status import read_status

    check_label_options(labels, dataset, target)
    given = inputs.find() if inputs.are_given else None
    found = read_status(store, given)
    checked = None
    if labels is not None:
        from ..pipeline.store.reader import FeatureStore

        ids = {*FeatureStore(store, partial=True).video_ids}
        ids |= {*(file.video_id for file in given.videos), *given.clashes} if given is not None else set()
        checked = check_labels(labels, ids, dataset, target)
    if as_json:
        print_json({**status_facts(found), "labels": None if checked is None else asdict(checked)})
        raise typer.Exit(3 if found.troubles else 0)
    exit_status = print_status(found, max_reasons=None if all_reasons else MAX_REASONS)
    for line in checked.lines() if checked is not None else ():
        print(line)
    raise typer.Exit(exit_status)


def print_status(found: StoreStatus, max_reasons: int | None = MAX_REASONS, *, of_inputs: bool = False) -> int:
    """Print the tables and the reasons of failures; return the exit status.

    Args:
        found: What the store contains.
        max_reasons: Maximum number of reasons that are printed; None for all.
        of_inputs: Reasons and exit status refer to the inputs, not to the whole store.

    Returns:
        3 if some videos failed or are partial, else 0.
    """
    _print_table(f"recipe {found.recipe} · {plural(found.num_videos, 'video')} in the store", found.streams)
    about = found.inputs
    if about is not None:
        _print_inputs(about, found)
    subject = about if of_inputs and about is not None else found
    _print_reasons(subject.troubles, max_reasons)
    _print_reasons(subject.empties, max_reasons)
    _print_unseen(subject.unseen, max_reasons)
    return 3 if subject.troubles else 0


def status_facts(found: StoreStatus) -> dict[str, Any]:
    """Return a status in the form of docs/json.md."""
    about = found.inputs
    return {
        "recipe": found.recipe,
        "num_videos": found.num_videos,
        "streams": _stream_facts(found.streams),
        "outcomes": _outcome_facts(found),
        "inputs": None
        if about is None
        else {
            "folder": about.folder,
            "num_videos": about.num_videos,
            "streams": _stream_facts(about.streams),
            "remaining": dict(about.left),
            "ids_of_other_files": [file.video_id for file in about.namesakes],
            "outcomes": _outcome_facts(about),
        },
    }


def _stream_facts(streams: Mapping[str, StreamStatus]) -> dict[str, dict[str, int]]:
    return {
        name: {**{kind: stream.counts.get(kind, 0) for kind in KINDS}, "segments": stream.segments}
        for name, stream in streams.items()
    }


def _outcome_facts(found: StoreStatus | InputStatus) -> list[dict[str, Any]]:
    """Return the outcomes that are not done, and those in which the athlete was found in too few frames."""
    return [
        {"video_id": one.video_id, "stream": one.stream, "kind": one.kind, "reason": one.reason}
        for one in (*found.troubles, *found.empties)
    ] + [
        {
            "video_id": one.video_id,
            "stream": one.stream,
            "kind": one.kind,
            "reason": f"an athlete was found in {one.frames_with_person} of {one.frames_seen} frames",
        }
        for one in found.unseen
    ]


def _print_inputs(about: InputStatus, found: StoreStatus) -> None:
    """Print what remains of the inputs, and their counts if the store also contains other videos."""
    title = f"{plural(about.num_videos, 'video')} of {about.folder or 'the inputs'}"
    if about.streams != found.streams:
        _print_table(title, about.streams)
    remaining = ", ".join(f"{name} {number}" for name, number in about.left.items() if number)
    print(f"{title}: {f'remaining: {remaining}' if remaining else 'nothing remains to be done'}")
    if retried := sum(one.transient for one in about.troubles):
        print(f"failed for a reason that may pass; the same `arabesque extract` tries again: {retried}")
    if about.namesakes:
        names = ", ".join(repr(file.video_id) for file in about.namesakes[:MAX_REASONS])
        print(
            f"{len(about.namesakes)} of these have an id that the store uses for another file: {names}; "
            "`arabesque extract --id-prefix NAME` stores them under other ids, --replace replaces the stored rows"
        )


def _print_table(title: str, streams: Mapping[str, StreamStatus]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("stream")
    for column in (*KINDS, "segments"):
        table.add_column(column, justify="right")
    for name, stream in streams.items():
        table.add_row(name, *(str(stream.counts.get(kind, 0)) for kind in KINDS), str(stream.segments))
    Console().print(table)


def _print_unseen(outcomes: tuple[Outcome, ...], max_reasons: int | None) -> None:
    """Print the videos in which the athlete was found in too few frames."""
    for outcome in outcomes[:max_reasons]:
        found = f"{outcome.frames_with_person} of {outcome.frames_seen} frames ({outcome.person_share:.0%})"
        print(f"warning: {outcome.video_id!r} [{outcome.stream}]: an athlete was found in {found}")
    if not outcomes:
        return
    more = "" if max_reasons is None else f"; {len(outcomes)} such videos in all" * (len(outcomes) > max_reasons)
    print(f"`arabesque look VIDEO --recipe RECIPE` shows what the detector finds{more}")


def _print_reasons(outcomes: tuple[Outcome, ...], max_reasons: int | None) -> None:
    """Print one line per video and reason, with all streams that have this outcome."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for outcome in outcomes:
        lines.setdefault((outcome.video_id, outcome.kind, outcome.reason), []).append(outcome.stream)
    for (video_id, kind, reason), streams in list(lines.items())[:max_reasons]:
        print(f"{kind}: {video_id!r} [{', '.join(streams)}]: {reason}")
    if max_reasons is not None and len(lines) > max_reasons:
        print(f"… and {len(lines) - max_reasons} more; `arabesque status STORE --all` lists them")
