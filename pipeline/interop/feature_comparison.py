"""Compare two sets of features in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ...manifests.errors import StoreError
from ...manifests.optional_packages import require_package
from ..store.files.storage import StorePath
from ..store.html import html_table
from .comparing import Comparison, Verdict, compared, paired, verdicts
from .documented import aligned, documented_streams, unknown_settings
from .feature_files import of_stream, opened
from .stored_settings import SettingDifference, setting_differences

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs]

DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True, repr=False)
class FeatureComparison:
    """Result of the comparison of two sets of features, A and B.

    Attributes:
        pairs: One result for each video and stream that both sides have.
        streams: One result for each stream.
        settings: Stream → settings that differ; only for streams whose settings both sides record.
        only_a: (video id, stream) that only A has.
        only_b: (video id, stream) that only B has.
        tolerance: Largest relative error of features that count as the same.
        common: Whether videos that only one side has are ignored.
        published: Name of the released features that B was compared with; empty if it was not given.
        unknown: Stream → settings of the released features that are not documented.
    """

    pairs: tuple[Comparison, ...]
    streams: tuple[Verdict, ...]
    settings: Mapping[str, tuple[SettingDifference, ...]]
    only_a: tuple[tuple[str, str], ...]
    only_b: tuple[tuple[str, str], ...]
    tolerance: float
    common: bool
    published: str = ""
    unknown: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])

    @property
    def same(self) -> bool:
        """Whether all features are the same and, unless ``common`` is set, both sides have the same videos."""
        return all(pair.same for pair in self.pairs) and (self.common or not (self.only_a or self.only_b))

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with one row for each video and stream: whether it is the same, errors and the diagnosis."""
        require_package("pandas", "a table of pandas")
        import pandas  # pyright: ignore[reportMissingTypeStubs]

        rows = [
            {
                "video_id": pair.video_id,
                "stream": pair.stream,
                "same": pair.same,
                "relative_error": pair.relative_error,
                "max_error": pair.max_error,
                "diagnosis": None if pair.explanation is None else pair.explanation.cause,
            }
            for pair in self.pairs
        ]
        return pandas.DataFrame(rows)

    def __repr__(self) -> str:
        different = sum(not pair.same for pair in self.pairs)
        lone = len(self.only_a) + len(self.only_b)
        return (
            f"FeatureComparison({'same' if self.same else 'different'}: {different} of {len(self.pairs)} differ, "
            f"{lone} on one side only)"
        )

    def _repr_html_(self) -> str:
        rows = (
            (
                one.stream,
                one.num_videos,
                one.num_different,
                "" if one.largest_error is None else f"{one.largest_error:.1e}",
                "" if one.explanation is None else one.explanation.sentence,
            )
            for one in self.streams
        )
        return html_table(repr(self), ("stream", "videos", "different", "largest relative error", "explanation"), rows)


def compare_features(
    a: StorePath,
    b: StorePath,
    *,
    stream: str | None = None,
    names: Mapping[str, str] | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    common: bool = False,
    format_a: str | None = None,
    format_b: str | None = None,
    trust: bool = False,
    published: str | None = None,
    on_pair: Callable[[int, int], None] | None = None,
) -> FeatureComparison:
    """Compare two sets of features, video by video and stream by stream.

    Args:
        a: A feature store, or a file or folder of features in any supported format.
        b: The other set of features.
        stream: Compare this stream only. Files of formats without stream names get this name.
        names: Stream → its label in the files, if it is unusual.
        tolerance: Largest relative error of features that count as the same: largest difference ÷ largest value.
        common: Ignore videos that only one side has.
        format_a: Format of A; by default it is detected.
        format_b: Format of B.
        trust: Unpickle with the standard library, which executes code of the files.
        published: Name of released features, such as ``actionformer-i3d``, or of a recipe, that B was made with. Its
            rows then get the documented streams and times, and the settings of A are compared with the documented ones.
        on_pair: Called with the number of compared pairs and the number of all pairs.

    Raises:
        StoreError: A file is damaged or not trusted.
        InputError: A path has no features, or both sides have nothing in common.
        ConfigError: There are no released features and no recipe of this name.
    """
    if published is not None:
        documented_streams(published)  # an unknown name is an error before files are read
    with (
        opened(a, format_a, trust=trust, names=names) as side_a,
        opened(b, format_b, trust=trust, names=names) as side_b,
    ):
        for problem in (*side_a.problems, *side_b.problems):
            raise StoreError(problem)
        known = None
        if published is not None:
            known = aligned(published, side_a, side_b)
            side_a, side_b = replace(side_a, arrays=known.a), replace(side_b, arrays=known.b)
            stream = known.names.get(stream, stream) if stream is not None else None
        pairing = paired(of_stream(side_a, stream), of_stream(side_b, stream))
        found: list[Comparison] = []
        for one in compared(pairing.pairs, tolerance):
            found.append(one)
            if on_pair is not None:
                on_pair(len(found), len(pairing.pairs))
        streams = verdicts(pairing.pairs, found, tolerance)
    if known is None:
        settings = {
            one.stream: tuple(setting_differences(side_a.settings[one.stream], side_b.settings[one.stream]))
            for one in streams
            if one.stream in side_a.settings and one.stream in side_b.settings
        }
    else:
        found_settings = {one.stream: known.differences(one.stream) for one in streams}
        settings = {name: tuple(each) for name, each in found_settings.items() if each is not None}
    return FeatureComparison(
        pairs=tuple(found),
        streams=tuple(streams),
        settings=settings,
        only_a=pairing.only_a,
        only_b=pairing.only_b,
        tolerance=tolerance,
        common=common,
        published=published or "",
        unknown={} if known is None else unknown_settings(known.streams, [one.stream for one in streams]),
    )
