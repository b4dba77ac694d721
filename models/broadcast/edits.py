"""Shots and routines of the videos in a store of the recipe `shots`, and their tables."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...extractors.transnet import boundary_probabilities
from ...manifests.shot_rules import ShotRules
from ...pipeline.store.reader import FeatureStore
from ...pipeline.system.process_resources import one_blas_thread
from .boundaries import Method, content_boundaries, network_boundaries
from .measures import FrameMeasures, frame_measures, people_measures, sound_measures
from .routines import Routine, routines_of
from .shots import Shot, counts_of_kinds, shots_of

RECIPE = "shots"
STREAMS: Mapping[Method, tuple[str, ...]] = {
    "content": ("signatures", "loudness"),
    "transnet": ("signatures", "loudness", "boundaries"),
}
"""Method → the streams of the recipe `shots` that it reads."""
PEOPLE_STREAM = "people"
"""The stream of a detector, which is read if ``people`` is set."""

SHOT_COLUMNS = (
    "path", "id", "shot", "start_s", "end_s", "first_frame", "kind", "reason", "enters_by", "boundary_score",
    "repeats_start_s", "repeats_end_s", "speed", "correlation", "margin", "has_logo", "motion", "texture", "face_share",
    "still_share", "black_share", "flicker_share", "person_height", "close_share",
)  # fmt: skip
CLIP_COLUMNS = (
    "path", "id", "start_s", "end_s", "excluded_s", "exclude", "start_confidence", "end_confidence", "start_evidence",
    "end_evidence", "music_start_s", "music_end_s", "num_action_shots",
)  # fmt: skip
"""The first four columns are those of ``extract --clips``."""


@dataclass(frozen=True, eq=False)
class Edit:
    """Shots and routines of one recording."""

    video_id: str
    path: str
    """Path as given by the user"""
    frames: FrameMeasures | None
    """None if no frame could be decoded."""
    shots: tuple[Shot, ...] = ()
    routines: tuple[Routine, ...] = ()
    note: str = ""
    """Reason why no routine was found, or missing parts; empty if everything was read."""


def read_edits(
    store: FeatureStore,
    paths: Mapping[str, str],
    method: Method,
    rules: ShotRules,
    reasons: Mapping[str, str],
    *,
    people: bool = False,
) -> Iterator[Edit]:
    """Find the shots and routines of each video.

    Args:
        store: A store with the streams of the method, opened with ``partial=True``.
        paths: Video id → its path.
        method: Method that finds boundaries.
        rules: The thresholds.
        reasons: Video id → reason why it has no rows, or missing parts.
        people: Whether close-ups are also found by the stream ``people``, which the store must then have.

    Yields:
        One edit for each path, in order, also for videos without rows.
    """
    for video_id, path in paths.items():
        missing = reasons.get(video_id, "")
        if not store.holds(video_id, "signatures"):
            yield Edit(video_id, path, None, note=missing or "it has no frames")
            continue
        frames = frame_measures(store.read(video_id, "signatures"))
        has_sound = store.holds(video_id, "loudness")
        sound = sound_measures(store.read(video_id, "loudness")) if has_sound else None
        if method == "transnet":
            if not store.holds(video_id, "boundaries"):
                yield Edit(video_id, path, frames, note=missing or "it has no boundaries of TransNetV2")
                continue
            rows = store.read(video_id, "boundaries").values
            boundaries = network_boundaries(boundary_probabilities(rows, len(frames)), frames, rules.boundaries)
        else:
            boundaries = content_boundaries(frames, rules.boundaries)
        seen = (
            people_measures(store.read(video_id, PEOPLE_STREAM))
            if people and store.holds(video_id, PEOPLE_STREAM)
            else None
        )
        with one_blas_thread():  # the matrices are small, and idle threads of OpenBLAS would use processor time
            shots = shots_of(frames, boundaries, rules, seen)
        routines = routines_of(frames, sound, shots, rules.routines)
        notes = [missing] if missing else []
        if not routines:
            notes.append(_why_no_routine(shots, rules))
        elif not has_sound:
            notes.append("no sound: start and end are found by the pictures alone")
        yield Edit(video_id, path, frames, tuple(shots), tuple(routines), "; ".join(notes))


def _why_no_routine(shots: Sequence[Shot], rules: ShotRules) -> str:
    action_s = sum(shot.end_s - shot.start_s for shot in shots if shot.kind == "action")
    if action_s == 0:
        return f"no routine: no shot shows action ({counts_of_kinds(shots)})"
    return f"no routine: {action_s:.1f} s of action, but less than {rules.routines.shortest_s:g} s without interruption"


def shots_csv(edits: Iterable[Edit]) -> str:
    """Return the shots of all videos as a CSV table with `SHOT_COLUMNS`."""
    return _csv(SHOT_COLUMNS, (_shot_row(edit, shot) for edit in edits for shot in edit.shots))


def _shot_row(edit: Edit, shot: Shot) -> list[object]:
    match = shot.match if shot.kind == "replay" else None
    repeats = ("",) * 5
    if match is not None:
        numbers = (match.start_s, match.end_s, match.speed, match.correlation, match.margin)
        repeats = tuple(f"{number:.3f}" for number in numbers)
    measured = (shot.motion, shot.texture, shot.face_share, shot.still_share, shot.black_share, shot.flicker_share)
    seen = (shot.person_height, shot.close_share)
    return [
        edit.path, edit.video_id, shot.index, f"{shot.start_s:.3f}", f"{shot.end_s:.3f}", shot.first_frame, shot.kind,
        shot.reason, shot.enters_by, f"{shot.boundary_score:.3f}", *repeats, int(shot.has_logo),
        *(f"{number:.3f}" for number in measured), *("" if share is None else f"{share:.3f}" for share in seen),
    ]  # fmt: skip


def clips_csv(edits: Iterable[Edit], folder: Path, exclude: str) -> str:
    """Return the routines of all videos as a CSV table with `CLIP_COLUMNS`.

    Args:
        edits: The recordings.
        folder: Folder of the table; local paths below it are written relative to it, others in full.
        exclude: Handling of the stretches in ``excluded_s`` by extraction: ``cut``, ``mask`` or ``keep``.
    """
    return _csv(CLIP_COLUMNS, (row for edit in edits for row in clip_rows(edit, folder, exclude)))


def clip_rows(edit: Edit, folder: Path, exclude: str) -> list[list[object]]:
    """Return a row of `CLIP_COLUMNS` for each routine of a recording, with ids ``VIDEO/routine_1``, …"""
    rows: list[list[object]] = []
    for number, routine in enumerate(edit.routines, 1):
        excluded = ";".join(f"{start_s:.3f}-{end_s:.3f}" for start_s, end_s in routine.excluded_s)
        music = ("", "") if routine.music_s is None else tuple(f"{time_s:.3f}" for time_s in routine.music_s)
        start, end = routine.start, routine.end
        values = (
            _path_from(edit.path, folder), f"{edit.video_id}/routine_{number}", f"{start.time_s:.3f}",
            f"{end.time_s:.3f}", excluded, exclude, f"{start.confidence:.1f}", f"{end.confidence:.1f}",
            start.evidence, end.evidence, *music, len(routine.shots),
        )  # fmt: skip
        rows.append(list(values))
    return rows


def _path_from(path: str, folder: Path) -> str:
    if "://" in path:
        return path
    absolute, root = os.path.abspath(path), os.path.abspath(folder)
    return os.path.relpath(absolute, root) if absolute.startswith(root + os.sep) else absolute


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
