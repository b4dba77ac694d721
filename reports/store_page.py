"""Values of the first page of a report, which describes the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from ..pipeline.records import KINDS, VideoMetadata
from ..pipeline.status import LEAST_PERSON_SHARE
from ..pipeline.store.reader import FeatureStore
from . import charts
from .pages import page_name, video_link
from .score_data import ModelScores
from .store_data import StoreData, kinds_by_stream
from .video_page import metadata_facts

MAX_LISTED = 20
"""Maximum number of listed videos for one reason"""
MAX_CLASSES = 8
"""Maximum number of folders or picture formats with different colors"""


@dataclass
class ReadFiles:
    """Data that was read from the video files."""

    metadata: dict[str, VideoMetadata] = field(default_factory=dict[str, VideoMetadata])
    sprites: set[str] = field(default_factory=set[str])
    """Videos with thumbnails"""
    problems: list[str] = field(default_factory=list[str])
    num_read: int = 0
    num_unknown: int = 0
    """Number of files that are not in the store"""


class StorePage:
    """The page of a store.

    Args:
        store: The store.
        data: Its outcomes and statistics.
        files: Data that was read from the video files.
        scores: Scores of a model, if there is one.
        judged: Video → score by the judges.
    """

    def __init__(
        self,
        store: FeatureStore,
        data: StoreData,
        files: ReadFiles,
        scores: ModelScores | None,
        judged: Mapping[str, float],
    ) -> None:
        self._store, self._data, self._files, self._scores, self._judged = store, data, files, scores, judged
        self._folders = {video.video_id: video.video_id.rpartition("/")[0] or "." for video in data.videos}
        self._formats = {
            name: f"{each.width_px} × {each.height_px}, {each.fps:.3g} per second"
            for name, each in files.metadata.items()
        }
        self._modes = self._color_modes()

    def values(self) -> dict[str, Any]:
        """Return the values of the template, without the list of videos."""
        manifest, data = self._store.manifest, self._data
        recipe = manifest["recipe"]
        counts = kinds_by_stream(data.videos)
        specs = recipe.get("streams", {})
        expected = int(manifest.get("inputs", {}).get("videos", 0))
        notes: list[str] = []
        if expected > len(data.videos):
            notes.append(
                f"{expected - len(data.videos)} of the {expected} videos of the latest run have no outcome yet: it is "
                "running, or was interrupted"
            )
        if self._files.num_unknown:
            notes.append(f"{self._files.num_unknown} of the given files are not in the store")
        return self._findings() | {
            "title": f"Feature store {Path(str(self._store.path)).name or self._store.path}",
            "num_videos": len(data.videos),
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
                    "dim": " × ".join(map(str, entry.get("shape") or [entry["dim"]])),
                    "digest": entry["settings_digest"],
                    "weights": sorted(entry.get("weights", {}).items()),
                }
                for name, entry in manifest["streams"].items()
            ],
            "charts": self._file_charts(),
            "properties": self._properties(),
            "projections": self._projections(),
            "color_modes": self._modes,
            "thumbnails": bool(self._files.sprites),
            "scored": self._scores is not None or bool(self._judged),
            "made_with": [
                ("store", str(self._store.path)),
                ("created", str(manifest.get("created", "unknown"))),
                ("inputs", str(manifest.get("inputs", {}).get("folder", "")) or "several"),
                *((name, str(text)) for name, text in manifest["made_with"].items()),
            ],
            "recipe_text": tomli_w.dumps(recipe),
        }

    def _findings(self) -> dict[str, Any]:
        """Return findings that the user should check: reasons, copies, outliers."""
        data = self._data
        return {
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
            "identical": [
                {"videos": [video_link(name) for name in group[:6]], "more": max(0, len(group) - 6)}
                for group in data.identical[:MAX_LISTED]
            ],
            "more_identical": max(0, len(data.identical) - MAX_LISTED),
            "near": [
                {"one": video_link(one), "other": video_link(other), "cosine": cosine}
                for one, other, cosine in data.near_duplicates
            ],
            "outliers": [
                {"video": video_link(each.video_id), "stream": each.stream, "distance": each.distance}
                for each in data.outliers[:MAX_LISTED]
            ],
            "durations": [
                {**video_link(video.video_id), "duration_s": video.duration_s}
                for video in data.videos
                if video.video_id in data.unusual_durations[:MAX_LISTED]
            ],
        }

    def flags(self) -> dict[str, list[str]]:
        """Return video → remarks for the list of videos."""
        found: dict[str, list[str]] = {}
        for group in self._data.identical:
            for name in group:
                found.setdefault(name, []).append(f"same bytes as {next(one for one in group if one != name)}")
        for one, other, _ in self._data.near_duplicates:
            found.setdefault(one, []).append(f"nearly equal to {other}")
            found.setdefault(other, []).append(f"nearly equal to {one}")
        for each in self._data.outliers:
            found.setdefault(each.video_id, []).append(f"outlier in {each.stream}")
        for name in self._data.unusual_durations:
            found.setdefault(name, []).append("unusual duration")
        for video in self._data.videos:
            if video.person_share is not None and video.person_share < LEAST_PERSON_SHARE:
                found.setdefault(video.video_id, []).append(f"a person in {video.person_share:.0%} of the frames")
            if video.lost_share:
                found.setdefault(video.video_id, []).append(f"{video.lost_share:.1%} cannot be decoded")
            metadata = self._files.metadata.get(video.video_id)
            if metadata is not None and metadata.field_order != "progressive":
                found.setdefault(video.video_id, []).append("interlaced")
        return found

    def _file_charts(self) -> list[dict[str, Any]]:
        videos, rates = self._data.videos, [metadata.fps for metadata in self._files.metadata.values()]
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
        for metadata in self._files.metadata.values():
            for title, text in metadata_facts(metadata):
                shown = f"{metadata.fps:.3g} per second" if title == "frames" else text
                counts.setdefault(title, Counter())[shown] += 1
        return [(title, values.most_common(MAX_LISTED)) for title, values in counts.items()]

    def _color_modes(self) -> list[dict[str, Any]]:
        modes: list[dict[str, Any]] = []
        if len(set(self._judged.values())) > 1:
            edges = np.quantile(list(self._judged.values()), np.linspace(0, 1, 6)).tolist()
            spans = pairwise(edges)
            items = [
                {"group": f"q{index}", "text": f"{low:.4g} … {high:.4g}"} for index, (low, high) in enumerate(spans)
            ]
            modes.append({"name": "label", "title": "judged score", "items": items, "edges": edges})
        if self._scores is not None:
            items = [{"group": "c0", "text": "not in the training set"}, {"group": "c1", "text": "in the training set"}]
            modes.append({"name": "split", "title": "training set", "items": items})
        for name, title, values in (
            ("folder", "folder", self._folders),
            ("format", "picture format", self._formats),
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

    def _groups(self, video_id: str) -> dict[str, str]:
        found: dict[str, str] = {}
        others = f"c{MAX_CLASSES - 1}"
        values = {"folder": self._folders, "format": self._formats}
        for mode in self._modes:
            name = mode["name"]
            if name == "label" and video_id in self._judged:
                place = int(np.searchsorted(mode["edges"][1:-1], self._judged[video_id], side="right"))
                found[name] = f"q{place}"
            elif name == "split" and self._scores is not None and video_id in self._scores.scores:
                found[name] = "c1" if self._scores.scores[video_id].trained_on else "c0"
            elif name in values and video_id in values[name]:
                text = values[name][video_id]
                found[name] = f"c{mode['common'].index(text)}" if text in mode["common"] else others
        return found

    def _projections(self) -> list[dict[str, Any]]:
        drawn: list[dict[str, Any]] = []
        for each in self._data.projections:
            points = [
                charts.Point(
                    float(x),
                    float(y),
                    name + (f", judged {self._judged[name]:.2f}" if name in self._judged else ""),
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


def _videos_of(found: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    streams: dict[str, list[str]] = {}
    for name, stream in found:
        streams.setdefault(name, []).append(stream)
    return [{**video_link(name), "streams": ", ".join(streams[name])} for name in list(streams)[:MAX_LISTED]]
