"""The features of one video and one stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ...manifests.optional_packages import require_package
from .html import html_table

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingTypeStubs]


class MaskedFeatures(NamedTuple):
    """The features of all segments of one video and one stream, masked segments included."""

    values: NDArray[np.float32]
    """Shape of `StreamFeatures.values`; zeros for masked segments."""
    present: NDArray[np.bool_]
    """``[segments]``: False for masked segments."""
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class StreamFeatures:
    """The features of one video and one stream: one row for each segment of the video.

    ``numpy.asarray(features)`` gives the values, ``len(features)`` the number of segments.

    Attributes:
        video_id: The video's id in its store.
        stream: The stream's name in the recipe.
        values: float32 ``[segments, dim]``; of a stream with ``output = "time"`` ``[segments, time, dim]``, with
            ``"map"`` ``[segments, time, height, width, dim]``, without time for a network on single frames.
        start_s: float64 ``[segments]``: when each segment starts, in seconds since the first frame.
        end_s: float64 ``[segments]``: when each segment ends.
        key: Digest of the video's bytes, the stream's settings, its checkpoints and the extractor's version.
        content_digest: SHA-256 of the video's bytes.
        outcome: ``done``, or ``partial`` if parts of the video cannot be decoded.
        provenance: Facts about the computation, such as device, decoder and versions.
        extractor: The extractor's name in the recipe; empty for imported features.
        holes: ``(start_s, end_s)`` of the parts that cannot be decoded; segments in them have no row.

    Example:
        >>> import arabesque
        >>> motion = arabesque.extract("routine.mp4", recipe="starter")["motion"]
        >>> motion.values.shape == (len(motion), len(motion.names))
        True
        >>> motion.names[:2]
        ('body_flow.body.still', 'body_flow.body.slow_right')
        >>> list(motion.to_pandas().columns[:3])
        ['start_s', 'end_s', 'body_flow.body.still']
    """

    video_id: str
    stream: str
    values: NDArray[np.float32]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    key: str
    content_digest: str
    outcome: str
    provenance: Mapping[str, str]
    extractor: str = ""
    holes: tuple[tuple[float, float], ...] = field(default=())

    @property
    def source_offset_s(self) -> float:
        """Time of the first frame of a clip in its file: ``start_s + source_offset_s`` are times in the file.

        0 for a whole file.
        """
        return float(self.provenance.get("offset_s", 0.0))

    @property
    def masked_s(self) -> NDArray[np.float64]:
        """``[masked segments, 2]``: start and end of the segments that touch an excluded stretch of a clip.

        These segments have no row. There are none unless the table of clips has ``exclude = mask``.
        """
        if "masked_s" not in self.provenance:
            return np.empty((0, 2))
        return np.array(json.loads(self.provenance["masked_s"]), np.float64).reshape(-1, 2)

    def with_masked(self) -> MaskedFeatures:
        """Return the features of all segments, with zeros and a mask for segments that touch an excluded stretch.

        Without such segments, the arrays are those of the features and not copies.

        Example:
            >>> import arabesque
            >>> motion = arabesque.open_store("features")["routine"]["motion"].with_masked()
            >>> motion.present.all()
            True
        """
        masked_s = self.masked_s
        if not len(masked_s) and bool((np.diff(self.start_s) >= 0).all()):
            return MaskedFeatures(self.values, np.ones(len(self), bool), self.start_s, self.end_s)
        order = np.argsort(np.concatenate([self.start_s, masked_s[:, 0]]), kind="stable")
        return MaskedFeatures(
            values=np.concatenate([self.values, np.zeros((len(masked_s), *self.values.shape[1:]), np.float32)])[order],
            present=order < len(self),
            start_s=np.concatenate([self.start_s, masked_s[:, 0]])[order],
            end_s=np.concatenate([self.end_s, masked_s[:, 1]])[order],
        )

    @property
    def names(self) -> tuple[str, ...] | None:
        """The name of each feature, in the order of the columns of ``values``; None for a network's features."""
        if not self.extractor:
            return None
        from ...extractors.table import feature_names

        names = feature_names(self.extractor)
        return names if names is not None and self.values.shape[1:] == (len(names),) else None

    @property
    def row_means(self) -> NDArray[np.float32]:
        """float32 ``[segments, dim]``: the mean over the axes between segments and features, if there are any."""
        inner = tuple(range(1, self.values.ndim - 1))
        return self.values.mean(axis=inner, dtype=np.float64).astype(np.float32) if inner else self.values

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with one row for each segment.

        Returns:
            Columns ``start_s``, ``end_s``, then one for each feature: its name, or ``STREAM_0``, ``STREAM_1``, …

        Raises:
            MissingPackageError: pandas is not installed.
            ValueError: A segment has more than one row; use ``values`` or ``row_means``.
        """
        require_package("pandas", "a table of pandas")
        import pandas  # pyright: ignore[reportMissingTypeStubs]

        if self.values.ndim != 2:
            raise ValueError(
                f"stream {self.stream!r}: a segment has {self._shape} values, which are not one row of a table; use "
                "values, or row_means for their mean"
            )
        names = self.names or [f"{self.stream}_{index}" for index in range(self.values.shape[1])]
        times = pandas.DataFrame({"start_s": self.start_s, "end_s": self.end_s})
        table = pandas.concat([times, pandas.DataFrame(self.values, columns=list(names))], axis=1)
        return table.rename_axis(index="segment")

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"StreamFeatures({self.video_id!r}, {self.stream!r}: {self._summary()})"

    def _repr_html_(self) -> str:
        names = self.names
        header = ("segment", "start_s", "end_s", *(names[:4] if names else map(str, range(min(4, self._dim)))))
        rows = (
            (index, f"{self.start_s[index]:.2f}", f"{self.end_s[index]:.2f}", *(f"{x:.4g}" for x in row.ravel()[:4]))
            for index, row in enumerate(self.values[:5])
        )
        return html_table(f"{self.video_id}, {self.stream}: {self._summary()}", header, rows)

    @property
    def _dim(self) -> int:
        return self.values.shape[-1] if self.values.ndim > 1 else 0

    @property
    def _shape(self) -> str:
        """Shape of a segment's features, such as ``7 × 1024``."""
        return " × ".join(map(str, self.values.shape[1:] or (0,)))

    def _summary(self) -> str:
        until = f"{self.start_s[0]:.1f} to {self.end_s[-1]:.1f} s, " if len(self.start_s) else ""
        return f"{len(self)} segment{'s' * (len(self) != 1)} × {self._shape} features, {until}{self.outcome}"
