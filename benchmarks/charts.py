"""Charts of docs/measurements.md in one style: a title, values at their bars, aims as dashed lines.

Colors are Okabe and Ito's, which most color-blind people can distinguish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE, GREEN, SKY, VERMILION, GRAY = "#0072B2", "#E69F00", "#009E73", "#56B4E9", "#D55E00", "#8C8C8C"
PALE = "#B9CFE0"
"""Color of earlier and reference values."""
WIDTH_IN, DPI = 8.0, 110
SMALL = 8.5
ON_WHITE: Any = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
"""Background of numbers, so that they are legible on lines."""
Rows = Mapping[str, Mapping[str, float]]
"""Row → series → value; a series may be missing from a row."""


@contextmanager
def picture(
    path: Path, title: str, found: Mapping[str, Any], height_in: float, panels: int = 1
) -> Iterator[list[Axes]]:
    """Yield panels side by side, and write the file when the block ends. ``found`` has figures and circumstances."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
    panes = list(figure.subplots(1, panels, squeeze=False)[0])
    for axes in panes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    yield panes
    for axes in panes:
        if axes.get_legend() is None:
            _legend(axes)
    figure.supxlabel(footer(found), x=0.988, ha="right", fontsize=7.5, color=GRAY)
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=DPI)
    Image.open(drawn).convert("RGB").quantize(64).save(path, format="png", optimize=True)


def footer(found: Mapping[str, Any]) -> str:
    others = found.get("others_cores")
    busy = "" if others is None else "nothing else running" if others < 0.1 else f"others kept {others:.1f} cores busy"
    cores = f"{found['cores']} cores" if "cores" in found else ""
    parts = [found.get("processor"), cores, busy, found.get("date"), found.get("commit")]
    return " · ".join(str(part) for part in parts if part)


def bars(
    axes: Axes,
    rows: Rows,
    unit: str,
    *,
    colors: Mapping[str, str],
    told: Callable[[float], str] = "{:.3g}".format,
    notes: Mapping[tuple[str, str], str] | None = None,
    room: float = 1.18,
) -> None:
    """Draw horizontal bars in groups, the first row on top. ``notes``: (row, series) → text after the value."""
    thick = 0.8 / max(map(len, rows.values()))
    for series, color in colors.items():
        named = [(place, name, list(row)) for place, (name, row) in enumerate(rows.items()) if series in row]
        places = [place + (kinds.index(series) - (len(kinds) - 1) / 2) * thick for place, _, kinds in named]
        values = [rows[name][series] for _, name, _ in named]
        shown = series if len(colors) > 1 else "_"
        drawn = axes.barh(places, values, 0.92 * thick, color=color, label=shown)
        labels = [told(rows[name][series]) + (notes or {}).get((name, series), "") for _, name, _ in named]
        axes.bar_label(drawn, labels, padding=3, fontsize=SMALL, bbox=ON_WHITE)
    _frame(axes, list(rows), unit, room * max(value for row in rows.values() for value in row.values()))


def stacks(
    axes: Axes,
    rows: Rows,
    unit: str,
    *,
    colors: Mapping[str, str],
    told: Callable[[float], str] = "{:.3g}".format,
    notes: Mapping[str, str] | None = None,
    named: bool = True,
    room: float = 1.12,
) -> None:
    """Draw the series of each row as stacked bars, with their sum. ``notes``: row → text after the sum."""
    for place, (name, row) in enumerate(rows.items()):
        left = 0.0
        for series, value in row.items():
            axes.barh(place, value, 0.62, left=left, color=colors[series], edgecolor="white", linewidth=0.8)
            left += value
        label = told(left) + (notes or {}).get(name, "")
        axes.annotate(
            label, (left, place), (3, 0), textcoords="offset points", va="center", fontsize=SMALL, bbox=ON_WHITE
        )
    _frame(axes, list(rows), unit, room * max(sum(row.values()) for row in rows.values()))
    if named:
        for series in dict.fromkeys(series for row in rows.values() for series in row):
            axes.barh(0, 0, color=colors[series], label=series)


def lines(
    axes: Axes,
    series: Mapping[str, Sequence[tuple[float, float]]],
    across: str,
    up: str,
    *,
    colors: Sequence[str],
    at_ends: bool = True,
) -> None:
    """Draw lines with their names at the right ends (``at_ends``), or in a legend."""
    for (name, points), color in zip(series.items(), colors, strict=True):
        label = "_" if at_ends else name
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3.5, color=color, linewidth=1.8, label=label)
        if at_ends:
            end = {"textcoords": "offset points", "va": "center", "fontsize": SMALL}
            axes.annotate(name, points[-1], (6, 0), color=color, **end)
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.grid(axis="y", alpha=0.25)


def aim(axes: Axes, value: float, label: str, *, upright: bool = True) -> None:
    """Draw a dashed line across all rows (``upright``), or a horizontal one in a chart of lines."""
    draw = axes.axvline if upright else axes.axhline
    draw(value, color=VERMILION, linestyle=(0, (4, 3)), linewidth=1.4, label=label)


def _legend(axes: Axes) -> None:
    """Draw a legend above the panel if anything in it has a label."""
    if axes.get_legend_handles_labels()[1]:
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
        axes.legend(fontsize=SMALL, frameon=False, ncols=5, columnspacing=1.4, handlelength=1.6, **place)


def _frame(axes: Axes, names: Sequence[str], unit: str, right: float) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, right)
    axes.set_xlabel(unit, fontsize=9)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
