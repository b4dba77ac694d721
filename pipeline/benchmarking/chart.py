"""A benchmark's report as a picture: every stage alone, beside the run from end to end."""

from __future__ import annotations

from pathlib import Path

from .report import Report, StageCost


def draw_chart(report: Report, path: Path) -> None:
    """Writes a PNG, or what else the suffix asks for; ``ValueError`` for one that is no picture's."""
    from matplotlib.figure import Figure

    costs = list(report.stages)
    figure = Figure(figsize=(9, 1.8 + 0.32 * len(costs)), layout="constrained")
    axes = figure.add_subplot()
    rates = [cost.video_s_per_s for cost in costs]
    colours = ["#9db8d9" if cost.stream else "#3b6ea5" for cost in costs]
    bars = axes.barh([_label(cost) for cost in costs], rates, color=colours)
    axes.bar_label(bars, [f"{rate:,.3g}" if rate < 100 else f"{rate:,.0f}" for rate in rates], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(*rates, report.video_s_per_s) / 2, 4 * max(rates))
    axes.set_xlabel("seconds of video per second (each stage alone)")
    axes.axvline(report.video_s_per_s, color="#c0392b", label=f"end to end: {report.video_s_per_s:,.3g}")
    cores = report.bounds.cores_video_s_per_s
    if cores is not None:
        label = f"all stages' work on {report.cores} cores: {cores:,.3g}"
        axes.axvline(cores, color="#7f7f7f", linestyle="--", label=label)
    axes.set_title(
        f"{report.recipe} on {report.device}: speed-of-light ratio {report.speed_of_light_ratio:.2f}, "
        f"to the lower bound {report.shared_cores_ratio:.2f}",
        fontsize=10,
    )
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, dpi=130)


def _label(cost: StageCost) -> str:
    return f"{cost.stage} · {cost.stream}" if cost.stream else cost.stage
