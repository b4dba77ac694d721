"""Maximum number of failed videos after which a run stops (``--max-failures``)."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

from ..manifests.errors import ArabesqueError
from .items import Event, VideoSettled
from .records import Outcome

_TEXT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class FailureBudget:
    """Allowed failures: ``20`` videos, or ``5%`` of the videos of a run. Partial videos do not count."""

    text: str

    def __post_init__(self) -> None:
        match = _TEXT.fullmatch(self.text)
        if match is None or float(match[2] or 0) > 100:
            raise ValueError(f"{self.text!r} is neither a number of videos nor a share of them, as in 20 or 5%")

    def allows(self, num_failed: int, num_videos: int) -> bool:
        """Return whether a run of ``num_videos`` videos may continue after ``num_failed`` failures."""
        if self.text.endswith("%"):
            return 100 * num_failed <= float(self.text[:-1]) * num_videos
        return num_failed <= int(self.text)


def within(budget: FailureBudget, num_videos: int, events: Generator[Event, None, None]) -> Iterator[Event]:
    """Yield the events of a run; stop it and raise `ArabesqueError` when too many videos have failed."""
    failed: dict[str, str] = {}
    with closing(events):
        for event in events:
            yield event
            if isinstance(event, Outcome) and event.kind == "failed":
                failed[event.video_id] = event.reason
            elif isinstance(event, VideoSettled) and not budget.allows(len(failed), num_videos):
                raise ArabesqueError(
                    f"{len(failed)} of {num_videos} videos failed, more than --max-failures {budget.text} allows; "
                    f"finished videos are kept, and the same command continues from there; the last failure: "
                    f"{failed.popitem()[1]}"
                )
