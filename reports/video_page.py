"""The page of one video: the video, a time line with pictures, segments, effects and features, and its outcomes."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..extractors.protocol import PersonBoxes
from ..manifests.plurals import plural
from ..pipeline.records import VideoMetadata
from ..pipeline.store.stream_features import StreamFeatures
from . import charts
from .pages import ReportFolder, clock, page_name, size
from .score_data import ModelScores
from .store_data import StoreData, VideoSummary
from .time_line import feature_rows, percent, person_rows, picture_rows, score_rows, segment_rows
from .video_preview import VideoPreview

MAX_DEVIATIONS = 12
"""Maximum number of named features that are listed with their deviation"""
MAX_FOREMOST = 12
"""Maximum number of segments that are listed with their effect"""


@dataclass(frozen=True)
class PageContext:
    """Data that all video pages of a report share."""

    folder: ReportFolder
    data: StoreData
    navigation: Sequence[Mapping[str, Any]]
    made_at: str
    names: Mapping[str, tuple[str, ...]]
    """Stream → names of its features, for streams whose features have names"""
    model: ModelScores | None = None
    links: Mapping[str, str] = field(default_factory=dict[str, str])
    """Video → URL of its file relative to its page"""


def write_video_page(
    context: PageContext,
    video: VideoSummary,
    features: Mapping[str, StreamFeatures],
    preview: VideoPreview | None,
    neighbors: tuple[VideoSummary | None, VideoSummary | None],
    list_page: str,
    boxes: Mapping[str, PersonBoxes],
) -> None:
    """Write the page of a video and its pictures.

    Args:
        context: Data that all pages share.
        video: The video.
        features: Stream → its features.
        preview: Its pictures, if its file was read.
        neighbors: The videos before and after it.
        list_page: The page of the list with the video.
        boxes: Stream → detected people, for streams that crop people.
    """
    metadata = preview.metadata if preview is not None else None
    duration_s = max(video.duration_s, metadata.end_s if metadata else 0.0, 1e-3)
    name = page_name(video.video_id)
    score = context.model.scores.get(video.video_id) if context.model else None
    rows = [
        *picture_rows(context.folder, name, preview, boxes, duration_s),
        *person_rows(boxes, duration_s),
        *segment_rows(features, duration_s, score.outstanding if score else frozenset()),
        *score_rows(context.model, video.video_id, duration_s),
        *feature_rows(context.folder, context.data, context.names, name, features, duration_s),
    ]
    foremost = score.foremost(MAX_FOREMOST) if score else []
    problem = preview.problem if preview is not None else ""
    context.folder.write_page(
        f"videos/{name}.html",
        "video.html",
        navigation=context.navigation,
        made_at=context.made_at,
        list_page=list_page,
        video={"id": video.video_id},
        previous=_link(neighbors[0]),
        following=_link(neighbors[1]),
        notes=[problem] if problem else [],
        score=score,
        target=context.model.card.target if context.model else "",
        judged=context.model.judged.get(video.video_id) if context.model else None,
        agreement=score.attention_agreement if score else None,
        has_attention=any(segment.attention is not None for segment in foremost),
        foremost=[
            {
                "start_s": each.start_s,
                "end_s": each.end_s,
                "streams": ", ".join(each.streams),
                "effect": each.effect,
                "attention": each.attention,
                "uniform": score.uniform_share(each) if score else 0.0,
                "outstanding": score is not None and each in score.outstanding,
            }
            for each in foremost
        ],
        more_segments=len(score.segments) - len(foremost) if score else 0,
        duration_s=round(duration_s, 3),
        source=context.links.get(video.video_id, ""),
        rows=rows,
        holes=[
            {
                "left": percent(start_s, duration_s),
                "width": percent(end_s - start_s, duration_s),
                "text": f"{clock(start_s)}–{clock(end_s)}",
            }
            for start_s, end_s in video.holes
        ],
        ticks=[
            {"left": percent(at_s, duration_s), "text": clock(at_s)}
            for at_s in charts.ticks(0, duration_s, 6)
            if at_s <= 0.98 * duration_s
        ],
        named=[_deviations(context, features[stream], stream) for stream in context.names if stream in features],
        facts=_facts(video, metadata, duration_s),
        outcomes=sorted(video.outcomes.items()),
        provenance=sorted(next(iter(features.values())).provenance.items()) if features else [],
        explorer=_explorer(context, features),
    )


def _link(video: VideoSummary | None) -> dict[str, str] | None:
    return None if video is None else {"id": video.video_id, "href": f"{page_name(video.video_id)}.html"}


def _facts(video: VideoSummary, metadata: VideoMetadata | None, duration_s: float) -> list[tuple[str, str]]:
    facts = [("duration", clock(duration_s))]
    if metadata is not None:
        facts += metadata_facts(metadata)
    elif video.frames_per_second:
        facts.append(("frames per second", f"about {video.frames_per_second:.2f}, by the number of frames"))
    if video.size_bytes:
        facts.append(("size", size(video.size_bytes)))
    if video.lost_share:
        facts.append(("cannot be decoded", f"{video.lost_share:.1%}"))
    source = next((one for one in video.outcomes.values() if one.source), None)
    if source is not None:
        facts.append(("file", f"{source.input_root}/{source.source}"))
    if video.content_digest:
        facts.append(("SHA-256", video.content_digest))
    return facts


def metadata_facts(metadata: VideoMetadata) -> list[tuple[str, str]]:
    """Return title and text of the properties of a file."""
    audio = metadata.audio
    return [
        ("container and codec", f"{metadata.container}, {metadata.codec}"),
        ("frames", f"{metadata.num_frames:,} at {metadata.fps:.3g} per second"),
        ("picture", f"{metadata.width_px} × {metadata.height_px} px"),
        (
            "fields",
            metadata.field_order if metadata.field_order == "progressive" else f"interlaced, {metadata.field_order}",
        ),
        *([("pixel shape", f"{metadata.pixel_aspect:.4g} : 1")] if metadata.pixel_aspect != 1 else []),
        ("audio", f"{audio.rate_hz:,} Hz, {plural(audio.channels, 'channel')}" if audio else "none"),
        *(
            [("tracks", f"{metadata.num_video_tracks} video, {metadata.num_audio_tracks} audio")]
            if metadata.num_video_tracks + metadata.num_audio_tracks > 2
            else []
        ),
    ]


def _deviations(context: PageContext, each: StreamFeatures, stream: str) -> dict[str, Any]:
    statistics = context.data.statistics.get(stream)
    if statistics is None or not len(each):
        return {"stream": stream, "rows": []}
    found = statistics.deviations_of(each.video_id)
    if np.isnan(found).all():
        return {"stream": stream, "rows": []}
    order = np.argsort(-np.abs(np.nan_to_num(found)), kind="stable")[:MAX_DEVIATIONS].tolist()
    own = each.row_means.mean(axis=0)
    largest = max(abs(float(found[order[0]])), 1e-9)
    return {
        "stream": stream,
        "rows": [
            {
                "index": index,
                "name": context.names[stream][index],
                "z": float(found[index]),
                "share": round(100 * abs(float(found[index])) / largest, 1),
                "here": float(own[index]),
                "others": float(statistics.means[:, index].mean()),
            }
            for index in order
        ],
    }


def _explorer(context: PageContext, features: Mapping[str, StreamFeatures]) -> dict[str, Any]:
    """Return the named features for the script of the page, quantized to 256 steps between lowest and highest value."""
    found: dict[str, Any] = {}
    for stream in context.names:
        each = features.get(stream)
        if each is None or not len(each) or stream not in context.data.statistics:
            continue
        values = np.nan_to_num(each.row_means.astype(np.float64))
        low, high = values.min(axis=0), values.max(axis=0)
        span = np.asarray(np.maximum(high - low, 1e-12), np.float64)
        steps = np.asarray(255 * (values - low) / span + 0.5, np.uint8)
        deviations = context.data.statistics[stream].deviations_of(each.video_id)
        found[stream] = {
            "start_s": np.round(each.start_s, 3).tolist(),
            "end_s": np.round(each.end_s, 3).tolist(),
            "low": _short(low),
            "high": _short(high),
            "deviations": [None if np.isnan(value) else round(value, 1) for value in deviations.tolist()],
            "values": base64.b64encode(steps.tobytes()).decode(),
        }
    return found


def shared_features(data: StoreData, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return names, means and deviations of the named features, which the pages of all videos share."""
    return {
        stream: {
            "names": list(names[stream]),
            "mean": _short(data.statistics[stream].mean),
            "deviation": _short(data.statistics[stream].deviation),
        }
        for stream in names
        if stream in data.statistics
    }


def _short(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.4g}") for value in values.tolist()]
