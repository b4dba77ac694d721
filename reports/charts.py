"""Charts as SVG text. Their colors come from the style sheet, which has a light and a dark scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

WIDTH, HEIGHT = 640, 300
MARGIN_LEFT, MARGIN_BOTTOM, MARGIN_TOP, MARGIN_RIGHT = 56, 40, 14, 14
MAX_POINTS = 3000
"""Maximum number of points in a scatter plot; of more videos, evenly spaced ones are drawn"""
MAX_CURVE_POINTS = 600


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot."""

    x: float
    y: float
    label: str
    href: str = ""
    groups: Mapping[str, str] | None = None
    """Coloring → class of the point"""
    low: float | None = None
    high: float | None = None
    """Interval of y"""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers between two limits."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """Format a number of an axis or a table with three significant digits, without an exponent if this is short."""
    if not math.isfinite(value):
        return "–"
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.1e}"
    shown = f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))) if value else 0)}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


class _Axes:
    """Maps values to pixels and draws the axes."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        width: int = WIDTH,
        height: int = HEIGHT,
        left: int = MARGIN_LEFT,
    ) -> None:
        self.x, self.y = (_widened(*limits) for limits in (x, y))
        self.width, self.height, self.left = width, height, left

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(self.left + across * (self.width - self.left - MARGIN_RIGHT), 1),
            round(self.height - MARGIN_BOTTOM - up * (self.height - MARGIN_BOTTOM - MARGIN_TOP), 1),
        )

    def drawn(self, x_title: str, y_title: str, *, x_ticks: bool = True) -> str:
        parts: list[str] = []
        for value in ticks(*self.y):
            (left, at), (right, _) = self.place(self.x[0], value), self.place(self.x[1], value)
            parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at}" y2="{at}"/>')
            parts.append(f'<text class="tick end" x="{left - 6}" y="{at + 4}">{number(value)}</text>')
        for value in ticks(*self.x) if x_ticks else ():
            at, bottom = self.place(value, self.y[0])
            parts.append(f'<text class="tick mid" x="{at}" y="{bottom + 16}">{number(value)}</text>')
        left, bottom = self.place(self.x[0], self.y[0])
        right, top = self.place(self.x[1], self.y[1])
        parts.append(f'<line class="axis" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
        parts.append(f'<text class="title mid" x="{(left + right) / 2}" y="{self.height - 5}">{escape(x_title)}</text>')
        middle = (top + bottom) / 2
        parts.append(f'<text class="title mid" transform="rotate(-90)" x="{-middle}" y="13">{escape(y_title)}</text>')
        return "".join(parts)


def histogram(values: ArrayLike, title: str, unit: str, *, bins: int = 25) -> Markup:
    """Return a histogram of values with a title that states count, range and median."""
    known = np.asarray(values, np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return Markup("")
    low, high = float(known.min()), float(known.max())
    are_equal = high - low <= 1e-6 * max(
        abs(low), abs(high)
    )  # equal except for rounding, e.g. frame rates: one narrow bar
    margin = max(0.5, abs(low) / 4) if are_equal else 0.0
    counts, edges = np.histogram(known, bins=bins, range=(low - margin, high + margin))
    axes = _Axes((edges[0], edges[-1]), (0, float(counts.max())), 420, 200)
    bars: list[str] = []
    for count, start, end in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            (x1, top), (x2, bottom) = axes.place(start, count), axes.place(end, 0)
            shown = f"{number(start)} to {number(end)} {unit}: {count}"
            bars.append(
                f'<rect class="bar" x="{x1}" y="{top}" width="{max(1, x2 - x1 - 1):.1f}" height="{bottom - top:.1f}">'
                f"<title>{escape(shown)}</title></rect>"
            )
    middle = number(float(np.median(known)))
    spoken = f"{title}: {len(known)} videos, {number(low)} to {number(high)} {unit}, median {middle}"
    return _svg(axes, axes.drawn(unit, "videos") + "".join(bars), spoken)


def scatter(
    points: Sequence[Point], x_title: str, y_title: str, spoken: str, *, diagonal: bool = False, color: str = ""
) -> Markup:
    """Return a scatter plot whose points link to pages.

    Args:
        points: The points; of more than `MAX_POINTS`, evenly spaced ones are drawn.
        x_title: Title of the horizontal axis.
        y_title: Title of the vertical axis.
        spoken: Description of the chart for screen readers.
        diagonal: Draw the line of equal values, with equal axes.
        color: Initial coloring, a key of `Point.groups`.
    """
    if not points:
        return Markup("")
    chosen = points
    if len(points) > MAX_POINTS:
        chosen = [points[int(place)] for place in np.linspace(0, len(points) - 1, MAX_POINTS).round()]
    across = [point.x for point in chosen]
    up = [value for point in chosen for value in (point.y, point.low, point.high) if value is not None]
    limits = (min(across), max(across)), (min(up), max(up))
    if diagonal:
        limits = ((min(map(min, limits)), max(map(max, limits))),) * 2
    axes = _Axes(_padded(*limits[0]), _padded(*limits[1]))
    parts: list[str] = []
    if diagonal:
        (x1, y1), (x2, y2) = axes.place(axes.x[0], axes.x[0]), axes.place(axes.x[1], axes.x[1])
        parts.append(f'<line class="diagonal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
    for point in chosen:
        x, y = axes.place(point.x, point.y)
        groups = "".join(f' data-{name}="{escape(group)}"' for name, group in (point.groups or {}).items())
        drawn = f'<circle class="dot" cx="{x}" cy="{y}" r="4.5"{groups}/>'
        if point.low is not None and point.high is not None:
            (_, low), (_, high) = axes.place(point.x, point.low), axes.place(point.x, point.high)
            drawn = f'<line class="interval" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>{drawn}'
        drawn = f"<g><title>{escape(point.label)}</title>{drawn}</g>"
        parts.append(f'<a href="{escape(point.href)}" tabindex="-1">{drawn}</a>' if point.href else drawn)
    return _svg(axes, axes.drawn(x_title, y_title) + "".join(parts), spoken, color)


def bars(
    values: Sequence[tuple[str, float]], title: str, y_title: str, spoken: str, *, line: float | None = None
) -> Markup:
    """Return vertical bars with a name below each, and a line such as the value of a uniform distribution."""
    highest = max([value for _, value in values] + [line or 0.0])
    axes = _Axes((0, len(values)), (0, highest or 1.0), 420, 220)
    parts: list[str] = []
    for index, (name, value) in enumerate(values):
        (x1, top), (x2, bottom) = axes.place(index + 0.15, value), axes.place(index + 0.85, 0)
        parts.append(
            f'<rect class="bar" x="{x1}" y="{top}" width="{x2 - x1:.1f}" height="{bottom - top:.1f}">'
            f"<title>{escape(name)}: {number(value)}</title></rect>"
            f'<text class="tick mid" x="{(x1 + x2) / 2:.1f}" y="{bottom + 16}">{escape(name)}</text>'
        )
    if line is not None:
        (x1, y), (x2, _) = axes.place(0, line), axes.place(len(values), line)
        parts.append(f'<line class="reference" x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text class="tick end" x="{x2}" y="{y - 5}">uniform</text>')
    return _svg(axes, axes.drawn(title, y_title, x_ticks=False) + "".join(parts), spoken)


DOTS_WIDTH_PX = 420
DOTS_LABEL_PX = 45
"""Least distance of the label of the line from both edges, so that it is not cut off"""


def dots(
    series: Sequence[tuple[str, Sequence[float]]],
    limits: tuple[float, float],
    spoken: str,
    *,
    line: float | None = None,
) -> Markup:
    """Return one row of dots for each series on a common axis, and a vertical line such as a printed number."""
    height = MARGIN_TOP + MARGIN_BOTTOM + 22 * len(series)
    axes = _Axes(_padded(*_widened(*limits)), (0, len(series)), DOTS_WIDTH_PX, height, left=90)
    parts: list[str] = []
    for value in ticks(*axes.x):
        at, bottom = axes.place(value, 0)
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{MARGIN_TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="tick mid" x="{at}" y="{bottom + 16}">{number(value)}</text>')
    for index, (name, values) in enumerate(series):
        _, middle = axes.place(0, len(series) - index - 0.5)
        parts.append(f'<text class="tick" x="0" y="{middle + 4}">{escape(name)}</text>')
        for value in values:
            x, _ = axes.place(value, 0)
            parts.append(f'<circle class="dot" cx="{x}" cy="{middle}" r="4.5"><title>{value:.3f}</title></circle>')
    if line is not None:
        at, bottom = axes.place(line, 0)
        parts.append(f'<line class="reference" x1="{at}" x2="{at}" y1="{MARGIN_TOP - 6}" y2="{bottom}"/>')
        label_at = min(max(at, DOTS_LABEL_PX), DOTS_WIDTH_PX - DOTS_LABEL_PX)
        parts.append(f'<text class="tick mid" x="{label_at}" y="{bottom + 32}">printed {line:.3f}</text>')
    return _svg(axes, "".join(parts), spoken)


def curve(times_s: ArrayLike, values: ArrayLike, duration_s: float, *, low: float, high: float) -> Markup:
    """Return a curve over the whole width of a time line, as an area from the lower limit to the values.

    Values that are not finite are gaps. More than `MAX_CURVE_POINTS` values are replaced by maxima of groups of equal
    size.
    """
    at_s, heights = np.asarray(times_s, np.float64), np.asarray(values, np.float64)
    if len(at_s) > MAX_CURVE_POINTS:
        edges = np.linspace(0, len(at_s), MAX_CURVE_POINTS + 1).astype(int)[:-1]
        at_s, heights = at_s[edges], np.fmax.reduceat(heights, edges)
    span = high - low if high > low else 1.0
    shares = np.clip((heights - low) / span, 0, 1)
    parts: list[str] = []
    for run in _finite_runs(heights):
        x = 1000 * at_s[run] / max(duration_s, 1e-9)
        y = 98 - 96 * shares[run]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
        parts.append(f'<polygon class="area" points="{x[0]:.1f},100 {path} {x[-1]:.1f},100"/>')
        parts.append(f'<polyline class="curve" points="{path}"/>')
    return Markup(_track("".join(parts)))


def band(low: float, high: float, limits: tuple[float, float]) -> Markup:
    """Return a horizontal band over the whole width of a time line, behind a curve with the same limits."""
    span = limits[1] - limits[0] if limits[1] > limits[0] else 1.0
    top, bottom = (98 - 96 * min(1.0, max(0.0, (value - limits[0]) / span)) for value in (high, low))
    return Markup(
        _track(f'<rect class="band" x="0" width="1000" y="{top:.1f}" height="{max(0.5, bottom - top):.1f}"/>')
    )


def marks(times_s: ArrayLike, duration_s: float) -> Markup:
    """Return vertical lines at times of a time line."""
    lines = "".join(
        f'<line class="beat" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="100"/>'
        for x in (1000 * np.asarray(times_s, np.float64) / max(duration_s, 1e-9)).tolist()
    )
    return Markup(_track(lines))


def _track(content: str) -> str:
    return (
        f'<svg class="track-svg" viewBox="0 0 1000 100" preserveAspectRatio="none" aria-hidden="true">{content}</svg>'
    )


def _finite_runs(values: NDArray[np.float64]) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.isfinite(values), [False]]).astype(np.int8)))
    return [slice(first, last) for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)]


def _svg(axes: _Axes, content: str, spoken: str, color: str = "") -> Markup:
    shown = f' data-color="{escape(color)}"' if color else ""
    return Markup(
        f'<svg class="chart" viewBox="0 0 {axes.width} {axes.height}" role="img" aria-label="{escape(spoken)}"{shown}>'
        f"{content}</svg>"
    )


def _widened(low: float, high: float) -> tuple[float, float]:
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = 0.05 * (high - low)
    return low - margin, high + margin
