"""Comparison of two sets of features: common videos, distances of their rows, and causes of differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...manifests.errors import InputError
from .common_times import CommonRows, rows_at_common_times
from .diagnosing import as_rows, diagnose_together
from .feature_arrays import FeatureArray
from .row_distances import Explanation, agree, cosines, nearest_offsets, relative_error
from .value_differences import resize_rounding

MAX_POOLED = 32
"""Maximal number of videos for the diagnosis of a stream. They have thousands of rows, which are sufficient."""
_NO_EVIDENCE = ("not-finite", "other-dim")


@dataclass(frozen=True)
class Pairing:
    """The (video, stream) pairs that both sides have, and those that only one side has."""

    pairs: tuple[tuple[FeatureArray, FeatureArray], ...]
    only_a: tuple[tuple[str, str], ...]
    only_b: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """Comparison of one (video, stream). Numbers refer to the segments that both sides have, in order."""

    video_id: str
    stream: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    cosines: tuple[float, ...]
    """One per segment. Empty if the rows have different lengths or values that are not finite."""
    max_error: float | None
    relative_error: float | None
    """Largest absolute difference divided by the largest absolute value of both sides."""
    explanation: Explanation | None
    """None if both are equal: the same shape, and values within the tolerance."""
    offsets: tuple[int, ...] = ()
    """Offset of each segment of A to the most similar segment of B. Empty like ``cosines``, or if both are equal."""

    @property
    def same(self) -> bool:
        return self.explanation is None


@dataclass(frozen=True)
class Verdict:
    """Result for one stream over all videos."""

    stream: str
    num_videos: int
    num_different: int
    diagnoses: Mapping[str, int]
    """Diagnosis → number of different videos with it, the most frequent first."""
    largest_error: float | None
    """Relative error. None if no arrays were comparable."""
    explanation: Explanation | None
    """Joint diagnosis of the different videos; None if all are equal."""
    num_together: int


def paired(a: Sequence[FeatureArray], b: Sequence[FeatureArray]) -> Pairing:
    """Match arrays by video id and stream.

    A side whose format has no stream names gets the only stream of the other side.

    Raises:
        InputError: The stream is ambiguous, or both sides have nothing in common.
    """
    a, b = _named_like(a, b), _named_like(b, a)
    a, b = _with_long_names(a, b), _with_long_names(b, a)
    by_name_a = {(array.video_id, array.stream): array for array in a}
    by_name_b = {(array.video_id, array.stream): array for array in b}
    common = [name for name in by_name_a if name in by_name_b]
    if not common:
        first_a, first_b = next(iter(by_name_a)), next(iter(by_name_b))
        raise InputError(
            f"A and B have no video and stream in common: A has {len(by_name_a)}, such as {first_a}; B has "
            f"{len(by_name_b)}, such as {first_b}; check the ids, or name the streams with --stream and --name"
        )
    return Pairing(
        tuple((by_name_a[name], by_name_b[name]) for name in common),
        tuple(name for name in by_name_a if name not in by_name_b),
        tuple(name for name in by_name_b if name not in by_name_a),
    )


def compared(pairs: Sequence[tuple[FeatureArray, FeatureArray]], tolerance: float) -> Iterator[Comparison]:
    """Compare each pair. Arrays are equal up to the relative error ``tolerance``. A damaged file raises StoreError.

    Where both sides have the times of their rows, rows of the same time are compared.
    """
    for one, other in pairs:
        yield _comparison(one, other, tolerance)


def verdicts(
    pairs: Sequence[tuple[FeatureArray, FeatureArray]], found: Sequence[Comparison], tolerance: float
) -> list[Verdict]:
    """Return the result of each stream. ``found`` are the results of `compared`. Some arrays are read again."""
    return [
        _verdict([(pair, one) for pair, one in zip(pairs, found, strict=True) if one.stream == stream], tolerance)
        for stream in dict.fromkeys(one.stream for one in found)
    ]


def _verdict(of_stream: Sequence[tuple[tuple[FeatureArray, FeatureArray], Comparison]], tolerance: float) -> Verdict:
    different = [(pair, one) for pair, one in of_stream if not one.same]
    counts = Counter(one.explanation.cause for _, one in different if one.explanation)
    errors = [one.relative_error for _, one in of_stream if one.relative_error is not None]
    telling = [pair for pair, one in different if one.explanation and one.explanation.cause not in _NO_EVIDENCE]
    chosen = _spread(telling or [pair for pair, _ in different])
    rows = [rows_at_common_times(*pair, tolerance) for pair in chosen]
    return Verdict(
        stream=of_stream[0][1].stream,
        num_videos=len(of_stream),
        num_different=len(different),
        diagnoses=dict(counts.most_common()),
        largest_error=max(errors, default=None),
        explanation=_diagnosed(chosen, rows, tolerance) if chosen else None,
        num_together=len(chosen),
    )


def _spread(
    pairs: Sequence[tuple[FeatureArray, FeatureArray]],
) -> Sequence[tuple[FeatureArray, FeatureArray]]:
    """Return at most `MAX_POOLED` pairs, evenly spaced."""
    if len(pairs) <= MAX_POOLED:
        return pairs
    places = np.linspace(0, len(pairs) - 1, MAX_POOLED).round()
    return [pairs[int(place)] for place in places]


def _named_like(arrays: Sequence[FeatureArray], others: Sequence[FeatureArray]) -> Sequence[FeatureArray]:
    if all(array.stream for array in arrays):
        return arrays
    streams = {array.stream for array in others}
    if len(streams) != 1:
        raise InputError(
            f"{arrays[0].file}: this format has no stream names; give --stream, one of {', '.join(sorted(streams))}"
        )
    return [replace(array, stream=next(iter(streams))) for array in arrays]


def _with_long_names(arrays: Sequence[FeatureArray], others: Sequence[FeatureArray]) -> Sequence[FeatureArray]:
    """Rename ``rgb`` and ``flow`` to ``i3d_rgb`` and ``i3d_flow`` if the other side has only these."""
    streams = {array.stream for array in others}
    longer = {name: f"i3d_{name}" for name in ("rgb", "flow") if name not in streams and f"i3d_{name}" in streams}
    longer = {name: long for name, long in longer.items() if long not in {array.stream for array in arrays}}
    return [replace(array, stream=longer.get(array.stream, array.stream)) for array in arrays]


def _comparison(one: FeatureArray, other: FeatureArray, tolerance: float) -> Comparison:
    common = rows_at_common_times(one, other, tolerance)
    a, b = common.a, common.b
    rows_a, rows_b = as_rows(a, b)
    length = min(len(rows_a), len(rows_b))
    all_a, all_b = rows_a, rows_b
    rows_a, rows_b = rows_a[:length], rows_b[:length]
    is_comparable = rows_a.shape == rows_b.shape and bool(np.isfinite(rows_a).all() and np.isfinite(rows_b).all())
    error = relative_error(rows_a, rows_b) if is_comparable else None
    is_same = a.shape == b.shape and error is not None and error <= tolerance and not common.note
    return Comparison(
        video_id=one.video_id,
        stream=one.stream,
        shape_a=common.shape_a,
        shape_b=common.shape_b,
        cosines=tuple(map(float, cosines(rows_a, rows_b))) if is_comparable else (),
        max_error=float(np.abs(rows_a - rows_b).max(initial=0)) if is_comparable else None,
        relative_error=error,
        explanation=None if is_same else _diagnosed([(one, other)], [common], tolerance),
        offsets=nearest_offsets(all_a, all_b) if is_comparable and not is_same else (),
    )


def _diagnosed(
    pairs: Sequence[tuple[FeatureArray, FeatureArray]], rows: Sequence[CommonRows], tolerance: float
) -> Explanation:
    """Return the cause of a difference. The times of the rows and the recorded resize are taken into account."""
    arrays = [(each.a, each.b) for each in rows]
    note = next((each.note for each in rows if each.note), "")
    if note and all(each.is_reduced for each in rows) and all(agree(*as_rows(*pair), tolerance) for pair in arrays):
        return Explanation("other-times", f"the rows of the same time agree; {note}")
    found = diagnose_together(arrays, tolerance)
    resizes = {(one.resize, other.resize) for one, other in pairs}
    if found.cause in ("arithmetic", "quantization", "unexplained") and len(resizes) == 1:
        found = resize_rounding([as_rows(*pair) for pair in arrays], *resizes) or found
    return replace(found, sentence=f"{found.sentence} ({note})") if note else found
