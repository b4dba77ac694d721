"""Partition of the input videos among independent runs (``--partition i/n``)."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from .discovery import Inputs


@dataclass(frozen=True)
class Partition:
    """Part ``number`` of ``count``, counted from 1.

    The part of a video depends only on its id, so that adding or removing videos does not change the parts of others.
    On average all parts have the same size, with a standard deviation of about the square root of the size.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"{self} is not one of the parts 1/{self.count} to {self.count}/{self.count}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, video_id: str) -> bool:
        digest = hashlib.sha256(video_id.encode(errors="surrogatepass")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def of(self, inputs: Inputs) -> Inputs:
        return replace(
            inputs,
            videos=tuple(video for video in inputs.videos if self.holds(video.video_id)),
            clashes={name: paths for name, paths in inputs.clashes.items() if self.holds(name)},
        )


def parse_partition(text: str) -> Partition:
    """Parse a part such as ``3/16``. Raises `ValueError` for other texts."""
    match = re.fullmatch(r"(\d{1,6})/([1-9]\d{0,5})", text)
    if match is None:
        raise ValueError(f"{text!r} is not a part; give one such as 3/16")
    return Partition(int(match[1]), int(match[2]))
