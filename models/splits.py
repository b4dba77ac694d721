"""Splits into training and held-out videos. They depend only on the ids and contents of the videos and a seed.

Videos of the same content are in the same part. Otherwise a held-out video would also be a training video.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from ..manifests.errors import InputError

Contents = Mapping[str, str]
"""video_id → digest of its content. A video that is not in the mapping has a unique content. The digest of a clip of a
longer file is that of the file, followed by ``#t=start,end``."""


def shuffled(video_ids: Sequence[str], seed: int) -> list[str]:
    """Return the ids in random order. The relative order of two videos depends only on their ids and the seed."""
    return sorted(video_ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def shuffled_groups(video_ids: Sequence[str], seed: int, contents: Contents) -> list[list[str]]:
    """Return groups of videos of the same content or with overlapping clips, in shuffled order."""
    first_of = _overlaps({contents[name] for name in video_ids if name in contents})
    groups: dict[tuple[bool, str], list[str]] = {}
    for name in shuffled(video_ids, seed):
        content = contents.get(name, name)
        groups.setdefault((name in contents, first_of.get(content, content)), []).append(name)
    return list(groups.values())


def _overlaps(contents: Iterable[str]) -> dict[str, str]:
    """Return the content of each clip that overlaps others → the first content of its chain of overlaps.

    Clips that overlap contain the same frames. A whole file overlaps all of its clips.
    """
    ranges: dict[str, list[tuple[float, float, str]]] = {}
    for content in contents:
        if "+" in content:  # features from several imported files
            continue
        file, _, times = content.partition("t=")
        file = file.rstrip("#&")
        start, _, end = times.partition("&")[0].partition(",")  # excluded stretches follow after &
        ranges.setdefault(file, []).append((float(start or 0), float(end or "inf"), content))
    found: dict[str, str] = {}
    for clips in ranges.values():
        until_s, first = -1.0, ""
        for start_s, end_s, content in sorted(clips):
            if start_s >= until_s:
                first = content
            found[content] = first
            until_s = max(until_s, end_s)
    return found


def folds(video_ids: Sequence[str], num_folds: int, seed: int, contents: Contents | None = None) -> list[list[str]]:
    """Put every video into one fold. Without videos of the same content, the sizes differ by at most one."""
    groups = shuffled_groups(video_ids, seed, contents or {})
    if not 2 <= num_folds <= len(groups):
        raise ValueError(
            f"{num_folds} folds of {len(groups)} videos of different content; choose 2 or more, and at most one per "
            "content"
        )
    found: list[list[str]] = [[] for _ in range(num_folds)]
    for group in groups:
        min(found, key=len).extend(group)  # the first one of equally small folds
    return found


def hold_out(
    video_ids: Sequence[str], fraction: float, seed: int, contents: Contents | None = None
) -> tuple[list[str], list[str]]:
    """Return ``(training, held out)``. At least two videos are held out, because a rank correlation needs two.

    Raises:
        InputError: No video remains for training.
    """
    count = max(2, round(fraction * len(video_ids)))
    held, rest = cut(video_ids, count, seed, contents or {})
    if not rest:
        raise InputError(
            f"{len(video_ids)} videos have too few different contents to hold out {count} of them; add other videos"
        )
    return rest, held


def cut(video_ids: Sequence[str], count: int, seed: int, contents: Contents) -> tuple[list[str], list[str]]:
    """Split the shuffled videos after ``count`` videos, without separating videos of the same content."""
    first: list[str] = []
    rest: list[str] = []
    for group in shuffled_groups(video_ids, seed, contents):
        (first if len(first) < count else rest).extend(group)
    return first, rest


def duplicates(video_ids: Sequence[str], contents: Contents) -> list[list[str]]:
    """Return the groups of videos that have the same content, in the order given."""
    groups: dict[str, list[str]] = {}
    for name in video_ids:
        if name in contents:
            groups.setdefault(contents[name], []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def duplicate_notes(scores: Mapping[str, float], contents: Contents) -> list[str]:
    """Return notes on videos of the same content and on differences of their scores."""
    groups = duplicates(list(scores), contents)
    if not groups:
        return []
    notes = [
        f"{sum(map(len, groups))} videos have {len(groups)} different contents, each under several ids: "
        f"{abbreviate([' = '.join(group) for group in groups])}"
    ]
    unequal = [group for group in groups if len({scores[name] for name in group}) > 1]
    if unequal:
        named = [" = ".join(f"{name} ({scores[name]:g})" for name in group) for group in unequal]
        notes.append(f"{len(unequal)} of these contents have different scores under their ids: {abbreviate(named)}")
    return notes


def leak_note(train: Sequence[str], test: Sequence[str], contents: Contents) -> str:
    """Return a note on test videos with the content of a training video; empty if there are none."""
    trained = {contents[name]: name for name in reversed(train) if name in contents}
    pairs = [f"{name} = {trained[contents[name]]}" for name in test if contents.get(name) in trained]
    if not pairs:
        return ""
    return f"{len(pairs)} of {len(test)} test videos have the content of a training video: {abbreviate(pairs)}"


def abbreviate(names: Sequence[str], most: int = 3) -> str:
    """Return ``a, b, c and 4 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
