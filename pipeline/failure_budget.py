"""How much may fail before a run is taken to be going wrong, and stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..manifests.errors import ArabesqueError
from .records import Outcome
from .work import VideoSettled

if TYPE_CHECKING:
    from collections.abc import Generator

    from .runner import Event

_TEXT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class FailureBudget:
    """``20``: that many videos; ``5%``: that share of the videos that a run has to do. Partial ones do not count."""

    text: str

    def __post_init__(self) -> None:
        match = _TEXT.fullmatch(self.text)
        if match is None or float(match[2] or 0) > 100:
            raise ValueError(f"{self.text!r} is neither a number of videos nor a share of them, as in 20 or 5%")

    def allows(self, num_failed: int, num_videos: int) -> bool:
        if self.text.endswith("%"):
            return 100 * num_failed <= float(self.text[:-1]) * num_videos
        return num_failed <= int(self.text)


def within(budget: FailureBudget, num_videos: int, events: Generator[Event, None, None]) -> Iterator[Event]:
    """The events of a run, until too many videos have failed: then the run is ended, and `ArabesqueError` raised."""
    failed: dict[str, str] = {}
    with closing(events):
        for event in events:
            yield event
            if isinstance(event, Outcome) and event.kind == "failed":
                failed[event.video_id] = event.reason
            elif isinstance(event, VideoSettled) and not budget.allows(len(failed), num_videos):
                raise ArabesqueError(
                    f"{len(failed)} of {num_videos} videos failed, more than --max-failures {budget.text} allows; what "
                    f"is finished is kept, the same command goes on from there; the last one: {failed.popitem()[1]}"
                )
