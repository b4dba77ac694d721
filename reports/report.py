"""A report on a feature store: pages of the store, of each video, and of the scores of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from markupsafe import Markup

from ..models.labels import Labels
from ..models.video_scores import VideoScore
from ..pipeline.planning.discovery import Inputs
from ..pipeline.records import VideoMetadata
from ..pipeline.status import LEAST_PERSON_SHARE
from ..pipeline.store.reader import FeatureStore
from ..pipeline.store.stream_features import StreamFeatures
from . import charts
from .pages import ReportFolder, clock, page_name, page_names, relative_link
from .score_data import ModelScores, score_store
from .store_data import StoreData, VideoSummary, kinds_by_stream, read_store_data
from .video_page import PageContext, metadata_facts, shared_features, write_video_page
from .video_preview import VideoPreview, preview_videos

KINDS = ("done", "empty", "partial", "failed")
PER_PAGE = 100
"""Videos on one page of a list"""
BATCH = 32
"""Videos whose features are read together"""
MAX_LISTED = 20
"""Videos that are named for one reason"""
MAX_CLASSES = 8
"""Folders or picture formats with a color of their own"""

Progress = Callable[[str, int, int], None]
"""Called with the step, the number of videos that are done and of all videos"""


@dataclass(frozen=True)
class ReportResult:
    """Where a report is, and what it is about."""

    index: Path
    """The page to open"""
    num_videos: int
    num_read: int
    """Video files that were read"""
    problems: tuple[str, ...]
    """Video files that could not be read, or only in part"""
    scores: ModelScores | None = None


def write_report(
    store_path: FeatureStore,
    out: Path,
    *,
    videos: Inputs | None = None,
    model: Path | None = None,
    labels: Labels | None = None,
    labels_path: Path | None = None,
    num_decoders: int = 2,
    device: torch.device | str = "cpu",
    on_progress: Progress | None = None,
) -> ReportResult:
    """Write a report as static HTML pages, which open from a disk without a server or a network.

    A store to which a run writes at the same time is shown as it is.

    Args:
        store_path: The store, opened with ``partial=True``.
        out: Folder of the report: new, empty, or that of an earlier report, which is replaced.
        videos: The video files of the store, for pictures, sound and playback. Each is read once.
        model: Folder of a trained model, for the pages of scores.
        labels: Scores by the judges.
        labels_path: Their file.
        num_decoders: Video files that are read at the same time.
        device: Where the model runs.
        on_progress: Called with the progress.

    Raises:
        InputError: ``out`` holds other files, or a label matches several videos.
        StoreError: The store is damaged, or the report cannot be written.
        WeightsError: The model is damaged, or does not fit the features.

    Example:
        >>> from arabesque import FeatureStore
        >>> from arabesque.reports.report import write_report
        >>> from pathlib import Path
        >>> result = write_report(FeatureStore("features", partial=True), Path("report"))
        >>> result.index.name
        'index.html'
    """
    store = store_path
    folder = ReportFolder(out)
    report = on_progress or _unreported
    data = read_store_data(store)
    scores = None
    if model is not None:
        complete = FeatureStore(store.path)
        scores = score_store(
            model,
            complete,
            labels,
            labels_path,
            device=device,
            on_done=lambda done, total: report("scores", done, total),
        )
    page = _Report(store, folder, data, scores, {} if labels is None or scores is not None else _judged(labels, data))
    problems, num_read = page.write_videos(videos, num_decoders, report)
    page.write_index()
    page.write_scores()
    folder.remove_stale()
    return ReportResult(folder.folder / "index.html", len(data.videos), num_read, tuple(problems), scores)


def _unreported(step: str, done: int, total: int) -> None:
    pass


def _judged(labels: Labels, data: StoreData) -> dict[str, float]:
    from ..models.label_matching import match_labels

    matching = match_labels(labels.scores, {video.video_id for video in data.videos})
    return {matching.videos[name]: score for name, score in labels.scores.items() if name in matching.videos}


class _Report:
    """The pages of one report."""

    def __init__(
        self,
        store: FeatureStore,
        folder: ReportFolder,
        data: StoreData,
        scores: ModelScores | None,
        judged: Mapping[str, float],
    ) -> None:
        self.store, self.folder, self.data, self.scores = store, folder, data, scores
        self.judged = scores.judged if scores is not None else judged
        self.made_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        self.ids = [video.video_id for video in data.videos]
        self.pages = page_names("index", len(self.ids), PER_PAGE)
        self.metadata: dict[str, VideoMetadata] = {}
        self.sprites: set[str] = set()
        self.num_unknown_files = 0
        self.names = self._feature_names()

    def _navigation(self, current: str) -> list[dict[str, Any]]:
        titles = {"index.html": "Store", **({"scores.html": "Scores"} if self.scores else {})}
        return [{"href": href, "title": title, "current": href == current} for href, title in titles.items()]

    def _feature_names(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for stream in self.data.statistics:
            names = next(iter(self.store.scan(stream))).names
            if names is not None:
                found[stream] = names
        return found

    # videos

    def write_videos(self, videos: Inputs | None, num_decoders: int, report: Progress) -> tuple[list[str], int]:
        """Write the page of every video; return problems of files and the number of files that were read."""
        files = {} if videos is None else {file.video_id: file for file in videos.videos}
        known = set(self.ids)
        self.num_unknown_files = sum(name not in known for name in files)
        chosen = [files[name] for name in self.ids if name in files]
        links = {
            file.video_id: relative_link(file.path, self.folder.folder / "videos")
            for file in chosen
            if isinstance(file.path, Path)
        }
        context = PageContext(
            self.folder, self.data, self._navigation("index.html"), self.made_at, self.names, self.scores, links
        )
        self.folder.write_script("features.js", "arabesqueFeatures", shared_features(self.data, self.names))
        previews = preview_videos(chosen, num_decoders)
        problems: list[str] = []
        for place, (video, features) in enumerate(zip(self.data.videos, self._features(), strict=True)):
            preview: VideoPreview | None = None
            if video.video_id in files:
                _, preview = next(previews)
                if preview.metadata is not None:
                    self.metadata[video.video_id] = preview.metadata
                if preview.sprite:
                    self.sprites.add(video.video_id)
                if preview.problem:
                    problems.append(preview.problem)
            before = self.data.videos[place - 1] if place else None
            after = self.data.videos[place + 1] if place + 1 < len(self.ids) else None
            page, boxes = self.pages[place // PER_PAGE], self.store.boxes(video.video_id)
            write_video_page(context, video, features, preview, (before, after), page, boxes)
            report("videos", place + 1, len(self.ids))
        return problems, len(chosen)

    def _features(self) -> Iterator[dict[str, StreamFeatures]]:
        """Yield the features of each video, in order; those of `BATCH` videos are read together."""
        for first in range(0, len(self.ids), BATCH):
            names = self.ids[first : first + BATCH]
            found: dict[str, dict[str, StreamFeatures]] = {name: {} for name in names}
            for stream in self.store.streams:
                held = [name for name in names if self.store.holds(name, stream)]
                for name, features in self.store.read_many(stream, held).items():
                    found[name][stream] = features
            yield from (found[name] for name in names)

    # store

    def write_index(self) -> None:
        """Write the list of videos, and what there is to say of the store on its first page."""
        self.folder.write_script("videos.js", "arabesqueVideos", [[name, page_name(name)] for name in self.ids])
        whole = self._store_values()
        flags = self._flags()
        for number, name in enumerate(self.pages, start=1):
            shown = self.data.videos[(number - 1) * PER_PAGE : number * PER_PAGE]
            self.folder.write_page(
                name,
                "index.html",
                **whole,
                navigation=self._navigation("index.html" if number == 1 else ""),
                page_number=number,
                current=name,
                videos=[self._video_row(video, flags.get(video.video_id, [])) for video in shown],
            )

    def _store_values(self) -> dict[str, Any]:
        manifest, data = self.store.manifest, self.data
        recipe = manifest["recipe"]
        counts = kinds_by_stream(data.videos)
        specs = recipe.get("streams", {})
        expected = int(manifest.get("inputs", {}).get("videos", 0))
        notes: list[str] = []
        if expected > len(self.ids):
            notes.append(
                f"{expected - len(self.ids)} of the {expected} videos of the latest run have no outcome yet: it is "
                "running, or was interrupted"
            )
        if self.num_unknown_files:
            notes.append(f"{self.num_unknown_files} of the given files are not in the store")
        return {
            "title": f"Feature store {Path(str(self.store.path)).name or self.store.path}",
            "made_at": self.made_at,
            "num_videos": len(self.ids),
            "num_segments": sum(sum(video.segments.values()) for video in data.videos),
            "recipe": recipe["name"],
            "summary": recipe.get("summary", ""),
            "notes": notes,
            "kinds": KINDS,
            "streams": [
                {
                    "name": name,
                    "extractor": specs.get(name, {}).get("extractor", "imported"),
                    "counts": {kind: counts[name][kind] for kind in KINDS},
                    "segments": sum(video.segments.get(name, 0) for video in data.videos),
                    "dim": entry["dim"],
                    "digest": entry["settings_digest"],
                    "weights": sorted(entry.get("weights", {}).items()),
                }
                for name, entry in manifest["streams"].items()
            ],
            "reasons": [
                {
                    "kind": kind,
                    "text": reason,
                    "count": len(found),
                    "videos": _videos_of(found),
                    "more": max(0, len({name for name, _ in found}) - MAX_LISTED),
                }
                for kind, reason, found in data.reasons()[:MAX_LISTED]
            ],
            "charts": self._file_charts(),
            "properties": self._properties(),
            "projections": self._projections(),
            "color_modes": self._color_modes(),
            "identical": [
                {"videos": [_video_link(name) for name in group[:6]], "more": max(0, len(group) - 6)}
                for group in data.identical[:MAX_LISTED]
            ],
            "more_identical": max(0, len(data.identical) - MAX_LISTED),
            "near": [
                {"one": _video_link(one), "other": _video_link(other), "cosine": cosine}
                for one, other, cosine in data.near_duplicates
            ],
            "outliers": [
                {"video": _video_link(each.video_id), "stream": each.stream, "distance": each.distance}
                for each in data.outliers[:MAX_LISTED]
            ],
            "durations": [
                {**_video_link(video.video_id), "duration_s": video.duration_s}
                for video in data.videos
                if video.video_id in data.unusual_durations[:MAX_LISTED]
            ],
            "pages": self.pages,
            "thumbnails": bool(self.sprites),
            "scored": self.scores is not None or bool(self.judged),
            "made_with": [
                ("store", str(self.store.path)),
                ("created", str(manifest.get("created", "unknown"))),
                ("inputs", str(manifest.get("inputs", {}).get("folder", "")) or "several"),
                *((name, str(text)) for name, text in manifest["made_with"].items()),
            ],
            "recipe_text": tomli_w.dumps(recipe),
        }

    def _video_row(self, video: VideoSummary, remarks: Sequence[str]) -> dict[str, Any]:
        score = self.scores.scores.get(video.video_id) if self.scores else None
        return {
            **_video_link(video.video_id),
            "sprite": f"videos/{page_name(video.video_id)}.jpg" if video.video_id in self.sprites else "",
            "duration_s": video.duration_s,
            "size_bytes": video.size_bytes,
            "outcomes": [video.outcomes.get(stream) for stream in self.store.streams],
            "score": score.score if score else None,
            "judged": self.judged.get(video.video_id),
            "remarks": remarks,
        }

    def _flags(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for group in self.data.identical:
            for name in group:
                found.setdefault(name, []).append(f"same bytes as {next(one for one in group if one != name)}")
        for one, other, _ in self.data.near_duplicates:
            found.setdefault(one, []).append(f"nearly equal to {other}")
            found.setdefault(other, []).append(f"nearly equal to {one}")
        for each in self.data.outliers:
            found.setdefault(each.video_id, []).append(f"outlier in {each.stream}")
        for name in self.data.unusual_durations:
            found.setdefault(name, []).append("unusual duration")
        for video in self.data.videos:
            if video.person_share is not None and video.person_share < LEAST_PERSON_SHARE:
                found.setdefault(video.video_id, []).append(f"a person in {video.person_share:.0%} of the frames")
            if video.lost_share:
                found.setdefault(video.video_id, []).append(f"{video.lost_share:.1%} cannot be decoded")
            metadata = self.metadata.get(video.video_id)
            if metadata is not None and metadata.field_order != "progressive":
                found.setdefault(video.video_id, []).append("interlaced")
        return found

    def _file_charts(self) -> list[dict[str, Any]]:
        videos, rates = self.data.videos, [metadata.fps for metadata in self.metadata.values()]
        note = "" if rates else "By the number of frames and the end of the last segment."
        rates = rates or [video.frames_per_second for video in videos if video.frames_per_second]
        durations = [video.duration_s for video in videos if video.duration_s]
        sizes = [video.size_bytes / 1e6 for video in videos if video.size_bytes]
        people = [100 * video.person_share for video in videos if video.person_share is not None]
        drawn = [
            ("Durations", charts.histogram(durations, "Durations", "s"), ""),
            ("Frame rates", charts.histogram(rates, "Frame rates", "frames per second"), note),
            ("Sizes of the files", charts.histogram(sizes, "Sizes of the files", "MB"), ""),
            ("Frames with a person", charts.histogram(people, "Frames with a person", "%"), "Lowest of all streams."),
        ]
        return [{"title": title, "svg": svg, "note": text} for title, svg, text in drawn if svg]

    def _properties(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """Return the values of each property of the files that were read, the most frequent first."""
        counts: dict[str, Counter[str]] = {}
        for metadata in self.metadata.values():
            for title, text in metadata_facts(metadata):
                shown = f"{metadata.fps:.3g} per second" if title == "frames" else text
                counts.setdefault(title, Counter())[shown] += 1
        return [(title, values.most_common(MAX_LISTED)) for title, values in counts.items()]

    def _color_modes(self) -> list[dict[str, Any]]:
        modes: list[dict[str, Any]] = []
        if len(set(self.judged.values())) > 1:
            edges = np.quantile(list(self.judged.values()), np.linspace(0, 1, 6)).tolist()
            spans = pairwise(edges)
            items = [
                {"group": f"q{index}", "text": f"{low:.4g} … {high:.4g}"} for index, (low, high) in enumerate(spans)
            ]
            modes.append({"name": "label", "title": "judged score", "items": items, "edges": edges})
        if self.scores is not None:
            items = [{"group": "c0", "text": "not in the training set"}, {"group": "c1", "text": "in the training set"}]
            modes.append({"name": "split", "title": "training set", "items": items})
        for name, title, values in (
            ("folder", "folder", self._folders()),
            ("format", "picture format", self._formats()),
        ):
            common = [text for text, _ in Counter(values.values()).most_common(MAX_CLASSES - 1)]
            if len(set(values.values())) > 1:
                items = [{"group": f"c{index}", "text": text} for index, text in enumerate(common)]
                if len(set(values.values())) > len(common):
                    items.append({"group": f"c{MAX_CLASSES - 1}", "text": "others"})
                modes.append({"name": name, "title": title, "items": items, "common": common})
        if not modes:
            modes.append({"name": "all", "title": "one color", "items": []})
        return modes

    def _folders(self) -> dict[str, str]:
        return {name: name.rpartition("/")[0] or "." for name in self.ids}

    def _formats(self) -> dict[str, str]:
        return {
            name: f"{each.width_px} × {each.height_px}, {each.fps:.3g} per second"
            for name, each in self.metadata.items()
        }

    def _groups(self, video_id: str) -> dict[str, str]:
        found: dict[str, str] = {}
        others = f"c{MAX_CLASSES - 1}"
        values = {"folder": self._folder_of, "format": self._format_of}
        for mode in self._modes:
            name = mode["name"]
            if name == "label" and video_id in self.judged:
                place = int(np.searchsorted(mode["edges"][1:-1], self.judged[video_id], side="right"))
                found[name] = f"q{place}"
            elif name == "split" and self.scores is not None and video_id in self.scores.scores:
                found[name] = "c1" if self.scores.scores[video_id].trained_on else "c0"
            elif name in values and video_id in values[name]:
                text = values[name][video_id]
                found[name] = f"c{mode['common'].index(text)}" if text in mode["common"] else others
        return found

    def _projections(self) -> list[dict[str, Any]]:
        self._modes, self._folder_of, self._format_of = self._color_modes(), self._folders(), self._formats()
        drawn: list[dict[str, Any]] = []
        for each in self.data.projections:
            points = [
                charts.Point(
                    float(x),
                    float(y),
                    name + (f", judged {self.judged[name]:.2f}" if name in self.judged else ""),
                    f"videos/{page_name(name)}.html",
                    self._groups(name),
                )
                for name, (x, y) in zip(each.video_ids, each.points.tolist(), strict=True)
            ]
            shares = f"{each.shares[0]:.0%} and {each.shares[1]:.0%} of the variance"
            svg = charts.scatter(
                points,
                f"first component, {each.shares[0]:.0%}",
                f"second component, {each.shares[1]:.0%}",
                f"{len(points)} videos in the plane of two principal components of {each.stream}, {shares}",
            )
            drawn.append({"title": each.stream, "svg": svg, "note": ""})
        return drawn

    # scores

    def write_scores(self) -> None:
        """Write the pages of the scores, if there is a model."""
        model = self.scores
        if model is None:
            return
        ranked = model.ranked()
        pages = page_names("scores", len(ranked), PER_PAGE)
        correlations: list[dict[str, Any]] = []
        for trained_on, title in ((False, "not in the training set"), (True, "in the training set")):
            found = model.correlation(trained_on=trained_on)
            if found is not None:
                spearman, pearson, count = found
                correlations.append({"title": title, "spearman": spearman, "pearson": pearson, "count": count})
        effects: dict[str, list[float]] = {}
        for each in ranked:
            for stream, effect in each.stream_effects.items():
                effects.setdefault(stream, []).append(effect)
        has_attention = any(segment.attention is not None for each in ranked for segment in each.segments)
        for number, name in enumerate(pages, start=1):
            shown = ranked[(number - 1) * PER_PAGE : number * PER_PAGE]
            self.folder.write_page(
                name,
                "scores.html",
                navigation=self._navigation("scores.html" if number == 1 else ""),
                made_at=self.made_at,
                model=model.card.model,
                target=model.card.target,
                score_range=model.card.score_range,
                num_videos=len(ranked),
                notes=model.notes,
                correlations=correlations,
                chart=self._score_chart(model),
                agreement=model.agreement,
                num_without=model.num_without_outstanding,
                stream_effects=[
                    {
                        "stream": stream,
                        "mean": float(np.mean(values)),
                        "absolute": float(np.mean(np.abs(values))),
                        "low": min(values),
                        "high": max(values),
                    }
                    for stream, values in effects.items()
                ],
                decisions=[
                    {"title": f"Stage {stage}", "svg": _decision_chart(stage, shares.tolist())}
                    for stage, shares in model.decision_frequencies().items()
                ],
                has_attention=has_attention,
                pages=pages,
                page_number=number,
                current=name,
                rows=[_score_row(each, model.judged.get(each.video_id)) for each in shown],
            )

    def _score_chart(self, model: ModelScores) -> Markup:
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


def _video_link(video_id: str) -> dict[str, str]:
    return {"id": video_id, "href": f"videos/{page_name(video_id)}.html"}


def _videos_of(found: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    streams: dict[str, list[str]] = {}
    for name, stream in found:
        streams.setdefault(name, []).append(stream)
    return [{**_video_link(name), "streams": ", ".join(streams[name])} for name in list(streams)[:MAX_LISTED]]


def _score_row(score: VideoScore, judged: float | None) -> dict[str, Any]:
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
        **_video_link(score.video_id),
        "score": score.score,
        "judged": judged,
        "interval": f"{score.interval[0]:.2f} … {score.interval[1]:.2f}" if score.interval else "–",
        "segment": shown or "–",
        "effect": first.effect if first else None,
        "attention": attention or "–",
        "remarks": remarks,
    }
