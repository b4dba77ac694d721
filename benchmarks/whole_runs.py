"""Tables and charts of several results of `arabesque bench --json`: speed of runs relative to their upper bounds.

    arabesque bench --recipe starter --json starter.json                        (likewise for other recipes)
    python benchmarks/whole_runs.py starter.json … --chart ratios.png --one-pass one_pass.png

``--one-pass`` draws the first file that was written with ``--one-by-one``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from charts import BLUE, GREEN, ON_WHITE, SKY, aim, bars, picture, stacks
from measured import Found, markdown, read, three

AIM_ON_CPU, AIM_ON_GPU, AIM_ONE_PASS = 0.85, 0.9, 0.75
COLUMNS = ("decode", "preprocess", "assemble", "prepare", "network")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", type=Path, nargs="+", metavar="JSON")
    parser.add_argument("--chart", type=Path, help="draw the speed-of-light ratios (.png)")
    parser.add_argument("--one-pass", type=Path, help="draw all streams in one pass against one by one (.png)")
    options = parser.parse_args(arguments)
    reports = [read(path) for path in options.reports]
    print(*table(reports), sep="\n")
    if options.chart is not None:
        draw_ratios(reports, options.chart)
    for report in [report for report in reports if "one_by_one" in report][:1]:
        print_one_by_one(report["one_by_one"])
        if options.one_pass is not None:
            draw_one_pass(report, options.one_pass)


def table(reports: Sequence[Found]) -> list[str]:
    ends = ("from end to end", "slowest stage alone", "speed-of-light ratio", "shared-cores ratio")
    rows: list[list[str]] = []
    for report in reports:
        costs = {cost["stage"]: cost["cpu_s"] for cost in report["stages"] if not cost["stream"]}
        told = [three(costs.pop(stage)) if costs[stage] >= 1 else f"{costs.pop(stage):.3f}" for stage in COLUMNS]
        rate, slowest = report["end_to_end_video_s_per_s"], report["slowest_bare_video_s_per_s"]
        ratios = [f"**{report['speed_of_light_ratio']:.2f}**", f"{report['shared_cores_ratio']:.2f}"]
        rates = [f"{three(rate)} video s/s", f"{report['slowest_stage']}, {three(slowest)}"]
        rows.append([f"`{report['recipe']}`", *told, f"{sum(costs.values()):.3f}", *rates, *ratios])
    return markdown(["CPU s for a second of video", *COLUMNS, "rest", *ends], rows)


def print_one_by_one(found: Found) -> None:
    told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found["streams_s"].items())
    print(
        f"one pass {found['one_pass_s']:.1f} s, one by one {found['sum_s']:.1f} s ({told}): "
        f"{found['one_pass_over_sum']:.3f}"
    )


def draw_ratios(reports: Sequence[Found], path: Path) -> None:
    rows = {report["recipe"]: {"": report["speed_of_light_ratio"]} for report in reports}
    notes = {(report["recipe"], ""): f"   {of_slowest(report)}" for report in reports}
    on_cpu = reports[0]["device"] == "cpu"
    least, machine = (AIM_ON_CPU, f"{reports[0]['cores']} CPU cores") if on_cpu else (AIM_ON_GPU, "a GPU")
    title = "A whole run goes at nearly the rate of its slowest stage alone"
    with picture(path, title, circumstances(reports), 2.6) as (axes,):
        bars(axes, rows, "speed-of-light ratio", colors={"": BLUE}, told="{:.2f}".format, notes=notes, room=1.55)
        aim(axes, least, f"aim: {least} on {machine}")


def of_slowest(report: Found) -> str:
    rate, slowest = report["end_to_end_video_s_per_s"], report["slowest_bare_video_s_per_s"]
    return f"{three(rate)} of {three(slowest)} video s/s ({report['slowest_stage']})"


def draw_one_pass(report: Found, path: Path) -> None:
    found = report["one_by_one"]
    streams = dict(sorted(found["streams_s"].items(), key=lambda one: -one[1]))
    colors = dict(zip(streams, [BLUE, SKY] * len(streams), strict=False))
    title = f"All {len(streams)} streams in one pass take {found['one_pass_over_sum']:.3f} of the time of one by one"
    unit = f"seconds for {report['video_s']:.0f} s of video"
    with picture(path, title, circumstances([report]), 2.5) as (axes,):
        rows = {"in one pass": {"": found["one_pass_s"]}, "one by one": streams}
        stacks(axes, rows, unit, colors=colors | {"": GREEN}, named=False)
        middles = dict(zip(streams, accumulate(streams.values()), strict=True))
        wide = [name for name, seconds in streams.items() if seconds > 0.07 * found["sum_s"]]
        for name in wide:
            words = {"color": "black" if colors[name] == SKY else "white", "fontsize": 8}
            axes.text(middles[name] - streams[name] / 2, 1, name, ha="center", va="center", **words)
        narrow = ", ".join(name for name in streams if name not in wide)
        axes.text(found["sum_s"], 1.36, f"the narrow ones: {narrow}", ha="right", va="top", fontsize=8, bbox=ON_WHITE)
        aim(axes, AIM_ONE_PASS * found["sum_s"], f"aim: {AIM_ONE_PASS} of the sum")


def circumstances(reports: Sequence[Found]) -> Found:
    """Return the circumstances of the report with the most other load."""
    all_of_them = [report.get("circumstances", {}) for report in reports]
    return max(all_of_them, key=lambda one: one.get("others_cores") or 0.0)


if __name__ == "__main__":
    main()
