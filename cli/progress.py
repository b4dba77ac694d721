"""Progress of a run: a live display in a terminal, otherwise a plain line every minute; and a summary at the end."""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..manifests.plurals import plural
from ..manifests.urls import public_url
from ..pipeline.extraction import Extraction
from ..pipeline.items import Awaiting, Event, Notice, PhaseStarted
from ..pipeline.progress import RunProgress
from ..pipeline.records import KINDS, Outcome
from .dry_run import duration_text
from .messages import progress_is_shown, verbose_is_shown

_LOG = logging.getLogger(__name__)

PLAIN_INTERVAL_S = 60.0
MAX_CURRENT = 2


def show_run(run: Extraction, labels: str | None = "") -> None:
    """Execute the run, log its problems, show its progress on standard error, and summarize it.

    Args:
        run: The run.
        labels: Options for the labels of the videos, for the training that is suggested at the end; None suggests none.
    """
    display = RunDisplay(run)
    if progress_is_shown():
        console = Console(stderr=True)
        with Live(console=console, refresh_per_second=4, transient=True, get_renderable=display.renderable):
            for event in run:
                display.add(event)
    else:
        shown_s = time.monotonic()
        for event in run:
            display.add(event)
            if isinstance(event, PhaseStarted) and event.phase == "loading networks" and run.remaining:
                _LOG.info(display.line())
            if time.monotonic() - shown_s > PLAIN_INTERVAL_S:
                shown_s = time.monotonic()
                _LOG.info(display.line())
    for line in display.summary(labels):
        _LOG.info(line)


class RunDisplay:
    """Counts the events of a run and renders them."""

    def __init__(self, run: Extraction) -> None:
        self._run = run
        self._tracker = run.tracker()
        self._num_awaited = 0
        self._outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._notices = 0

    def add(self, event: Event) -> None:
        """Count an event, and log it if it reports a problem."""
        self._tracker.add(event)
        self._num_awaited = event.num_videos if isinstance(event, Awaiting) else 0
        match event:
            case Notice(text=text):
                self._notices += 1
                _LOG.warning(text)
            case Outcome(kind=kind, stream=stream):
                self._outcomes[stream][kind] += 1
                if kind in ("failed", "partial"):
                    _LOG.warning(f"{kind}: {event.video_id!r} [{stream}]: {event.reason}")
            case _:
                pass

    def line(self) -> str:
        """Return the state as ``12/60 videos · 0:31:04 of 2:10:00 of video · 4.1 × real time · 24:10 left``."""
        now = self._tracker.now
        parts = [f"{now.num_videos}/{now.total_videos} videos", *_amounts(now)]
        if now.phase != "extracting":
            parts = [f"{now.phase} …"]
        if self._num_awaited:  # how long other runs take is not known
            parts = [parts[0], f"waiting for {self._num_awaited} of them, claimed by other runs"]
        if stages := self._stage_shares():
            parts.append(stages)
        return " · ".join(parts)

    def renderable(self) -> Table:
        """Return the display of a terminal: a bar, the line, and the current files."""
        now = self._tracker.now
        current = [repr(name) for name in now.current[:MAX_CURRENT]]
        more = f" and {len(now.current) - MAX_CURRENT} more" if len(now.current) > MAX_CURRENT else ""
        lines = [Text(self.line(), overflow="ellipsis", no_wrap=not self._stage_shares())]
        if current:
            lines.append(Text(f"{', '.join(current)}{more}", style="dim", overflow="ellipsis", no_wrap=True))
        pulse = now.phase != "extracting" or not now.total_video_s
        rows = Table.grid()  # a bar alone does not end its line
        for row in (ProgressBar(total=1.0, completed=now.share, pulse=pulse, width=60), *lines):
            rows.add_row(row)
        return rows

    def summary(self, labels: str | None = "") -> list[str]:
        """Return the result of the run and the next command."""
        now = self._tracker.now
        if not now.total_videos and not self._outcomes:
            return ["nothing remained to be done", *self._next_command(labels)]
        speed = f", {speed_text(now.video_s / now.elapsed_s)}" if now.video_s and now.elapsed_s else ""
        amount = f", {duration_text(now.video_s)} of video" if now.video_s else ""
        lines = [f"{plural(now.num_videos, 'video')}{amount} in {duration_text(now.elapsed_s)}{speed}"]
        totals = sum((counts for counts in self._outcomes.values()), Counter[str]())
        outcomes = ", ".join(f"{kind} {totals[kind]}" for kind in KINDS if totals[kind])
        lines.append(f"outcomes of {plural(len(self._run.streams), 'stream')}: {outcomes or 'none'}")
        if self._notices:
            lines.append(f"{self._notices} warning{'s' if self._notices > 1 else ''}, see above")
        if stages := self._stage_shares():
            lines.append(f"busy time: {stages}")
        return [*lines, *self._next_command(labels)]

    def _next_command(self, labels: str | None) -> list[str]:
        out = public_url(self._run.out)
        if any(counts["failed"] or counts["partial"] for counts in self._outcomes.values()):
            return [f"next: `arabesque status {out} --all` lists all reasons; the same command retries some"]
        if labels is None:
            return []
        if any(len(spec.settings.get("row_shape", ())) > 1 for spec in self._run.streams.values()):
            return [f"next: `arabesque export {out} --format npz --out FILES`"]  # scoring models take one row
        return [f"next: `arabesque train {out} {labels or '--labels SCORES.csv'}`"]

    def _stage_shares(self) -> str:
        """Return the share of each stage in the busy time, with ``-v``."""
        if not verbose_is_shown():
            return ""
        shares = self._run.clock.shares().items()
        return " ".join(f"{name} {share:.0%}" for name, share in shares if share >= 0.01)


def _amounts(now: RunProgress) -> list[str]:
    """Return the parts of a line that are known."""
    parts = [f"{clock_text(now.video_s)} of {clock_text(now.total_video_s)} of video"] if now.total_video_s else []
    if now.speed:
        parts.append(speed_text(now.speed))
    if now.left_s is not None:
        parts.append(f"{clock_text(now.left_s)} left")
    return parts


def speed_text(speed: float) -> str:
    """Format a speed as ``4.1 × real time`` or ``0.03 × real time``."""
    return f"{speed:.1f} × real time" if speed >= 0.1 else f"{speed:.2g} × real time"


def clock_text(seconds: float) -> str:
    """Format a duration as ``4:10`` or ``2:04:10``."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest_s:02d}" if hours else f"{minutes}:{rest_s:02d}"
