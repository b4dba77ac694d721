"""``arabesque extract --dry-run``, and what the run after it says of how far off that was."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..pipeline.benchmarking.forecast import Forecast
    from ..pipeline.benchmarking.forecast_file import Actual
    from ..pipeline.extraction import Extraction


def show_forecast(run: Extraction) -> None:
    """Measures, says what the run will take, and keeps that for the run."""
    from ..pipeline.benchmarking.forecast import forecast
    from ..pipeline.benchmarking.forecast_file import keep_forecast

    if not run.pending:
        print("nothing is left to do")
        return
    found = forecast(run, on_step=lambda step: print(f"{step} …", file=sys.stderr, flush=True))
    keep_forecast(run, found)
    _print_forecast(found)


def how_far_off(forecast: Forecast, actual: Actual) -> str:
    """One line: what was foreseen, what came, and the difference as a share of what was foreseen."""
    pairs = [
        ("time", forecast.time_s, actual.time_s, duration_text),
        ("memory", forecast.memory_bytes, actual.memory.total_bytes, size_text),
        ("GPU memory", forecast.device_bytes, actual.memory.device_bytes, size_text),
        ("disk", forecast.disk_bytes, actual.disk_bytes, size_text),
    ]
    told = [
        f"{name} {text(foreseen)}, was {text(was)} ({was / foreseen - 1:+.0%})"
        for name, foreseen, was, text in pairs
        if foreseen and was is not None
    ]
    return f"foreseen: {'; '.join(told)}"


def duration_text(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 20 s`` or ``12.3 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest_s:02d} s"


def size_text(num_bytes: float | None) -> str:
    """``1.2 GB``, ``34.5 MB``, ``6.4 kB``; a question mark where it is not known."""
    if num_bytes is None:
        return "?"
    unit, name = (1e9, "GB") if num_bytes >= 1e9 else (1e6, "MB") if num_bytes >= 1e6 else (1e3, "kB")
    return f"{num_bytes / unit:,.1f} {name}"


def _print_forecast(found: Forecast) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"recipe {found.recipe} on {found.device}", title_justify="left")
    table.add_column("stream")
    for heading in ("videos", "segments", "computing", "memory", "disk"):
        table.add_column(heading, justify="right")
    for name, stream in found.streams.items():
        sizes = (size_text(stream.memory_bytes), size_text(stream.disk_bytes))
        table.add_row(name, f"{stream.videos:,}", f"{stream.segments:,}", duration_text(stream.compute_s), *sizes)
    table.add_row("reading the videos", "", "", duration_text(found.reading_s), "", "")
    if found.fetching_s:
        table.add_row("fetching them, meanwhile", "", "", duration_text(found.fetching_s), "", "")
    Console().print(table)
    probed = "all of them probed" if found.num_probed == found.num_videos else f"by {found.num_probed} of them"
    print(f"{found.num_videos:,} videos, {duration_text(found.video_s)} long together, {probed}")
    if found.num_unreadable:
        print(f"{found.num_unreadable} of those probed cannot be read and are left out of account")
    gpu = "" if found.device_bytes is None else f", {size_text(found.device_bytes)} on the GPU"
    print(
        f"in all: {duration_text(found.time_s)}, of which {duration_text(found.setup_s)} to load and compile; "
        f"memory {size_text(found.memory_bytes)}{gpu}; disk {size_text(found.disk_bytes)}"
    )
