"""Values of the pages of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from ..models.video_scores import VideoScore
from . import charts
from .pages import clock, page_name, video_link
from .score_data import ModelScores


def scores_values(model: ModelScores) -> dict[str, Any]:
    """Return the values of the template, without the list of videos."""
    scores = list(model.scores.values())
    return {
        "model": model.card.model,
        "target": model.card.target,
        "score_range": model.card.score_range,
        "num_videos": len(scores),
        "notes": model.notes,
        "correlations": _correlations(model),
        "chart": _score_chart(model),
        "agreement": model.agreement,
        "num_without": model.num_without_outstanding,
        "stream_effects": _stream_effects(scores),
        "decisions": [
            {"title": f"Stage {stage}", "svg": _decision_chart(stage, shares.tolist())}
            for stage, shares in model.decision_frequencies().items()
        ],
        "has_attention": any(segment.attention is not None for each in scores for segment in each.segments),
    }


def _correlations(model: ModelScores) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for trained_on, title in ((False, "not in the training set"), (True, "in the training set")):
        correlation = model.correlation(trained_on=trained_on)
        if correlation is not None:
            spearman, pearson, count = correlation
            found.append({"title": title, "spearman": spearman, "pearson": pearson, "count": count})
    return found


def _stream_effects(scores: Sequence[VideoScore]) -> list[dict[str, Any]]:
    """Return statistics over the videos of the points that scores lose without each stream."""
    effects: dict[str, list[float]] = {}
    for each in scores:
        for stream, effect in each.stream_effects.items():
            effects.setdefault(stream, []).append(effect)
    return [
        {
            "stream": stream,
            "mean": float(np.mean(values)),
            "absolute": float(np.mean(np.abs(values))),
            "low": min(values),
            "high": max(values),
        }
        for stream, values in effects.items()
    ]


def _score_chart(model: ModelScores) -> Markup:
    judged = [each for each in model.ranked() if each.video_id in model.judged]
    if not judged:
        values = [each.score for each in model.scores.values()]
        return charts.histogram(values, "Predicted scores", model.card.target)
    points = [
        charts.Point(
            model.judged[each.video_id],
            each.score,
            f"{each.video_id}: predicted {each.score:.2f}, judged {model.judged[each.video_id]:.2f}",
            f"videos/{page_name(each.video_id)}.html",
            {"split": "hollow" if each.trained_on else "filled"},
            *(each.interval or (None, None)),
        )
        for each in judged
    ]
    spoken = f"Predicted against judged scores of {len(points)} videos"
    return charts.scatter(points, "judged", "predicted", spoken, diagonal=True)


def _decision_chart(stage: int, shares: Sequence[float]) -> Markup:
    named = [(str(index + 1), share) for index, share in enumerate(shares)]
    spoken = f"Share of the steps of stage {stage} by the number of enabled FusionNets: " + ", ".join(
        f"{name}: {share:.0%}" for name, share in named
    )
    return charts.bars(named, "enabled FusionNets", "share of steps", spoken, line=1 / max(1, len(named)))


def score_row(score: VideoScore, judged: float | None) -> dict[str, Any]:
    """Return the values of a row of the list."""
    first = next(iter(score.foremost(1)), None)
    remarks = ["in the training set"] if score.trained_on else []
    remarks += [f"no {stream}" for stream in score.without]
    if score.segments and not score.outstanding:
        remarks.append("no segment stands out")
    shown = attention = ""
    if first is not None:
        shown = f"{clock(first.start_s)}–{clock(first.end_s)} {', '.join(first.streams)}"
        if first.attention is not None:
            attention = f"{first.attention:.1%} ({score.uniform_share(first):.1%})"
    return {
        **video_link(score.video_id),
        "score": score.score,
        "judged": judged,
        "interval": f"{score.interval[0]:.2f} … {score.interval[1]:.2f}" if score.interval else "–",
        "segment": shown or "–",
        "effect": first.effect if first else None,
        "attention": attention or "–",
        "remarks": remarks,
    }
