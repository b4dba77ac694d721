"""The rows of the time line of a video: pictures, people, segments, effects on the score, features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from ..extractors.protocol import PersonBoxes
from ..models.video_scores import Segment
from ..pipeline.store.stream_features import StreamFeatures
from . import charts
from .pages import ReportFolder, clock, page_name
from .score_data import ModelScores, step_times
from .store_data import StoreData, StreamStatistics
from .video_preview import VideoPreview

HEAT_COLUMNS = 240
"""Number of time steps in the picture of all deviations"""
MAX_BOX_DELAY_S = 0.5
"""Largest distance between a thumbnail and the frame of the boxes that are drawn on it"""
LANE_PX = 20
MAX_LANES = 4


@dataclass(frozen=True)
class SegmentButton:
    start_s: float
    end_s: float
    left: float
    """Position in percent of the duration"""
    width: float
    top: int
    text: str
    outstanding: bool = False


@dataclass(frozen=True)
class Row:
    """One row of the time line."""

    title: str
    kind: str
    note: str = ""
    height: int = 0
    """Height in pixels; 0 for the usual height"""
    spoken: str = ""
    picture: str = ""
    picture_share: float = 100.0
    layers: tuple[Markup, ...] = ()
    segments: tuple[SegmentButton, ...] = ()
    stream: str = ""
    choices: tuple[tuple[int, str], ...] = ()


def picture_rows(
    folder: ReportFolder,
    name: str,
    preview: VideoPreview | None,
    boxes: Mapping[str, PersonBoxes],
    duration_s: float,
) -> list[Row]:
    """Return rows of thumbnails with boxes, flow, motion energy and audio, and write their pictures."""
    rows: list[Row] = []
    if preview is None:
        return rows
    if preview.sprite:
        folder.write(f"videos/{name}.jpg", preview.sprite)
        times_s = preview.thumbnail_times_s if preview.thumbnail_times_s is not None else np.zeros(0)
        layers = tuple(_boxes_on_thumbnails(each, times_s) for each in boxes.values())
        note = "boxes: yellow, the athlete" if layers else ""
        rows.append(Row("frames", "thumbnails", note, 60, "Frames of the video", picture=f"{name}.jpg", layers=layers))
    if preview.flow:
        folder.write(f"videos/{name}-flow.jpg", preview.flow)
        note = "color: direction; strength: speed"
        spoken = f"Optical flow of the frames above, {note}"
        rows.append(Row("flow", "thumbnails", note, 60, spoken, picture=f"{name}-flow.jpg"))
    if preview.energy is not None and preview.energy_times_s is not None and len(preview.energy):
        highest = float(preview.energy.max())
        note = f"up to {highest:.1f} of 255"
        drawn = charts.curve(preview.energy_times_s, preview.energy, duration_s, low=0, high=highest)
        rows.append(
            Row("motion energy", "energy", note, layers=(drawn,), spoken=f"Difference of successive frames, {note}")
        )
    if preview.spectrogram:
        folder.write(f"videos/{name}-sound.jpg", preview.spectrogram)
        beats = preview.beats_s if preview.beats_s is not None else np.zeros(0)
        note = f"{preview.tempo_bpm:.0f} beats per minute" if preview.tempo_bpm else "no beat found"
        if preview.audio_end_s < duration_s - 60:
            note += f", first {clock(preview.audio_end_s)} only"
        rows.append(
            Row(
                "sound",
                "sound",
                note,
                height=60,
                picture=f"{name}-sound.jpg",
                picture_share=percent(min(preview.audio_end_s, duration_s), duration_s),
                layers=(charts.marks(beats[(beats >= 0) & (beats <= duration_s)], duration_s),),
                spoken=f"Spectrogram with the beats of the music: {note}",
            )
        )
    return rows


def _boxes_on_thumbnails(boxes: PersonBoxes, times_s: NDArray[np.float64]) -> Markup:
    """Return the boxes of the frame nearest to each thumbnail, if a frame within half a second was searched."""
    parts: list[str] = []
    searched = np.unique(boxes.time_s)
    for place, time_s in enumerate(times_s.tolist()):
        nearest = float(searched[np.abs(searched - time_s).argmin()]) if len(searched) else np.inf
        if abs(nearest - time_s) > MAX_BOX_DELAY_S:
            continue
        for row in np.flatnonzero(boxes.time_s == nearest).tolist():
            left, top, right, bottom = boxes.edges_px[row].tolist()
            if np.isnan(left):
                continue
            x, y = (place + left / boxes.width_px) / len(times_s), top / boxes.height_px
            width, height = (right - left) / boxes.width_px / len(times_s), (bottom - top) / boxes.height_px
            kind = "box" if boxes.chosen[row] else "box other"
            parts.append(
                f'<rect class="{kind}" x="{1000 * x:.1f}" y="{100 * y:.1f}" width="{1000 * width:.1f}" '
                f'height="{100 * height:.1f}"/>'
            )
    return _layer("".join(parts))


def person_rows(boxes: Mapping[str, PersonBoxes], duration_s: float) -> list[Row]:
    """Return a row per stream that crops people: frames with the athlete, only with other people, or without people."""
    rows: list[Row] = []
    for stream, each in boxes.items():
        times_s = np.unique(each.time_s)
        if not len(times_s):
            continue
        place = np.searchsorted(times_s, each.time_s)
        people = np.bincount(place, ~np.isnan(each.edges_px[:, 0]), len(times_s)) > 0
        athlete = np.bincount(place, each.chosen, len(times_s)) > 0
        ends_s = np.append(times_s[1:], max(duration_s, float(times_s[-1])))
        drawn = [
            _bar(start_s, end_s, 5, 95, duration_s, "share" if chosen else "m7")
            for start_s, end_s, found, chosen in zip(
                times_s.tolist(), ends_s.tolist(), people.tolist(), athlete.tolist(), strict=True
            )
            if found
        ]
        note = f"{stream}: athlete in {athlete.mean():.0%} of {len(times_s)} frames, people in {people.mean():.0%}"
        rows.append(Row("athlete found", "person", note, 26, note, layers=(_layer("".join(drawn)),)))
    return rows


def segment_rows(
    features: Mapping[str, StreamFeatures], duration_s: float, outstanding: frozenset[Segment]
) -> list[Row]:
    """Return a row of buttons for the segments of each stream. Overlapping segments are in different lanes."""
    marked = {(stream, each.start_s): each.effect for each in outstanding for stream in each.streams}
    rows: list[Row] = []
    for stream, each in features.items():
        lanes: list[float] = []
        buttons: list[SegmentButton] = []
        for index, (start_s, end_s) in enumerate(zip(each.start_s.tolist(), each.end_s.tolist(), strict=True)):
            free = next((lane for lane, until_s in enumerate(lanes) if until_s <= start_s + 1e-6), None)
            if free is None:
                free = len(lanes) if len(lanes) < MAX_LANES else int(np.argmin(lanes))
                lanes += [0.0] * (free + 1 - len(lanes))
            lanes[free] = end_s
            text = f"{stream}, segment {index + 1} of {len(each)}, {clock(start_s)}–{clock(end_s)}"
            effect = marked.get((stream, start_s))
            if effect is not None:
                text += f", stands out: the score loses {effect:+.2f} points without it"
            buttons.append(
                SegmentButton(
                    round(start_s, 3),
                    round(end_s, 3),
                    percent(start_s, duration_s),
                    percent(end_s - start_s, duration_s),
                    2 + LANE_PX * free,
                    text,
                    effect is not None,
                )
            )
        rows.append(
            Row(
                stream,
                "segments",
                f"{len(each)} segments × {' × '.join(map(str, each.values.shape[1:]))}",
                height=LANE_PX * max(1, len(lanes)),
                spoken=f"Segments of {stream}",
                segments=tuple(buttons),
            )
        )
    return rows


def score_rows(model: ModelScores | None, video_id: str, duration_s: float) -> list[Row]:
    """Return rows of effects, attention and the inner values of PAMFN."""
    score = model.scores.get(video_id) if model else None
    if model is None or score is None:
        return []
    rows: list[Row] = []
    for streams in dict.fromkeys(segment.streams for segment in score.segments):
        group = [segment for segment in score.segments if segment.streams == streams]
        name = ", ".join(streams)
        effects = [segment.effect or 0.0 for segment in group]
        largest = max(map(abs, effects), default=0.0)
        if any(segment.effect is not None for segment in group):
            note = f"{name}: {min(effects):+.2f} … {max(effects):+.2f} points"
            rows.append(
                Row(
                    "effect on the score",
                    "effects",
                    note,
                    height=64,
                    layers=(_effect_bars(group, largest, duration_s),),
                    spoken=f"Points that the score loses without each segment of {note}",
                )
            )
        if any(segment.attention is not None for segment in group):
            weights = [segment.attention or 0.0 for segment in group]
            note = f"{name}: {min(weights):.1%} … {max(weights):.1%}, uniform {1 / len(group):.1%}"
            rows.append(
                Row(
                    "attention",
                    "attention",
                    note,
                    layers=(_attention_bars(group, max(weights), duration_s),),
                    spoken=f"Attention of {note}",
                )
            )
    if video_id in model.traces and score.segments:
        ends_s = score.segments[0].start_s, max(segment.end_s for segment in score.segments)
        rows += _trace_rows(model, model.traces[video_id], ends_s, duration_s)
    return rows


def _cells(segments: Sequence[Segment]) -> list[tuple[float, float]]:
    """Return (start_s, end_s) of the part of each segment before the next one starts."""
    starts = [segment.start_s for segment in segments]
    following = [*starts[1:], segments[-1].end_s]
    return [
        (segment.start_s, min(segment.end_s, after) if after > segment.start_s else segment.end_s)
        for segment, after in zip(segments, following, strict=True)
    ]


def _bar(start_s: float, end_s: float, top: float, bottom: float, duration_s: float, kind: str) -> str:
    x, width = 1000 * start_s / duration_s, 1000 * (end_s - start_s) / duration_s
    return (
        f'<rect class="{kind}" x="{x + 0.05 * width:.2f}" width="{0.9 * width:.2f}" y="{top:.2f}" '
        f'height="{max(0.0, bottom - top):.2f}"/>'
    )


def _layer(content: str) -> Markup:
    return Markup(
        f'<svg class="track-svg" viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{content}</svg>'
    )


def _effect_bars(segments: Sequence[Segment], largest: float, duration_s: float) -> Markup:
    parts = ['<line class="zero" x1="0" x2="1000" y1="50" y2="50"/>']
    for segment, (start_s, end_s) in zip(segments, _cells(segments), strict=True):
        height = 48 * (segment.effect or 0.0) / largest if largest else 0.0
        top, bottom = (50 - height, 50) if height > 0 else (50, 50 - height)
        parts.append(_bar(start_s, end_s, top, bottom, duration_s, "up" if height > 0 else "down"))
    return _layer("".join(parts))


def _attention_bars(segments: Sequence[Segment], largest: float, duration_s: float) -> Markup:
    parts = [
        _bar(start_s, end_s, 98 - 94 * (segment.attention or 0.0) / (largest or 1), 100, duration_s, "share")
        for segment, (start_s, end_s) in zip(segments, _cells(segments), strict=True)
    ]
    uniform = 98 - 94 / len(segments) / (largest or 1)
    parts.append(f'<line class="uniform" x1="0" x2="1000" y1="{uniform:.2f}" y2="{uniform:.2f}"/>')
    return _layer("".join(parts))


def _trace_rows(
    model: ModelScores, traces: Mapping[str, NDArray[np.float32]], ends_s: tuple[float, float], duration_s: float
) -> list[Row]:
    """Return rows of the PolicyNet's decisions and of the weights of modalities and FusionNets, by stage."""
    num_nets = int(model.card.settings.get("num_nets", 1))
    streams = tuple(model.card.dims)
    rows: list[Row] = []
    for stage in (1, 2, 3):
        decision = traces.get(f"decision_{stage}")
        if decision is not None and len(decision):
            used = [int(value) + 1 for value in decision.tolist()]
            parts = [
                _bar(start_s, end_s, 100 - 96 * count / num_nets, 100, duration_s, "share")
                for count, (start_s, end_s) in zip(used, step_times(len(used), ends_s), strict=True)
            ]
            note = f"stage {stage}: {min(used)} to {max(used)} of {num_nets}"
            rows.append(
                Row("FusionNets", "decision", note, layers=(_layer("".join(parts)),), spoken=f"FusionNets: {note}")
            )
        for key, title, names in (
            (f"modalities_{stage}", "modalities (MSFD)", streams),
            (f"nets_{stage}", "FusionNets (CMFD)", tuple(f"net {index + 1}" for index in range(num_nets))),
        ):
            weights = traces.get(key)
            if weights is None or not len(weights):
                continue
            drawn = _stacked(weights, step_times(len(weights), ends_s), duration_s)
            shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(names, weights.mean(axis=0), strict=False))
            note = f"stage {stage}: {shares if len(names) <= 4 else f'weights of {len(names)} networks'}"
            rows.append(Row(title, "weights", note, layers=(drawn,), spoken=f"{title}, mean weights of {note}"))
    return rows


def _stacked(weights: NDArray[np.float32], times: Sequence[tuple[float, float]], duration_s: float) -> Markup:
    """Return stacked bars of weights ``[steps, choices]``."""
    parts: list[str] = []
    for row, (start_s, end_s) in zip(weights.tolist(), times, strict=True):
        top, total = 0.0, sum(row) or 1.0
        for index, weight in enumerate(row):
            bottom = top + 100 * weight / total
            parts.append(_bar(start_s, end_s, top, bottom, duration_s, f"m{index % 8}"))
            top = bottom
    return _layer("".join(parts))


def feature_rows(
    folder: ReportFolder,
    data: StoreData,
    names: Mapping[str, tuple[str, ...]],
    name: str,
    features: Mapping[str, StreamFeatures],
    duration_s: float,
) -> list[Row]:
    """Return a curve of one named feature, and a picture of all deviations, for each stream."""
    rows: list[Row] = []
    for stream, each in features.items():
        if stream not in data.statistics or not len(each):
            continue
        statistics = data.statistics[stream]
        if stream in names:
            order = np.argsort(-np.abs(np.nan_to_num(statistics.deviations_of(each.video_id))), kind="stable")
            first = int(order[0])
            choices = sorted(enumerate(names[stream]), key=lambda one: (one[0] != first, one[1]))
            drawn = Markup(
                '<svg class="track-svg feature-curve" viewBox="0 0 1000 100" preserveAspectRatio="none" '
                f'aria-hidden="true">{_curve_of(each, statistics, first, duration_s)}</svg>'
            )
            rows.append(
                Row(
                    "",
                    "feature",
                    " ",
                    height=64,
                    layers=(drawn,),
                    stream=stream,
                    choices=tuple(choices),
                    spoken=names[stream][first],
                )
            )
        picture = _deviation_picture(each, statistics, duration_s)
        folder.write(f"videos/{name}-{page_name(stream)[-10:]}.png", picture)
        rows.append(
            Row(
                f"{stream}: all features",
                "heat",
                "blue below, red above the mean of all videos",
                height=min(160, max(40, each.values.shape[-1] // 2)),
                picture=f"{name}-{page_name(stream)[-10:]}.png",
                spoken=f"Deviation of every feature of {stream} from the mean of all segments of all videos",
            )
        )
    return rows


def _curve_of(each: StreamFeatures, statistics: StreamStatistics, index: int, duration_s: float) -> str:
    values = each.row_means[:, index].astype(np.float64)
    mean, deviation = float(statistics.mean[index]), float(statistics.deviation[index])
    low, high = min(float(values.min()), mean - 2 * deviation), max(float(values.max()), mean + 2 * deviation)
    span = high - low or 1.0
    middles = 500 * (each.start_s + each.end_s) / duration_s
    path = " ".join(
        f"{x:.1f},{y:.1f}" for x, y in zip(middles.tolist(), (98 - 96 * (values - low) / span).tolist(), strict=True)
    )
    top = 98 - 96 * (mean + deviation - low) / span
    return (
        f'<rect class="band" x="0" width="1000" y="{top:.1f}" height="{max(0.5, 192 * deviation / span):.1f}"/>'
        f'<polyline class="curve" points="{path}"/>'
    )


def _deviation_picture(each: StreamFeatures, statistics: StreamStatistics, duration_s: float) -> bytes:
    """Return a PNG with time from left to right and a row per feature; blue to red are −3 to +3 deviations."""
    import cv2

    scale = np.where(statistics.deviation > 1e-12, statistics.deviation, np.inf)
    values = np.clip((each.row_means - statistics.mean) / scale / 3, -1, 1)
    at_s = (np.arange(HEAT_COLUMNS) + 0.5) * duration_s / HEAT_COLUMNS
    chosen = np.searchsorted(each.start_s, at_s, side="right") - 1
    covered = (chosen >= 0) & (at_s < each.end_s[np.maximum(chosen, 0)])
    columns = values[np.maximum(chosen, 0)].T  # [features, columns]
    strength = (255 * (1 - np.abs(columns))).astype(np.uint8)
    full = np.full_like(strength, 255)
    red, blue = np.where(columns < 0, strength, full), np.where(columns > 0, strength, full)
    alpha = np.broadcast_to(np.where(covered, 255, 0).astype(np.uint8), strength.shape)
    return cv2.imencode(".png", np.stack([blue, strength, red, alpha], axis=-1))[1].tobytes()


def percent(time_s: float, duration_s: float) -> float:
    """Return the position of a time on the time line, in percent."""
    return round(100 * time_s / duration_s, 3)
