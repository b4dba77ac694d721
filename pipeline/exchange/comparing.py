"""Two sets of features side by side: which videos both have, how near their rows are, and why they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...manifests.errors import ManifestError
from .diagnosing import as_rows, diagnose, diagnose_together
from .feature_arrays import FeatureArray
from .row_distances import Finding, cosines, relative_error

MAX_POOLED = 32
"""Videos whose evidence is put together: some thousand rows, which tell as much as all of them."""
_NO_EVIDENCE = ("not-finite", "other-dim")


@dataclass(frozen=True)
class Pairing:
    """What two sides have in common, by (video, stream), and what only one of them has."""

    pairs: tuple[tuple[FeatureArray, FeatureArray], ...]
    only_a: tuple[tuple[str, str], ...]
    only_b: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Comparison:
    """One (video, stream) of both sides. Numbers are over the segments that both have, in their order."""

    video_id: str
    stream: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    cosines: tuple[float, ...]
    """One for each segment; empty where the rows have other lengths or hold what is no number."""
    max_error: float | None
    relative_error: float | None
    """Largest difference over the largest number of either side."""
    finding: Finding | None
    """None where the two are the same: of one shape, and within the tolerance."""

    @property
    def same(self) -> bool:
        return self.finding is None


@dataclass(frozen=True)
class Verdict:
    """One stream over all its videos."""

    stream: str
    num_videos: int
    num_different: int
    diagnoses: Mapping[str, int]
    """Of the videos that differ, taken one by one: diagnosis → videos, the most frequent first."""
    largest_error: float | None
    """Relative; None where no two arrays could be compared."""
    finding: Finding | None
    """Of the videos that differ, taken together; None where none does."""
    num_together: int


def paired(a: Sequence[FeatureArray], b: Sequence[FeatureArray]) -> Pairing:
    """Matched by video id and stream; a side whose files do not say their stream takes the other's only one.

    ManifestError where that is ambiguous, or nothing is in common.
    """
    a, b = _named_like(a, b), _named_like(b, a)
    by_name_a = {(array.video_id, array.stream): array for array in a}
    by_name_b = {(array.video_id, array.stream): array for array in b}
    common = [name for name in by_name_a if name in by_name_b]
    if not common:
        first_a, first_b = next(iter(by_name_a)), next(iter(by_name_b))
        raise ManifestError(
            f"nothing is on both sides: A has {len(by_name_a)}, as {first_a}; B has {len(by_name_b)}, as "
            f"{first_b}; do the ids agree? --stream and --name tell what the streams are"
        )
    return Pairing(
        tuple((by_name_a[name], by_name_b[name]) for name in common),
        tuple(name for name in by_name_a if name not in by_name_b),
        tuple(name for name in by_name_b if name not in by_name_a),
    )


def compared(pairs: Sequence[tuple[FeatureArray, FeatureArray]], tolerance: float) -> Iterator[Comparison]:
    """Pair by pair; ``tolerance`` bounds the relative error of the same. StoreError for a damaged file."""
    for one, other in pairs:
        yield _comparison(one, other, tolerance)


def verdicts(
    pairs: Sequence[tuple[FeatureArray, FeatureArray]], found: Sequence[Comparison], tolerance: float
) -> list[Verdict]:
    """One for each stream; ``found`` is what `compared` said of ``pairs``. Reads some of the arrays once more."""
    return [
        _verdict([(pair, one) for pair, one in zip(pairs, found, strict=True) if one.stream == stream], tolerance)
        for stream in dict.fromkeys(one.stream for one in found)
    ]


def _verdict(of_stream: Sequence[tuple[tuple[FeatureArray, FeatureArray], Comparison]], tolerance: float) -> Verdict:
    different = [(pair, one) for pair, one in of_stream if not one.same]
    counts = Counter(one.finding.name for _, one in different if one.finding)
    errors = [one.relative_error for _, one in of_stream if one.relative_error is not None]
    telling = [pair for pair, one in different if one.finding and one.finding.name not in _NO_EVIDENCE]
    chosen = _spread(telling or [pair for pair, _ in different])
    return Verdict(
        stream=of_stream[0][1].stream,
        num_videos=len(of_stream),
        num_different=len(different),
        diagnoses=dict(counts.most_common()),
        largest_error=max(errors, default=None),
        finding=diagnose_together([(a.load(), b.load()) for a, b in chosen], tolerance) if chosen else None,
        num_together=len(chosen),
    )


def _spread(
    pairs: Sequence[tuple[FeatureArray, FeatureArray]],
) -> Sequence[tuple[FeatureArray, FeatureArray]]:
    """At most `MAX_POOLED` of them, from the first to the last."""
    if len(pairs) <= MAX_POOLED:
        return pairs
    return [pairs[index] for index in np.linspace(0, len(pairs) - 1, MAX_POOLED).round().astype(int)]


def _named_like(arrays: Sequence[FeatureArray], others: Sequence[FeatureArray]) -> Sequence[FeatureArray]:
    if all(array.stream for array in arrays):
        return arrays
    streams = {array.stream for array in others}
    if len(streams) != 1:
        raise ManifestError(
            f"{arrays[0].file}: this format does not say which stream it holds; tell with --stream, one of "
            f"{', '.join(sorted(streams))}"
        )
    return [replace(array, stream=next(iter(streams))) for array in arrays]


def _comparison(one: FeatureArray, other: FeatureArray, tolerance: float) -> Comparison:
    a, b = one.load(), other.load()
    rows_a, rows_b = as_rows(a, b)
    length = min(len(rows_a), len(rows_b))
    rows_a, rows_b = rows_a[:length], rows_b[:length]
    is_comparable = rows_a.shape == rows_b.shape and bool(np.isfinite(rows_a).all() and np.isfinite(rows_b).all())
    error = relative_error(rows_a, rows_b) if is_comparable else None
    is_same = a.shape == b.shape and error is not None and error <= tolerance
    return Comparison(
        video_id=one.video_id,
        stream=one.stream,
        shape_a=a.shape,
        shape_b=b.shape,
        cosines=tuple(map(float, cosines(rows_a, rows_b))) if is_comparable else (),
        max_error=float(np.abs(rows_a - rows_b).max(initial=0)) if is_comparable else None,
        relative_error=error,
        finding=None if is_same else diagnose(a, b, tolerance),
    )
