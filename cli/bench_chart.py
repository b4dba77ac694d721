"""Chart of a benchmark's report (``arabesque bench --chart``): isolated stages and the end-to-end run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..pipeline.benchmarking.report import Report, StageCost

WHOLE, PART, LINE, CORES = "#0072B2", "#B9CFE0", "#D55E00", "#8C8C8C"
"""Colors of Okabe and Ito, which most color-blind people can distinguish."""


def draw_chart(report: Report, path: Path) -> None:
    """Write the chart in the format of the path's suffix, e.g. PNG. Raises ``ValueError`` for an unknown suffix."""
    from matplotlib.figure import Figure

    costs = list(report.stages)
    # matplotlib's types of keyword arguments are incomplete
    figure: Any = Figure(figsize=(8, 1.9 + 0.27 * len(costs)), layout="constrained")
    axes = figure.add_subplot()
    rates = [cost.video_s_per_s for cost in costs]
    colors = [PART if cost.stream else WHOLE for cost in costs]
    axes.axvline(report.video_s_per_s, color=LINE, label=f"end to end: {report.video_s_per_s:,.3g}")
    cores = report.bounds.cores_video_s_per_s
    if cores is not None:
        label = f"all stages' work on {report.cores} cores: {cores:,.3g}"
        axes.axvline(cores, color=CORES, linestyle="--", label=label)
    bars = axes.barh([_label(cost) for cost in costs], rates, color=colors)
    labels = [f"{rate:,.3g}" if rate < 100 else f"{rate:,.0f}" for rate in rates]
    for label in axes.bar_label(bars, labels, padding=4, fontsize=8):
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xscale("log")
    axes.set_xlim(min(*rates, report.video_s_per_s) / 2, 4 * max(rates))
    axes.set_xlabel("seconds of video per second, each stage in isolation", fontsize=9)
    axes.tick_params(labelsize=9)
    title = (
        f"{report.recipe} on {report.device}: speed-of-light ratio {report.slowest_stage_ratio:.2f}, "
        f"to the lower bound {report.shared_cores_ratio:.2f}"
    )
    figure.suptitle(title, x=0.012, ha="left", fontsize=11, fontweight="bold")
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1.0), "borderaxespad": 0.2}
    axes.legend(ncols=2, fontsize=8.5, frameon=False, **place)
    figure.savefig(path, dpi=110)


def _label(cost: StageCost) -> str:
    return f"{cost.stage} · {cost.stream}" if cost.stream else cost.stage
