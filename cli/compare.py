"""``arabesque compare``: are these the same features, and if not, why?"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .import_features import FORMAT_HELP, NAME_HELP, TRUST_HELP, show_files, stream_labels

if TYPE_CHECKING:
    from ..pipeline.exchange.comparing import Comparison, Pairing, Verdict
    from ..pipeline.exchange.stored_settings import SettingDifference

    Settings = Mapping[str, Sequence[SettingDifference]]
    """Stream → what its stores' manifests say otherwise, where both tell."""

MAX_LINES = 10


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A feature store, or a folder or file of features.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same; usually what somebody published.")],
    stream: Annotated[str | None, typer.Option(help="Compare this stream; names it where files do not.")] = None,
    name: Annotated[list[str] | None, typer.Option(help=NAME_HELP)] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest relative error of the same: difference over the largest number.")
    ] = 1e-4,
    common: Annotated[bool, typer.Option("--common", help="Videos that only one side has make no difference.")] = False,
    format_a: Annotated[str | None, typer.Option(help=FORMAT_HELP)] = None,
    format_b: Annotated[str | None, typer.Option(help="The same of B.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help=TRUST_HELP)] = False,
    all_pairs: Annotated[bool, typer.Option("--all", help="Show every video, not the first that differ.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Everything, cosines of all segments included, as JSON.")
    ] = False,
) -> None:
    """Compare two sets of features, video by video and stream by stream, and say why they differ.

    The last line is SAME or DIFFERENT. Each video is diagnosed by itself; those of a stream that differ are diagnosed
    together as well, where a cause shows that one video cannot tell from chance.

    Exit status: 0 the same, 3 different (videos on one side only included), 1 a file is damaged or not trusted, 2 wrong
    usage.
    """
    from ..pipeline.exchange.comparing import compared, paired, verdicts
    from ..pipeline.exchange.feature_files import of_stream, opened
    from ..pipeline.exchange.stored_settings import setting_differences

    labels = stream_labels(name)
    with (
        opened(a, format_a, trust=trust, names=labels) as side_a,
        opened(b, format_b, trust=trust, names=labels) as side_b,
        show_files("comparing") as on_pair,
    ):
        pairing = paired(of_stream(side_a, stream), of_stream(side_b, stream))
        found: list[Comparison] = []
        for one in compared(pairing.pairs, tolerance):
            found.append(one)
            on_pair(len(found), len(pairing.pairs))
        streams = verdicts(pairing.pairs, found, tolerance)
    settings = {
        one.stream: setting_differences(side_a.settings[one.stream], side_b.settings[one.stream])
        for one in streams
        if one.stream in side_a.settings and one.stream in side_b.settings
    }
    same = all(one.same for one in found) and (common or not (pairing.only_a or pairing.only_b))
    if as_json:
        report = _report(pairing, found, streams, settings, tolerance, same=same)
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _print(pairing, found, streams, settings, tolerance, None if all_pairs else MAX_LINES)
        print("SAME" if same else "DIFFERENT")
    raise typer.Exit(0 if same else 3)


def _report(
    pairing: Pairing,
    found: Sequence[Comparison],
    streams: Sequence[Verdict],
    settings: Settings,
    tolerance: float,
    *,
    same: bool,
) -> dict[str, Any]:
    return {
        "same": same,
        "tolerance": tolerance,
        "streams": [_stream(one) | {"settings": _settings(settings.get(one.stream))} for one in streams],
        "only_in_a": [list(name) for name in pairing.only_a],
        "only_in_b": [list(name) for name in pairing.only_b],
        "pairs": [_pair(one) for one in found],
    }


def _stream(one: Verdict) -> dict[str, Any]:
    return {
        "stream": one.stream,
        "videos": one.num_videos,
        "different": one.num_different,
        "largest_relative_error": one.largest_error,
        "diagnosis": one.finding.name if one.finding else None,
        "explanation": one.finding.sentence if one.finding else None,
        "videos_taken_together": one.num_together,
        "diagnoses_of_videos": dict(one.diagnoses),
    }


def _settings(found: Sequence[SettingDifference] | None) -> dict[str, list[str]] | None:
    """Setting → A's and B's; None where a side does not tell its settings."""
    return None if found is None else {each.name: [each.a, each.b] for each in found}


def _pair(one: Comparison) -> dict[str, Any]:
    return {
        "video_id": one.video_id,
        "stream": one.stream,
        "same": one.same,
        "shape_a": list(one.shape_a),
        "shape_b": list(one.shape_b),
        "cosine_min": min(one.cosines, default=None),
        "cosine_mean": math.fsum(one.cosines) / len(one.cosines) if one.cosines else None,
        "cosines": list(one.cosines),
        "max_error": one.max_error,
        "relative_error": one.relative_error,
        "diagnosis": one.finding.name if one.finding else None,
        "explanation": one.finding.sentence if one.finding else None,
    }


def _print(
    pairing: Pairing,
    found: Sequence[Comparison],
    streams: Sequence[Verdict],
    settings: Settings,
    tolerance: float,
    most: int | None,
) -> None:
    different = [one for one in found if not one.same]
    shown = found if most is None else different[:most]
    if shown:
        _print_table(shown, tolerance)
    if most is not None and len(different) > most:
        print(f"… the first {most} of {len(different)} that differ; --all shows every video, --json everything")
    for one in streams:
        _print_stream(one, different, tolerance)
        for difference in settings.get(one.stream, ()):
            print(f"  setting {difference}")
    for side, names in (("A", pairing.only_a), ("B", pairing.only_b)):
        _print_lone(side, names, most)


def _print_stream(stream: Verdict, different: Sequence[Comparison], tolerance: float) -> None:
    name, error = stream.stream or "features", stream.largest_error
    if stream.finding is None:
        print(f"{name}: {stream.num_videos} same, to {error:.1e} of the largest number (allowed: {tolerance:g})")
        return
    told = ", ".join(f"{count} {diagnosis}" for diagnosis, count in stream.diagnoses.items())
    print(f"{name}: {stream.num_different} of {stream.num_videos} differ: {told}")
    if stream.num_together > 1:
        print(f"  together ({stream.num_together} of them): {stream.finding.name}. {stream.finding.sentence}")
    for diagnosis in stream.diagnoses:
        if stream.num_together > 1 and diagnosis in (stream.finding.name, "unexplained"):
            continue
        example = next(one for one in different if (one.stream, _diagnosis(one)) == (stream.stream, diagnosis))
        if example.finding is not None:
            print(f"  {diagnosis}, as in {example.video_id!r}: {example.finding.sentence}")


def _print_table(shown: Sequence[Comparison], tolerance: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"A against B, the same up to a relative error of {tolerance:g}", title_justify="left")
    table.add_column("video", overflow="fold")
    table.add_column("stream", overflow="fold")
    for title in ("A", "B", "min cos", "mean cos", "error"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("diagnosis", no_wrap=True)
    for one in shown:
        table.add_row(*_cells(one))
    Console().print(table)


def _cells(one: Comparison) -> tuple[str, ...]:
    """Lengths, or whole shapes where more than the length differs."""
    shapes = [one.shape_a, one.shape_b] if one.shape_a[1:] != one.shape_b[1:] else [one.shape_a[:1], one.shape_b[:1]]
    pair = _pair(one)
    numbers = (pair["cosine_min"], pair["cosine_mean"])
    cosines = ("" if number is None else f"{number:.4f}" for number in numbers)
    error = "" if one.relative_error is None else f"{one.relative_error:.1e}"
    return (
        one.video_id,
        one.stream,
        *("×".join(map(str, shape)) for shape in shapes),
        *cosines,
        error,
        _diagnosis(one),
    )


def _diagnosis(one: Comparison) -> str:
    return one.finding.name if one.finding else "same"


def _print_lone(side: str, names: Sequence[tuple[str, str]], most: int | None) -> None:
    if names:
        listed = ", ".join(f"{video_id} {stream}".rstrip() for video_id, stream in names[:most])
        more = f" and {len(names) - most} more" if most is not None and len(names) > most else ""
        print(f"only in {side}, {len(names)}: {listed}{more}")
