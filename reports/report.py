"""A report on a feature store: pages of the store, of each video, and of the scores of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..models.labels import Labels
from ..pipeline.planning.discovery import Inputs
from ..pipeline.store.reader import FeatureStore
from ..pipeline.store.stream_features import StreamFeatures
from .pages import ReportFolder, page_name, page_names, relative_link, video_link
from .score_data import ModelScores, score_store
from .scores_page import score_row, scores_values
from .store_data import StoreData, VideoSummary, read_store_data
from .store_page import ReadFiles, StorePage
from .video_page import PageContext, shared_features, write_video_page
from .video_preview import VideoPreview, preview_videos

PER_PAGE = 100
"""Videos on one page of a list"""
BATCH = 32
"""Videos whose features are read together"""

Progress = Callable[[str, int, int], None]
"""Called with the step, the number of finished videos and the number of all videos"""


@dataclass(frozen=True)
class ReportResult:
    """Location of a report, and results of reading the video files."""

    index: Path
    """The page to open"""
    num_videos: int
    num_read: int
    """Number of video files that were read"""
    problems: tuple[str, ...]
    """Video files that could not be read completely"""
    scores: ModelScores | None = None


def write_report(
    store: FeatureStore,
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

    If a run writes to the store at the same time, the report shows the current state.

    Args:
        store: The store, opened with ``partial=True``.
        out: Folder of the report: new, empty, or that of an earlier report, which is replaced.
        videos: The video files of the store, for pictures, audio and playback. Each is read once.
        model: Folder of a trained model, for the pages of scores.
        labels: Scores by the judges.
        labels_path: File of these scores.
        num_decoders: Number of video files that are read at the same time.
        device: Device of the model.
        on_progress: Called with the progress.

    Raises:
        InputError: ``out`` contains other files, or a label matches several videos.
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
    folder = ReportFolder(out)
    report = on_progress or _unreported
    data = read_store_data(store)
    scores = None
    if model is not None:
        on_done = partial(report, "scores")
        scores = score_store(model, FeatureStore(store.path), labels, labels_path, device=device, on_done=on_done)
    page = _Report(store, folder, data, scores, {} if labels is None or scores is not None else _judged(labels, data))
    files = page.write_videos(videos, num_decoders, report)
    page.write_index(files)
    page.write_scores()
    folder.remove_stale()
    return ReportResult(folder.folder / "index.html", len(data.videos), files.num_read, tuple(files.problems), scores)


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
        self._store, self._folder, self._data, self._scores = store, folder, data, scores
        self._judged = scores.judged if scores is not None else judged
        self._made_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        self._ids = [video.video_id for video in data.videos]
        self._pages = page_names("index", len(self._ids), PER_PAGE)

    def _navigation(self, current: str) -> list[dict[str, Any]]:
        titles = {"index.html": "Store", **({"scores.html": "Scores"} if self._scores else {})}
        return [{"href": href, "title": title, "current": href == current} for href, title in titles.items()]

    def _feature_names(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for stream in self._data.statistics:
            names = next(iter(self._store.scan(stream))).names
            if names is not None:
                found[stream] = names
        return found

    def write_videos(self, videos: Inputs | None, num_decoders: int, report: Progress) -> ReadFiles:
        """Write the page of every video; return the data that was read from the files."""
        files = {} if videos is None else {file.video_id: file for file in videos.videos}
        known = set(self._ids)
        chosen = [files[name] for name in self._ids if name in files]
        read = ReadFiles(num_read=len(chosen), num_unknown=sum(name not in known for name in files))
        links = {
            file.video_id: relative_link(file.path, self._folder.folder / "videos")
            for file in chosen
            if isinstance(file.path, Path)
        }
        names = self._feature_names()
        context = PageContext(
            self._folder, self._data, self._navigation("index.html"), self._made_at, names, self._scores, links
        )
        self._folder.write_script("features.js", "arabesqueFeatures", shared_features(self._data, names))
        previews = preview_videos(chosen, num_decoders)
        for place, (video, features) in enumerate(zip(self._data.videos, self._features(), strict=True)):
            preview: VideoPreview | None = None
            if video.video_id in files:
                _, preview = next(previews)
                if preview.metadata is not None:
                    read.metadata[video.video_id] = preview.metadata
                if preview.sprite:
                    read.sprites.add(video.video_id)
                if preview.problem:
                    read.problems.append(preview.problem)
            before = self._data.videos[place - 1] if place else None
            after = self._data.videos[place + 1] if place + 1 < len(self._ids) else None
            page, boxes = self._pages[place // PER_PAGE], self._store.boxes(video.video_id)
            write_video_page(context, video, features, preview, (before, after), page, boxes)
            report("videos", place + 1, len(self._ids))
        return read

    def _features(self) -> Iterator[dict[str, StreamFeatures]]:
        """Yield the features of each video in order. Those of `BATCH` videos are read together."""
        for first in range(0, len(self._ids), BATCH):
            names = self._ids[first : first + BATCH]
            found: dict[str, dict[str, StreamFeatures]] = {name: {} for name in names}
            for stream in self._store.streams:
                held = [name for name in names if self._store.holds(name, stream)]
                for name, features in self._store.read_many(stream, held).items():
                    found[name][stream] = features
            yield from (found[name] for name in names)

    def write_index(self, files: ReadFiles) -> None:
        """Write the list of videos, whose first page also describes the store."""
        self._folder.write_script("videos.js", "arabesqueVideos", [[name, page_name(name)] for name in self._ids])
        page = StorePage(self._store, self._data, files, self._scores, self._judged)
        whole, flags = page.values(), page.flags()
        for number, name in enumerate(self._pages, start=1):
            shown = self._data.videos[(number - 1) * PER_PAGE : number * PER_PAGE]
            self._folder.write_page(
                name,
                "index.html",
                **whole,
                made_at=self._made_at,
                navigation=self._navigation("index.html" if number == 1 else ""),
                pages=self._pages,
                page_number=number,
                current=name,
                videos=[self._video_row(video, files, flags.get(video.video_id, [])) for video in shown],
            )

    def _video_row(self, video: VideoSummary, files: ReadFiles, remarks: Sequence[str]) -> dict[str, Any]:
        score = self._scores.scores.get(video.video_id) if self._scores else None
        return {
            **video_link(video.video_id),
            "sprite": f"videos/{page_name(video.video_id)}.jpg" if video.video_id in files.sprites else "",
            "duration_s": video.duration_s,
            "size_bytes": video.size_bytes,
            "outcomes": [video.outcomes.get(stream) for stream in self._store.streams],
            "score": score.score if score else None,
            "judged": self._judged.get(video.video_id),
            "remarks": remarks,
        }

    def write_scores(self) -> None:
        """Write the pages of the scores, if there is a model."""
        model = self._scores
        if model is None:
            return
        ranked, whole = model.ranked(), scores_values(model)
        pages = page_names("scores", len(ranked), PER_PAGE)
        for number, name in enumerate(pages, start=1):
            shown = ranked[(number - 1) * PER_PAGE : number * PER_PAGE]
            self._folder.write_page(
                name,
                "scores.html",
                **whole,
                made_at=self._made_at,
                navigation=self._navigation("scores.html" if number == 1 else ""),
                pages=pages,
                page_number=number,
                current=name,
                rows=[score_row(each, model.judged.get(each.video_id)) for each in shown],
            )
