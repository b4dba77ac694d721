"""``arabesque extract --dry-run``: estimate a run, and compare the estimate with the run that follows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..manifests.plurals import plural
from .console import print_json

if TYPE_CHECKING:
    from ..pipeline.benchmarking.estimate import Estimate
    from ..pipeline.benchmarking.estimate_file import Actual
    from ..pipeline.extraction import Extraction


_LOG = logging.getLogger(__name__)


def show_estimate(run: Extraction, *, as_json: bool = False) -> None:
    """Measure, print the estimate of the run, and save it for the comparison after the run."""
    from ..pipeline.benchmarking.estimate import estimate_run
    from ..pipeline.benchmarking.estimate_file import save_estimate

    if not run.remaining:
        if as_json:
            print_json(None)
        else:
            print("nothing remains to be done")
        return
    found = estimate_run(run, on_step=lambda step: _LOG.info(f"{step} …"))
    save_estimate(run, found)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print_estimate(found)


def estimate_error(estimate: Estimate, actual: Actual) -> str:
    """Return one line with estimated and actual values, and the differences relative to the estimate."""
    pairs = [
        ("time", estimate.time_s, actual.time_s, duration_text),
        ("memory", estimate.memory_bytes, actual.memory.total_bytes, size_text),
        ("GPU memory", estimate.device_bytes, actual.memory.device_bytes, size_text),
        ("disk", estimate.disk_bytes, actual.disk_bytes, size_text),
    ]
    errors = [
        f"{name} {text(estimated)}, actual {text(measured)} ({measured / estimated - 1:+.0%})"
        for name, estimated, measured, text in pairs
        if estimated and measured is not None
    ]
    return f"estimate: {'; '.join(errors)}"


def duration_text(seconds: float) -> str:
    """Format a duration: ``2 h 05 min``, ``3 min 20 s`` or ``12.3 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest_s:02d} s"


def size_text(num_bytes: float | None) -> str:
    """Format a size: ``1.2 GB``, ``34.5 MB``, ``6.4 kB``; ``?`` if it is unknown."""
    if num_bytes is None:
        return "?"
    unit, name = (1e9, "GB") if num_bytes >= 1e9 else (1e6, "MB") if num_bytes >= 1e6 else (1e3, "kB")
    return f"{num_bytes / unit:,.1f} {name}"


def _print_estimate(found: Estimate) -> None:
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
        table.add_row("fetching, in parallel", "", "", duration_text(found.fetching_s), "", "")
    Console().print(table)
    basis = "all" if found.num_probed == found.num_videos else f"{found.num_probed} of them"
    print(f"{plural(found.num_videos, 'video')}, {duration_text(found.video_s)} in total, estimated from {basis}")
    if found.num_unreadable:
        print(f"{found.num_unreadable} of these cannot be read and are excluded from the estimate")
    gpu = "" if found.device_bytes is None else f", {size_text(found.device_bytes)} on the GPU"
    print(
        f"total: {duration_text(found.time_s)}, of which {duration_text(found.setup_s)} to load and compile; "
        f"memory {size_text(found.memory_bytes)}{gpu}; disk {size_text(found.disk_bytes)}"
    )
