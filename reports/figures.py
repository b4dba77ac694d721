"""Figures 4 to 6 of ACTION-NET and 5 to 9 of PAMFN for a trained model, as SVG, PNG or PDF."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..manifests.errors import DecodeError, InputError, os_reason
from ..manifests.optional_packages import require_package
from ..models.video_scores import Segment, VideoScore
from ..pipeline.decoding.decoder_pool import DecoderProcess, FrameChunk
from ..pipeline.planning.sampling import nearest_frames
from ..pipeline.records import VideoFile
from .pages import clock, page_name
from .score_data import ModelScores, step_times
from .video_preview import resized

Drawing = Any
"""A figure of matplotlib, or its axes, whose types are partial"""
Format = Literal["svg", "png", "pdf"]
DPI = 200
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
"""Colors of Okabe and Ito, which most color-blind people can distinguish"""
FRAMES_PER_SEGMENT = 8
""""Each video segment is compressed to eight frames" (Figure 5 of ACTION-NET)"""
SHOWN_SEGMENTS = 4
""""The top four frames with high or low attention weights" (Figure 6 of ACTION-NET)"""
STAGE = 2
"""Stage of Figures 7 to 9 of PAMFN"""
FRAME_PX = 160


@dataclass(frozen=True)
class Figures:
    """The figures that were written, and the reasons why others were not."""

    written: tuple[Path, ...]
    left_out: Mapping[str, str]
    """Figure → reason why it was not written"""


def write_figures(
    model: ModelScores,
    out: Path,
    *,
    video_ids: Sequence[str] = (),
    files: Mapping[str, VideoFile] | None = None,
    table: Path | None = None,
    form: Format = "svg",
) -> Figures:
    """Write the figures for which the model has the data.

    Args:
        model: Result of `score_store`.
        out: Output folder.
        video_ids: Videos for figures of single videos; by default those with the highest and the lowest score.
        files: Video → its file, for frames and flow.
        table: The ``table.json`` of `arabesque reproduce pamfn-figure-6`, for Figure 6 of PAMFN.
        form: Format of the files.

    Raises:
        InputError: A video has no score, or ``table`` is not such a file.
        MissingPackageError: The package matplotlib is not installed.
    """
    require_package("matplotlib", "figures")
    ranked = model.ranked()
    if unknown := [name for name in video_ids if name not in model.scores]:
        raise InputError(f"{unknown[0]}: has no score in this store; give --video another id")
    chosen = [model.scores[name] for name in video_ids] or [*ranked[:1], *ranked[1:][-1:]]
    maker = _Maker(model, out, files or {}, form)
    try:
        out.mkdir(parents=True, exist_ok=True)
        maker.attention_figures(chosen)
        maker.decision_frequencies()
        maker.number_of_nets(table)
        for score in chosen:
            maker.modalities_over_time(score)
            maker.decisions_over_time(score)
    except OSError as error:
        raise InputError(f"{out}: {os_reason(error)}; give --out a folder that can be written") from error
    return Figures(tuple(maker.written), maker.left_out)


class _Maker:
    def __init__(self, model: ModelScores, out: Path, files: Mapping[str, VideoFile], form: Format) -> None:
        self.model, self.out, self.files, self.form = model, out, files, form
        self.written: list[Path] = []
        self.left_out: dict[str, str] = {}

    # ACTION-NET

    def attention_figures(self, chosen: Sequence[VideoScore]) -> None:
        """Draw figures 4 to 6: attention weights over time, segments and frames with high and low weights."""
        with_attention = [each for each in chosen if any(one.attention is not None for one in each.segments)]
        if not with_attention:
            for number in (4, 5, 6):
                self.left_out[f"action-net-{number}"] = f"{self.model.card.model} has no attention over segments"
            return
        for score in with_attention:
            first, *others = dict.fromkeys(segment.streams for segment in score.segments)
            self._weights_over_time(score, first)
            self._high_and_low(score, first, "action-net-5", FRAMES_PER_SEGMENT)
            if others:
                self._high_and_low(score, others[0], "action-net-6", 1)
            else:
                self.left_out["action-net-6"] = "the model has no second stream of frames"

    def _weights_over_time(self, score: VideoScore, streams: tuple[str, ...]) -> None:
        segments = _of(score, streams)
        frames = self._frames(score.video_id, [_middle(segment) for segment in segments])
        figure, (top, axes) = _subplots(2, height_in=3.2, ratios=(1, 1.6))
        _show_frames(top, frames[:: max(1, len(frames) // 10)])
        weights = [segment.attention or 0.0 for segment in segments]
        axes.bar(range(len(weights)), weights, color=COLORS[0])
        axes.axhline(1 / len(weights), color=COLORS[1], linestyle="--", linewidth=1)
        axes.annotate("uniform", (len(weights) - 0.5, 1 / len(weights)), ha="right", va="bottom", color=COLORS[1])
        if len(weights) <= 12:
            for index, weight in enumerate(weights):
                axes.annotate(f"{weight:.3f}", (index, weight), ha="center", va="bottom", fontsize=7)
        axes.set_xlabel(f"segment of {', '.join(streams)}")
        axes.set_ylabel("attention weight")
        self._save(figure, f"action-net-4-{page_name(score.video_id)}", f"{score.video_id}, score {score.score:.2f}")

    def _high_and_low(self, score: VideoScore, streams: tuple[str, ...], name: str, per_segment: int) -> None:
        """Draw frames of the segments with high weights, and below those with low weights."""
        segments = sorted(_of(score, streams), key=lambda segment: -(segment.attention or 0.0))
        count = min(SHOWN_SEGMENTS, len(segments) // 2)
        if score.video_id not in self.files or not count:
            reason = "needs --videos" if score.video_id not in self.files else "the video has one segment"
            self.left_out[f"{name}-{page_name(score.video_id)}"] = reason
            return
        shown = segments[:count], segments[-count:]
        figure, axes = _subplots(2, count, height_in=2.6 if per_segment == 1 else 3.6)
        for row, (title, group) in enumerate(zip(("high", "low"), shown, strict=True)):
            for column, segment in enumerate(group):
                pane = axes[row * count + column]
                times_s = np.linspace(segment.start_s, segment.end_s, per_segment, endpoint=False)
                if per_segment == 1:
                    times_s = np.array([_middle(segment)])
                _show_frames(pane, self._frames(score.video_id, times_s.tolist()), columns=min(4, per_segment))
                pane.set_title(f"{segment.attention or 0:.4f} ({title})\n{clock(segment.start_s)}", fontsize=8)
        self._save(figure, f"{name}-{page_name(score.video_id)}", f"{score.video_id}, {', '.join(streams)}")

    # PAMFN

    def decision_frequencies(self) -> None:
        """Draw figure 5: frequencies of the decisions in the three stages."""
        found = self.model.decision_frequencies()
        if not found:
            self.left_out["pamfn-5"] = f"{self.model.card.model} has no PolicyNet"
            return
        figure, axes = _subplots(1, len(found), height_in=2.6)
        for pane, (stage, shares) in zip(axes, found.items(), strict=True):
            nets = np.arange(1, len(shares) + 1)
            pane.plot(nets, shares, marker="o", markersize=3, color=COLORS[0], label=self.model.card.target)
            pane.axhline(1 / len(shares), color=COLORS[1], linestyle="--", linewidth=1, label="Uniform")
            pane.set_title(f"stage {stage}", fontsize=9)
            pane.set_xlabel("enabled FusionNets")
            pane.set_xticks(nets[:: max(1, len(nets) // 6)])
        axes[0].set_ylabel("frequency")
        axes[0].legend(frameon=False, fontsize=7)
        self._save(figure, "pamfn-5", f"Decisions in {len(self.model.traces)} videos")

    def number_of_nets(self, table: Path | None) -> None:
        """Draw figure 6: Spearman by the number of FusionNets, from a reproduced table."""
        if table is None:
            self.left_out["pamfn-6"] = "needs --table: the table.json of `arabesque reproduce pamfn-figure-6`"
            return
        lines = _by_number_of_nets(table)
        figure, (axes,) = _subplots(1, height_in=3.0)
        for (column, points), color in zip(sorted(lines.items()), COLORS * 3, strict=False):
            points = sorted(points)
            means = [float(np.mean(values)) for _, values in points]
            deviations = [float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for _, values in points]
            nets = [count for count, _ in points]
            axes.errorbar(nets, means, deviations, marker="o", markersize=3, capsize=2, color=color, label=column)
        axes.set_xlabel("number of FusionNets")
        axes.set_ylabel("Spearman, last epoch")
        axes.legend(frameon=False, fontsize=7)
        self._save(figure, "pamfn-6", "")

    def modalities_over_time(self, score: VideoScore) -> None:
        """Draw figure 7: weights of the modalities in the modality-specific feature decoder, with audio and frames."""
        name = f"pamfn-7-{page_name(score.video_id)}"
        weights = self.model.traces.get(score.video_id, {}).get(f"modalities_{STAGE}")
        if weights is None or not len(weights):
            self.left_out[name] = f"{self.model.card.model} has no modality-specific feature decoder in stage {STAGE}"
            return
        times = step_times(len(weights), _ends(score))
        frames = self._frames(score.video_id, np.linspace(*_ends(score), 10, endpoint=False).tolist())
        figure, (top, axes) = _subplots(2, height_in=3.2, ratios=(1, 1.8))
        _show_frames(top, frames)
        below = np.zeros(len(weights))
        starts, widths = [start_s for start_s, _ in times], [end_s - start_s for start_s, end_s in times]
        for stream, values, color in zip(self.model.card.dims, weights.T, COLORS * 3, strict=False):
            axes.bar(starts, values, widths, below, align="edge", color=color, label=stream, edgecolor="white")
            below = below + values
        axes.set_xlabel("time in seconds")
        axes.set_ylabel("attention weight")
        axes.legend(frameon=False, fontsize=7, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.2))
        self._save(figure, name, f"{score.video_id}, stage {STAGE}")

    def decisions_over_time(self, score: VideoScore) -> None:
        """Draw figure 8, decisions over time, and 9, frames and flow at the most and fewest used FusionNets."""
        names = [f"pamfn-{number}-{page_name(score.video_id)}" for number in (8, 9)]
        decisions = self.model.traces.get(score.video_id, {}).get(f"decision_{STAGE}")
        if decisions is None or not len(decisions):
            self.left_out.update(dict.fromkeys(names, f"{self.model.card.model} has no PolicyNet in stage {STAGE}"))
            return
        nets = decisions.astype(int) + 1
        times = step_times(len(nets), _ends(score))
        order: list[int] = np.argsort(-nets, kind="stable").tolist()
        marked: list[int] = sorted({*order[:2], *order[-2:]})
        figure, (axes,) = _subplots(1, height_in=2.4)
        edges = [start_s for start_s, _ in times] + [times[-1][1]]
        axes.stairs(nets, edges, fill=True, color=COLORS[0])
        for index, step in enumerate(marked):
            axes.axvspan(*times[step], color=COLORS[1], alpha=0.25)
            axes.annotate(f"$t_{index + 1}$", (sum(times[step]) / 2, nets[step]), ha="center", va="bottom")
        axes.set_xlabel("time in seconds")
        axes.set_ylabel("enabled FusionNets")
        self._save(figure, names[0], f"{score.video_id}, stage {STAGE}")
        if score.video_id not in self.files:
            self.left_out[names[1]] = "needs --videos"
            return
        figure, panes = _subplots(2, len(marked), height_in=2.8)
        for index, step in enumerate(marked):
            middle_s = sum(times[step]) / 2
            pair = self._frames(score.video_id, [middle_s, middle_s + 0.1])
            panes[index].set_title(f"$t_{index + 1}$: {clock(middle_s)}, {nets[step]} of {self._num_nets}", fontsize=8)
            _show_frames(panes[index], pair[:1])
            _show_frames(panes[len(marked) + index], [_flow_picture(*pair)] if len(pair) == 2 else [])
        self._save(figure, names[1], f"{score.video_id}: frames and optical flow")

    @property
    def _num_nets(self) -> int:
        return int(self.model.card.settings.get("num_nets", 1))

    def _frames(self, video_id: str, times_s: Sequence[float]) -> list[NDArray[np.uint8]]:
        file = self.files.get(video_id)
        return [] if file is None else read_frames(file, times_s)

    def _save(self, figure: Drawing, name: str, title: str) -> None:
        figure.suptitle(title, fontsize=9)
        path = self.out / f"{name}.{self.form}"
        figure.savefig(path, dpi=DPI)
        self.written.append(path)


def read_frames(file: VideoFile, times_s: Sequence[float]) -> list[NDArray[np.uint8]]:
    """Return the frames next to some times, ``uint8 [height, width, 3]`` each, at most `FRAME_PX` high.

    Frames that cannot be decoded are left out.
    """
    with DecoderProcess() as decoder:
        try:
            metadata = decoder.probe(file.local_path)
            wanted = nearest_frames(metadata.frame_times_s, np.array(times_s, np.float64))
            height_px, width_px = metadata.display_px
            size_px = max(1, round(FRAME_PX * width_px / height_px)), FRAME_PX
            found: dict[int, NDArray[np.uint8]] = {}
            for chunk in decoder.decode(file.local_path, metadata, np.unique(wanted)):
                if isinstance(chunk, FrameChunk):
                    for index, frame in zip(chunk.indices.tolist(), chunk.frames, strict=True):
                        found[index] = resized(frame, size_px)
                    chunk.release()
        except DecodeError:
            return []
    return [found[index] for index in wanted.tolist() if index in found]


def _by_number_of_nets(table: Path) -> dict[str, list[tuple[int, list[float]]]]:
    """Return column → (number of FusionNets, values of the seeds). The numbers are read from the names of the rows."""
    from ..models.published_tables import load_table

    try:
        content: Any = json.loads(table.read_text(encoding="utf-8"))
        nets = {row.name: row.method for row in load_table("pamfn-figure-6").rows}
        found: dict[str, list[tuple[int, list[float]]]] = {}
        for row in content["rows"]:
            if row["name"] not in nets:
                raise ValueError(f"its row {row['name']!r} does not belong to this figure")
            count = int("".join(letter for letter in row["name"] if letter.isdigit()))
            for column, cell in row["cells"].items():
                if cell["last"] is not None:
                    found.setdefault(column, []).append((count, [float(value) for value in cell["last"]["by_seed"]]))
    except OSError as error:
        raise InputError(f"{table}: {os_reason(error)}; give --table a table.json") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{table}: is not a table.json of `arabesque reproduce pamfn-figure-6` ({error}); give --table that file"
        ) from error
    return found


def _of(score: VideoScore, streams: tuple[str, ...]) -> list[Segment]:
    return [segment for segment in score.segments if segment.streams == streams]


def _middle(segment: Segment) -> float:
    return (segment.start_s + segment.end_s) / 2


def _ends(score: VideoScore) -> tuple[float, float]:
    return score.segments[0].start_s, max(segment.end_s for segment in score.segments)


def _subplots(
    rows: int, columns: int = 1, *, height_in: float, ratios: Sequence[float] | None = None
) -> tuple[Drawing, list[Drawing]]:
    from matplotlib.figure import Figure

    figure: Drawing = Figure(figsize=(7.0, height_in), layout="constrained")
    panes: Any = figure.subplots(rows, columns, squeeze=False, height_ratios=ratios)
    for pane in panes.flat:
        pane.spines[["top", "right"]].set_visible(False)
        pane.tick_params(labelsize=8)
        pane.xaxis.label.set_size(8)
        pane.yaxis.label.set_size(8)
    return figure, list(panes.flat)


def _show_frames(axes: Drawing, frames: Sequence[NDArray[np.uint8]], columns: int = 0) -> None:
    """Show frames side by side, in rows of ``columns``; nothing without frames."""
    axes.set_axis_off()
    if not frames:
        return
    columns = columns or len(frames)
    rows = [frames[first : first + columns] for first in range(0, len(frames), columns)]
    whole = [np.concatenate(list(row), axis=1) for row in rows if len(row) == columns]
    axes.imshow(np.concatenate(whole, axis=0))


def _flow_picture(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return optical flow as a color: the direction as hue, the length as saturation."""
    import cv2

    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (one, other)]
    empty: Any = None
    flow = np.asarray(cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(gray[0], gray[1], empty))
    length = np.hypot(flow[..., 0], flow[..., 1])
    hue = (np.arctan2(flow[..., 1], flow[..., 0]) + np.pi) / (2 * np.pi) * 179
    saturation = 255 * np.clip(length / max(float(np.quantile(length, 0.99)), 1e-6), 0, 1)
    hsv = np.stack([hue, saturation, np.full_like(hue, 255)], axis=-1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
