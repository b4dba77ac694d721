"""What a person sees while a run goes on: a live line in a terminal, a plain one now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..pipeline.extraction import Extraction
from ..pipeline.records import Outcome
from ..pipeline.runner import Event
from ..pipeline.work import Awaiting, Notice, SegmentFeature, VideoSettled, WorkDone

PLAIN_EVERY_S = 15.0


def show_run(run: Extraction) -> None:
    """Carries the run out and shows how it goes, on stderr."""
    console = Console(stderr=True)
    tally = RunTally(run)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=4, transient=True, get_renderable=tally.render):
            for event in run:
                if trouble := tally.count(event):
                    console.print(Text(trouble, style="red"))
        return
    last = time.monotonic()
    for event in run:
        if trouble := tally.count(event):
            print(trouble, file=sys.stderr, flush=True)
        if time.monotonic() - last > PLAIN_EVERY_S:
            last = time.monotonic()
            print(tally.render(), file=sys.stderr, flush=True)
    print(tally.render(), file=sys.stderr, flush=True)


class RunTally:
    """Counts what a run tells of."""

    def __init__(self, run: Extraction) -> None:
        self._run = run
        self._began = time.monotonic()
        self._num_videos = 0
        self._num_segments = 0
        self._num_awaited = 0

    def count(self, event: Event) -> str:
        """Takes note of an event; a line to show where it is bad news, else nothing."""
        self._num_awaited = event.num_videos if isinstance(event, Awaiting) else 0
        match event:
            case SegmentFeature():
                self._num_segments += 1
            case VideoSettled():
                self._num_videos += 1
            case WorkDone(num_segments=number):
                self._num_segments += number
            case Notice(text=text):
                return text
            case Outcome(kind="failed" | "partial"):
                return f"{event.kind}: {event.video_id!r} [{event.stream}]: {event.reason}"
        return ""

    def render(self) -> Text:
        """``12/60 videos · 3.4 segments/s · network 71 % decode 20 % … · 4:10 left``"""
        elapsed_s = time.monotonic() - self._began
        shares = [f"{name} {share:.0%}" for name, share in self._run.clock.shares().items() if share >= 0.01]
        parts = [
            f"{self._num_videos}/{len(self._run.pending)} videos",
            f"{self._num_segments} segments, {self._num_segments / max(elapsed_s, 1e-9):.1f}/s",
            " ".join(shares),
            _left(elapsed_s, self._num_videos, len(self._run.pending)),
            f"waiting for {self._num_awaited} that other runs have in hand" if self._num_awaited else "",
        ]
        return Text(" · ".join(part for part in parts if part))


def _left(elapsed_s: float, done: int, total: int) -> str:
    if not done or done >= total:
        return ""
    minutes, seconds = divmod(round(elapsed_s / done * (total - done)), 60)
    return f"{minutes}:{seconds:02d} left"
