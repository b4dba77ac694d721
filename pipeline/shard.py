"""A part of a folder's videos, for one of several runs that know nothing of each other."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace

from .inputs import Inputs


@dataclass(frozen=True)
class Shard:
    """The ``number``-th of ``count`` parts, counted from 1.

    A video's part follows from its id alone: videos that are added or removed move no other one. Parts are equally
    large only on average; of n videos in each, give or take the root of n.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"{self} is none of the parts 1/{self.count} to {self.count}/{self.count}")

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


def parse_shard(text: str) -> Shard:
    """``3/16``; ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,6})/([1-9]\d{0,5})", text)
    if match is None:
        raise ValueError(f"{text!r} is no part of a whole, as in 3/16")
    return Shard(int(match[1]), int(match[2]))
