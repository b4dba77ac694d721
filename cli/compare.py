"""``arabesque compare``: compare two sets of features and explain the differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .arguments import check_output_folder
from .console import JSON, print_json
from .import_features import FORMAT_HELP, NAME_HELP, TRUST_HELP, show_files, stream_labels
from .report import OPEN, show_page

if TYPE_CHECKING:
    from ..pipeline.interop.comparing import Comparison, Verdict
    from ..pipeline.interop.feature_comparison import FeatureComparison
    from ..pipeline.interop.stored_settings import SettingDifference

MAX_LINES = 10


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Feature store, or folder or file of features.")],
    b: Annotated[
        str, typer.Argument(metavar="B", help="Feature store, or folder or file of features, e.g. published ones.")
    ],
    stream: Annotated[
        str | None, typer.Option(help="Compare only this stream. Names the stream if the files do not.")
    ] = None,
    name: Annotated[list[str] | None, typer.Option(help=NAME_HELP)] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest relative error (difference ÷ largest value) that counts as the same.")
    ] = 1e-4,
    published: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="NAME",
            help="Name of the released features in B, e.g. actionformer-i3d, or a recipe. Prints settings of A that "
            "differ from the documented ones.",
        ),
    ] = None,
    common: Annotated[bool, typer.Option("--common", help="Ignore videos that only one side has.")] = False,
    format_a: Annotated[str | None, typer.Option(help=f"Format of A: {FORMAT_HELP}")] = None,
    format_b: Annotated[str | None, typer.Option(help="Format of B. Default: detected.")] = None,
    trust: Annotated[bool, typer.Option("--trust", help=TRUST_HELP)] = False,
    all_pairs: Annotated[
        bool, typer.Option("--all", help=f"Show every video. Default: the first {MAX_LINES} that differ.")
    ] = False,
    as_json: JSON = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write HTML pages with the segments of every video to DIR.")
    ] = None,
    open_it: OPEN = False,
) -> None:
    """Compare two sets of features, per video and stream, and explain the differences.

    The last line is SAME or DIFFERENT. Each video is diagnosed alone. The videos of a stream that differ are also
    diagnosed together, because some causes are only significant over several videos.

    Exit status: 0 the same, 3 different (this includes videos on one side only), 1 a file is damaged or not trusted,
    2 wrong usage.
    """
    if report is not None:
        check_output_folder(report, "--report")
    elif open_it:
        raise typer.BadParameter("needs --report DIR", param_hint="--open")
    from ..pipeline.interop.feature_comparison import compare_features

    with show_files("comparing") as on_pair:
        result = compare_features(
            a,
            b,
            stream=stream,
            names=stream_labels(name),
            tolerance=tolerance,
            common=common,
            format_a=format_a,
            format_b=format_b,
            trust=trust,
            published=published,
            on_pair=on_pair,
        )
    if as_json:
        print_json(_report(result))
    else:
        _print(result, None if all_pairs else MAX_LINES)
        print("SAME" if result.same else "DIFFERENT")
    if report is not None:
        from ..reports.comparison import write_comparison

        show_page(write_comparison(result, a, b, report), open_it=open_it, quietly=as_json)
    raise typer.Exit(0 if result.same else 3)


def _report(result: FeatureComparison) -> dict[str, Any]:
    return {
        "same": result.same,
        "tolerance": result.tolerance,
        "as": result.published or None,
        "streams": [
            _stream(one)
            | {
                "settings": _settings(result.settings.get(one.stream)),
                "not_documented": list(result.unknown.get(one.stream, ())),
            }
            for one in result.streams
        ],
        "only_in_a": [list(name) for name in result.only_a],
        "only_in_b": [list(name) for name in result.only_b],
        "pairs": [_pair(one) for one in result.pairs],
    }


def _stream(one: Verdict) -> dict[str, Any]:
    return {
        "stream": one.stream,
        "videos": one.num_videos,
        "different": one.num_different,
        "largest_relative_error": one.largest_error,
        "diagnosis": one.explanation.cause if one.explanation else None,
        "explanation": one.explanation.sentence if one.explanation else None,
        "videos_taken_together": one.num_together,
        "diagnoses_of_videos": dict(one.diagnoses),
    }


def _settings(found: Sequence[SettingDifference] | None) -> dict[str, list[str]] | None:
    """Setting → values of A and B; None if the settings of a side are unknown."""
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
        "offsets": list(one.offsets),
        "max_error": one.max_error,
        "relative_error": one.relative_error,
        "diagnosis": one.explanation.cause if one.explanation else None,
        "explanation": one.explanation.sentence if one.explanation else None,
    }


def _print(result: FeatureComparison, most: int | None) -> None:
    different = [one for one in result.pairs if not one.same]
    shown = result.pairs if most is None else different[:most]
    if shown:
        _print_table(shown, result.tolerance)
    if most is not None and len(different) > most:
        print(f"… the first {most} of {len(different)} that differ; --all shows every video, --json all values")
    for one in result.streams:
        _print_stream(one, different, result.tolerance)
        for difference in result.settings.get(one.stream, ()):
            print(f"  setting {difference}")
        if result.published:
            _print_documented(one, result)
    for side, names in (("A", result.only_a), ("B", result.only_b)):
        _print_unmatched(side, names, most)


def _print_documented(stream: Verdict, result: FeatureComparison) -> None:
    """Print the settings that differ, and those that the documentation of released features does not state."""
    if stream.stream not in result.settings:
        print(f"  the settings of A are not known; {result.published} is compared by its numbers only")
    elif not result.settings[stream.stream]:
        print(f"  no documented setting of {result.published} differs")
    if stream.explanation is not None:
        for text in result.unknown.get(stream.stream, ()):
            print(f"  not documented: {text}")


def _print_stream(stream: Verdict, different: Sequence[Comparison], tolerance: float) -> None:
    name, error = stream.stream or "features", stream.largest_error
    if stream.explanation is None:
        print(f"{name}: {stream.num_videos} same, relative error at most {error:.1e} (tolerance {tolerance:g})")
        return
    diagnoses = ", ".join(f"{count} {diagnosis}" for diagnosis, count in stream.diagnoses.items())
    print(f"{name}: {stream.num_different} of {stream.num_videos} differ: {diagnoses}")
    if stream.num_together > 1:
        print(f"  together ({stream.num_together} of them): {stream.explanation.cause}. {stream.explanation.sentence}")
    for diagnosis in stream.diagnoses:
        if stream.num_together > 1 and diagnosis in (stream.explanation.cause, "unexplained"):
            continue
        example = next(one for one in different if (one.stream, _diagnosis(one)) == (stream.stream, diagnosis))
        if example.explanation is not None:
            print(f"  {diagnosis}, as in {example.video_id!r}: {example.explanation.sentence}")


def _print_table(shown: Sequence[Comparison], tolerance: float) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"A and B; same up to a relative error of {tolerance:g}", title_justify="left")
    table.add_column("video", overflow="fold")
    table.add_column("stream", overflow="fold")
    for title in ("A", "B", "min cos", "mean cos", "error"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("diagnosis", no_wrap=True)
    for one in shown:
        table.add_row(*_cells(one))
    Console().print(table)


def _cells(one: Comparison) -> tuple[str, ...]:
    """Format one row of the table: lengths only, or whole shapes if more than the length differs."""
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
    return one.explanation.cause if one.explanation else "same"


def _print_unmatched(side: str, names: Sequence[tuple[str, str]], most: int | None) -> None:
    if names:
        listed = ", ".join(f"{video_id} {stream}".rstrip() for video_id, stream in names[:most])
        more = f" and {len(names) - most} more" if most is not None and len(names) > most else ""
        print(f"only in {side}, {len(names)}: {listed}{more}")
