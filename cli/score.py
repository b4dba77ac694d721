"""``arabesque score``: score raw videos and list the segments without which the scores change most."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import REPLACE, check_device, check_store_or_new, model_folder
from .console import JSON, print_json
from .inputs import InputOptions, with_inputs

if TYPE_CHECKING:
    from ..models.video_scores import ScoreReport, Segment, VideoScore


_LOG = logging.getLogger(__name__)


@with_inputs()
def score(
    model: Annotated[Path, typer.Option(help="Folder of a model that `arabesque train` wrote.")],
    inputs: InputOptions,
    store: Annotated[
        str | None, typer.Option(help="Feature store to read and extend. Default: features/ in the model's folder.")
    ] = None,
    segments: Annotated[int, typer.Option(min=1, help="Number of segments shown per video.")] = 3,
    partial: Annotated[
        bool, typer.Option("--partial", help="Also score videos of which only a part can be decoded.")
    ] = False,
    as_json: JSON = False,
    replace_sources: REPLACE = False,
    device: Annotated[str, typer.Option(help="Device for networks: auto, cpu, cuda or cuda:N.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for networks. Default: all cores.")] = None,
) -> None:
    """Score raw videos with a trained model. Missing features are extracted with the recipe of its training.

    Features of another recipe are an error.

    Exit status: 0 all scored, 3 some videos have no score, 1 the run itself failed, 2 wrong usage.
    """
    check_device(device)
    model = model_folder(model)
    found = inputs.find()
    if store is not None:
        check_store_or_new(store)
    from .progress import show_run
    from .scoring import score_raw_videos

    report = score_raw_videos(
        found,
        inputs.videos or (),
        model,
        store=store,
        partial=partial,
        id_prefix=inputs.id_prefix,
        replace_sources=replace_sources,
        device=device,
        threads=threads,
        execute=show_run,
        on_warning=_LOG.warning,
    )
    if as_json:
        print_json(_as_json(report))
    else:
        _print_scores(report, segments)
    for name, reason in report.not_scored.items():
        _LOG.warning(f"not scored: {name!r}: {reason}")
    raise typer.Exit(3 if report.not_scored else 0)


def _as_json(report: ScoreReport) -> dict[str, object]:
    from ..models.video_scores import MEASURES

    return {
        "model": report.model,
        "target": report.target,
        "measures": dict(MEASURES),
        "videos": [
            {
                "video": report.paths[each.video_id],
                **asdict(each),
                "foremost": [each.segments.index(segment) for segment in each.foremost(len(each.segments))],
                "outstanding": [index for index, one in enumerate(each.segments) if one in each.outstanding],
                "attention_agreement": each.attention_agreement,
            }
            for each in report.videos
        ],
        "not_scored": dict(report.not_scored),
    }


def _print_scores(report: ScoreReport, most: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from ..models.video_scores import MEASURES

    if not report.videos:
        return
    has_attention = any(segment.attention is not None for each in report.videos for segment in each.segments)
    titles = ["segments that matter most", MEASURES["effect"]]
    table = Table(
        "video", report.target, *titles, *([f"{MEASURES['attention']} (if uniform)"] if has_attention else [])
    )
    for each in report.videos:
        shown = each.foremost(most)
        remarks = [f"90 %: {each.interval[0]:.2f} … {each.interval[1]:.2f}"] if each.interval else []
        remarks += [f"without {stream}: {-effect:+.2f}" for stream, effect in each.stream_effects.items()]
        remarks += [f"no {stream}" for stream in each.without]
        if each.trained_on:
            remarks.append("in the training set")
        remark_lines = "".join(f"\n({remark})" for remark in remarks)
        spans = [_span(segment) for segment in shown]
        if not each.outstanding:
            spans.append("(no segment stands out)")
        columns = ["\n".join("–" if one.effect is None else f"{one.effect:+.2f}" for one in shown)]
        if has_attention:
            columns.append("\n".join(_attention(each, segment) for segment in shown))
        table.add_row(each.video_id, f"{each.score:.2f}{remark_lines}", "\n".join(spans), *columns)
    console = Console()
    console.print(table)
    agreements = [each.attention_agreement for each in report.videos]
    known = [value for value in agreements if value is not None]
    if known:
        console.print(
            f"attention and effect of the segments: rank correlation {sum(known) / len(known):+.2f} (mean of "
            f"{len(known)} video{'s' * (len(known) != 1)})",
            highlight=False,
        )


def _span(segment: Segment) -> str:
    """Format the interval and the streams of a segment: ``01:05–01:08 vst``."""
    return f"{_clock(segment.start_s)}–{_clock(segment.end_s)} {', '.join(segment.streams)}"


def _clock(time_s: float) -> str:
    minutes, seconds = divmod(round(time_s), 60)
    return f"{minutes:02d}:{seconds:02d}"


def _attention(score: VideoScore, segment: Segment) -> str:
    return "–" if segment.attention is None else f"{segment.attention:.1%} ({score.uniform_share(segment):.1%})"
