"""Match labels to videos by equal ids, or by unique ids that differ only in folder, suffix or case."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..manifests.errors import InputError
from .labels import ID_TITLES

_VIDEOS = (
    *("3g2", "3gp", "asf", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "mxf", "ogg"),
    *("ogv", "ts", "vob", "webm", "wmv"),
)
SUFFIXES = frozenset([*_VIDEOS, "npy", "npz", "pkl", "pt", "h5"])
"""Suffixes that are ignored in ids: those of video files and of feature files"""


@dataclass(frozen=True)
class Matching:
    """Result of `match_labels`."""

    videos: Mapping[str, str] = field(default_factory=dict[str, str])
    """Id in the label file → id of the video, for every label with a video"""

    @property
    def note(self) -> str:
        """Number of labels that differ from the ids of their videos, with an example; empty if all are equal"""
        others = [(label, video) for label, video in self.videos.items() if label != video]
        if not others:
            return ""
        label, video = others[0]
        return (
            f"{len(others)} of {len(self.videos)} labels were matched to videos despite a different folder, suffix "
            f"or case, for example {label!r} to {video!r}"
        )


def match_labels(
    labels: Iterable[str],
    known: Collection[str],
    source: object = "labels",
    titles_of: tuple[str, str] | None = None,
) -> Matching:
    """Find the video of every label.

    A label is matched to the video with the same id. Otherwise it is matched to the only remaining video whose path,
    without suffix, ends with the label's path or is the end of the label's path. If no video matches, the comparison
    is repeated ignoring case.

    Args:
        labels: Ids in the label file.
        known: Ids of the videos.
        source: The label file, for error messages.
        titles_of: File and line of the column titles, and the title of the id column.

    Raises:
        InputError: A label matches several videos, several labels match one video, or the title of the id column is
            the id of a video.
    """
    labels = list(labels)
    if titles_of is not None and titles_of[1].lower() not in ID_TITLES and match_labels([titles_of[1]], known).videos:
        raise InputError(
            f"{titles_of[0]}: {titles_of[1]!r} was read as the title of a column, but it is a video; correct its "
            "score, or add a first line of titles such as video_id,score"
        )
    videos = {label: label for label in labels if label in known}
    rest = [label for label in labels if label not in videos]
    free = [name for name in known if name not in videos]
    if not rest or not free:
        return Matching(videos)
    for fold in (False, True):
        tails = _by_last_part(free, fold=fold)
        for label in rest:
            if label in videos:
                continue
            parts = _parts(label, fold=fold)
            found = sorted(name for name, other in tails.get(parts[-1], ()) if _one_ends_as_the_other(parts, other))
            if len(found) > 1:
                same = [name for name in found if _parts(name, fold=fold) == parts]
                found = same if len(same) == 1 else found
            if len(found) > 1:
                raise InputError(
                    f"{source}: label {label!r} matches {' and '.join(map(repr, found[:3]))}; write the whole id of "
                    "the video"
                )
            if found:
                videos[label] = found[0]
    owners: dict[str, str] = {}
    for label, video in videos.items():
        if video in owners:
            raise InputError(
                f"{source}: labels {owners[video]!r} and {label!r} both match video {video!r}; keep one of them"
            )
        owners[video] = label
    return Matching({label: videos[label] for label in labels if label in videos})


def _by_last_part(names: Iterable[str], *, fold: bool) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    grouped: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for name in names:
        parts = _parts(name, fold=fold)
        grouped.setdefault(parts[-1], []).append((name, parts))
    return grouped


def _parts(name: str, *, fold: bool) -> tuple[str, ...]:
    """Return the parts of a path, the last one without its suffix."""
    name = unicodedata.normalize("NFC", name).replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")] or [""]
    stem, dot, suffix = parts[-1].rpartition(".")
    if dot and stem and suffix.lower() in SUFFIXES:
        parts[-1] = stem
    return tuple(part.casefold() if fold else part for part in parts)


def _one_ends_as_the_other(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return longer[len(longer) - len(shorter) :] == shorter
