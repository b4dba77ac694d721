"""Finding what a file has lost, from its bytes: stretches that belong to no packet, and an end in the midst of one.

FFmpeg looks for the next thing that it knows after a damaged stretch, and goes on as if nothing had been between; an
H.264 decoder then makes pictures out of references that never came, without a word. MP4's index and the counters of
transport streams betray such losses; in AVI and Matroska files only the stretch itself does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from pathlib import Path

MAX_HEADER_BYTES = 1024
"""More than what containers put between two packets (33 bytes in AVI files, 23 in Matroska, in what we have seen)."""
TS_PACKET_BYTES = 188
"""In m2ts files, a time code of 4 bytes comes before each."""
FILLERS = {
    "avi": (b"JUNK", b"ix", b"idx1", b"LIST", b"RIFF"),
    "matroska,webm": (
        b"\xec",  # Void
        b"\x1c\x53\xbb\x6b",  # Cues
        b"\x12\x54\xc3\x67",  # Tags
        b"\x11\x4d\x9b\x74",  # SeekHead
        b"\x15\x49\xa9\x66",  # Info
        b"\x16\x54\xae\x6b",  # Tracks
        b"\x19\x41\xa4\x69",  # Attachments
        b"\x10\x43\xa7\x70",  # Chapters
    ),
}
"""How elements begin that may stand between packets and be of any length."""


def lost_stretches(path: Path, container: str, packets: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """Where lost stretches begin, in bytes from the file's beginning, ascending.

    ``packets``: ``(position, size)`` of every packet of every stream, in any order.
    """
    fillers = FILLERS.get(container)
    if fillers is None:
        return ()
    lost: list[int] = []
    with open(path, "rb") as file:
        covered: int | None = None
        for position, group in groupby(sorted(packets), key=itemgetter(0)):
            if covered is not None and position - covered > MAX_HEADER_BYTES:
                file.seek(covered)
                beginning = file.read(8)
                if not beginning.startswith(fillers) and not beginning[1:].startswith(fillers):  # AVI pads to even
                    lost.append(covered)
            end = position + sum(size for _, size in group)  # packets of one block share its position
            covered = end if covered is None else max(covered, end)
    return tuple(lost)


def ends_midway(path: Path, container: str, packets: Iterable[tuple[int, int]]) -> bool:
    """Whether a transport stream or fragmented MP4, which promise no length, ends in the midst of a packet or box."""
    size = os.path.getsize(path)
    if container == "mpegts":
        length = size - min(position for position, _ in packets)
        return length % TS_PACKET_BYTES != 0 and length % (TS_PACKET_BYTES + 4) not in (0, TS_PACKET_BYTES)
    if not container.startswith("mov"):
        return False
    with open(path, "rb") as file:
        position = 0
        while position + 8 <= size:
            file.seek(position)
            header = file.read(16)
            (length,) = struct.unpack(">I", header[:4])
            if length == 1 and len(header) == 16:
                (length,) = struct.unpack(">Q", header[8:])
            if length < 8:  # 0: to the end of the file; anything else is damage, which decoding will meet
                return False
            position += length
    return position > size
