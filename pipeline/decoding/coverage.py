"""Detection of losses in the bytes of a file: bytes that do not belong to a packet, and a truncated last packet.

After damaged bytes, FFmpeg continues at the next element that it recognizes, and reports no error. An H.264 decoder
then predicts pictures from missing references, also without an error. The index of MP4 files and the counters of
transport streams show such losses. In AVI and Matroska files only the damaged bytes show them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

MAX_HEADER_BYTES = 1024
"""More bytes than containers have between two packets (33 in AVI and 23 in Matroska files that we have seen)."""
ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
MAX_ASF_HEADER_BYTES = 1 << 16
MAX_OGG_PAGE_BYTES = 65307
TS_PACKET_BYTES = 188
"""Size of a transport packet. In m2ts files a time code of 4 bytes precedes each packet; in DVB recordings 16 check
bytes follow each packet."""
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
"""First bytes of elements of any length that may be between packets."""
AVI_CHUNK_HEADER_BYTES = 8
MAX_AVI_HEADER_BYTES = 1 << 20
"""Maximal position of the list of packets ("movi") in an AVI file."""
_SYNC = 0x47
_TS_STRIDES = TS_PACKET_BYTES, TS_PACKET_BYTES + 4, TS_PACKET_BYTES + 16
_BLOCK_PACKETS = 65_536


def lost_stretches(
    path: Path, container: str, packets: Sequence[tuple[int, int]] | NDArray[np.int64]
) -> tuple[int, ...]:
    """Return the positions at which lost parts begin, in bytes, ascending.

    ``packets``: ``(position, size)`` of every packet of every stream, in any order.
    """
    fillers = FILLERS.get(container)
    if fillers is None or len(packets) == 0:
        return ()
    places = np.asarray(packets, np.int64)
    positions, groups = np.unique(places[:, 0], return_inverse=True)  # packets of one block share its position
    ends = positions + np.bincount(groups, places[:, 1]).astype(np.int64)
    covered = np.maximum.accumulate(ends)[:-1]
    lost: list[int] = []
    with open(path, "rb") as file:
        for position in covered[positions[1:] - covered > MAX_HEADER_BYTES].tolist():
            file.seek(position)
            beginning = file.read(8)
            # AVI pads to an even length
            if not beginning.startswith(fillers) and not beginning[1:].startswith(fillers):
                lost.append(position)
    return tuple(lost)


def _stated_asf_bytes(path: Path) -> int:
    """Return the size of the file in its file properties; 0 if they do not state it (a broadcast)."""
    with open(path, "rb") as file:
        head = file.read(MAX_ASF_HEADER_BYTES)
    at = head.find(ASF_FILE_PROPERTIES)
    if at < 0 or len(head) < at + 104:
        return 0
    (size,) = struct.unpack("<Q", head[at + 40 : at + 48])
    (flags,) = struct.unpack("<I", head[at + 88 : at + 92])
    return 0 if flags & 1 else size


def _ends_with_last_ogg_page(path: Path, size: int) -> bool:
    """Return whether the last page is complete and marked as the last one of its stream."""
    with open(path, "rb") as file:
        file.seek(max(0, size - MAX_OGG_PAGE_BYTES))
        tail = file.read()
    page = tail[tail.rfind(b"OggS") :] if b"OggS" in tail else b""
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    is_whole = len(page) == 27 + page[26] + sum(page[27 : 27 + page[26]])
    return is_whole and bool(page[5] & 4)


def broken_chunks(path: Path, packets: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the positions at which chunks of an AVI file do not follow one another, because bytes are lost.

    Args:
        path: An AVI file.
        packets: As for `lost_stretches`.

    Returns:
        Positions in bytes, ascending. The first one may be before the first packet.
    """
    positions, groups = np.unique(packets[:, 0], return_inverse=True)
    covered = np.maximum.accumulate(positions + np.bincount(groups, packets[:, 1]).astype(np.int64))[:-1]
    odd = positions[1:] - covered > AVI_CHUNK_HEADER_BYTES + 1  # chunks are padded to an even length
    lost: list[int] = []
    with open(path, "rb") as file:
        first = int(positions[0])
        head = file.read(min(first, MAX_AVI_HEADER_BYTES))
        if not _are_chunks(file, head.find(b"movi") + 4, first - AVI_CHUNK_HEADER_BYTES):
            lost.append(first - AVI_CHUNK_HEADER_BYTES)
        for begin, end in zip(covered[odd].tolist(), positions[1:][odd].tolist(), strict=True):
            if not _are_chunks(file, begin, end - AVI_CHUNK_HEADER_BYTES):
                lost.append(begin)
    return tuple(lost)


def _are_chunks(file: BinaryIO, begin: int, end: int) -> bool:
    """Return whether chunks without packets (lists, indices, fillers, dropped frames) fill a part of an AVI file."""
    return any(_reaches(file, start, end) for start in (begin, begin + 1))


def _reaches(file: BinaryIO, position: int, end: int) -> bool:
    while position < end:
        file.seek(position)
        header = file.read(12)
        if header[:4] in (b"LIST", b"RIFF") and header[8:] in (b"rec ", b"movi", b"AVIX"):
            position += 12  # packets are inside of it
        elif (
            header.startswith(FILLERS["avi"])
            or header[2:4] in (b"ix", b"wb", b"tx")  # FFmpeg omits streams with damaged headers
            or header[4:8] == bytes(4)
        ):
            position += AVI_CHUNK_HEADER_BYTES + int.from_bytes(header[4:8], "little")
            position += position % 2
        else:
            return False
    return position == end


def ends_midway(path: Path, container: str, first_position: int) -> bool:
    """Return whether a transport stream, fragmented MP4, Ogg or ASF file ends within a unit, or before its stated size.

    ``first_position``: position of the first packet in the file.
    """
    size = os.path.getsize(path)
    if container == "ogg":
        return not _ends_with_last_ogg_page(path, size)
    if container == "asf":
        return size < _stated_asf_bytes(path)
    if container == "mpegts":
        length = size - first_position
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
            if length < 8:  # 0: to the end of the file; other values are damage, which decoding detects
                return False
            position += length
    return position > size


@dataclass(frozen=True)
class StreamLosses:
    """Losses of an elementary stream of a transport stream, as positions in bytes, ascending."""

    at: list[int] = field(default_factory=list[int])
    """Positions at which whole transport packets of any stream follow a loss."""
    own: list[int] = field(default_factory=list[int])
    """Position of the first transport packet of this stream after each loss."""


def transport_stream_losses(path: Path, pids: Iterable[int], alive: Callable[[], None]) -> dict[int, StreamLosses]:
    """Return the losses of each elementary stream.

    A loss is a jump of the continuity counter without a discontinuity flag, a packet that a receiver has marked as
    erroneous, or bytes that do not belong to a packet. Positions are those of FFmpeg, in which the additional bytes of
    m2ts files and DVB recordings precede each packet.
    """
    losses = {pid: StreamLosses() for pid in pids}
    counters: dict[int, int] = {}
    interrupted: set[int] = set()
    for rows, position, is_resumed in _transport_packets(path, alive):
        if is_resumed:
            for each in losses.values():
                each.at.append(max(0, position - (rows.shape[1] - TS_PACKET_BYTES)))
            interrupted |= losses.keys()
        _add_losses(rows, position, losses, counters, interrupted)
    return losses


def separate_video_bytes(path: Path, begin: int, end: int, alive: Callable[[], None]) -> int:
    """Return the size of the video streams of a transport stream that have no packet between two positions.

    Such streams exist if recordings with different PIDs were joined, but not if programs were recorded at the same
    time.
    """
    num_outside: dict[int, int] = {}
    overlapping: set[int] = set()
    for rows, position, _ in _transport_packets(path, alive):
        places = position + np.arange(len(rows)) * rows.shape[1]
        is_outside = (places < begin) | (places >= end)
        pids = _pids(rows)
        # the first packet of each picture: it starts a unit with 00 00 01 E0…EF, maybe after an adaptation field
        payload = np.where(rows[:, 3] & 0x20 > 0, 5 + rows[:, 4].astype(np.int64), 4).clip(max=TS_PACKET_BYTES - 4)
        head = rows[np.arange(len(rows))[:, None], payload[:, None] + np.arange(4)]
        is_video = (rows[:, 1] & 0x40 > 0) & (head[:, :3] == (0, 0, 1)).all(1) & (head[:, 3] >> 4 == 0xE)
        for pid in np.unique(pids[is_video]).tolist():
            num_outside.setdefault(pid, 0)
        for pid in num_outside:
            num_outside[pid] += int((is_outside & (pids == pid)).sum())
            if (~is_outside & (pids == pid)).any():
                overlapping.add(pid)
    return TS_PACKET_BYTES * sum(number for pid, number in num_outside.items() if pid not in overlapping)


def _transport_packets(path: Path, alive: Callable[[], None]) -> Iterator[tuple[NDArray[np.uint8], int, bool]]:
    """Yield blocks of consecutive packets: ``[packets, bytes]``, position, and whether other bytes precede them."""
    data = np.memmap(path, np.uint8, mode="r")
    position, stride, has_begun, in_sync = 0, TS_PACKET_BYTES, False, False
    while True:
        alive()
        is_resumed = has_begun and not in_sync
        if not in_sync:
            found = _find_packets(data, position)
            if found is None:
                return
            position, stride = found
            has_begun = in_sync = True
        num_rows = min(_BLOCK_PACKETS, (len(data) - position) // stride)
        if num_rows == 0:
            return
        rows = data[position : position + num_rows * stride].reshape(num_rows, stride)
        out_of_sync = np.flatnonzero(rows[:, 0] != _SYNC)
        if len(out_of_sync):
            rows, in_sync = rows[: out_of_sync[0]], False
        yield rows, position, is_resumed
        position += len(rows) * stride


def _pids(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    return (rows[:, 1] & 0x1F).astype(np.int64) << 8 | rows[:, 2]


def _find_packets(data: NDArray[np.uint8], position: int) -> tuple[int, int] | None:
    """Return the position of the next three consecutive transport packets, and their distance."""
    while position + 3 * TS_PACKET_BYTES <= len(data):
        block = data[position : position + (1 << 20)]
        starts: list[tuple[int, int]] = []
        for stride in _TS_STRIDES:
            length = len(block) - 2 * stride
            if length > 0:
                in_sync = (block[:length] == _SYNC) & (block[stride:][:length] == _SYNC)
                places = np.flatnonzero(in_sync & (block[2 * stride :][:length] == _SYNC))
                starts += [(int(places[0]), stride)] if len(places) else []
        if starts:
            start, stride = min(starts)
            return position + start, stride
        position += max(1, len(block) - 2 * max(_TS_STRIDES))
    return None


def _add_losses(
    rows: NDArray[np.uint8],
    position: int,
    losses: Mapping[int, StreamLosses],
    counters: dict[int, int],
    interrupted: set[int],
) -> None:
    """Add the losses in consecutive transport packets.

    Args:
        rows: The packets, ``[packets, bytes]``.
        position: Position of the first packet in the file.
        losses: Elementary stream → losses; the function adds to them.
        counters: Elementary stream → last counter; updated.
        interrupted: Streams without a packet since the last bytes that do not belong to a packet; updated.
    """
    pids = _pids(rows)
    for pid, found in losses.items():
        places = np.flatnonzero(pids == pid)
        if len(places) == 0:
            continue
        packets = rows[places]
        counter = packets[:, 3].astype(np.int64) & 15
        has_payload = packets[:, 3] >> 4 & 1
        before = np.concatenate([[counters.get(pid, int(counter[0] - has_payload[0]))], counter[:-1]])
        is_announced = (packets[:, 3] & 0x20 > 0) & (packets[:, 4] > 0) & (packets[:, 5] & 0x80 > 0)
        is_lost = ((before + has_payload) & 15 != counter) & ~is_announced
        is_erroneous = packets[:, 1] & 0x80 > 0
        lost = is_lost | is_erroneous
        starts = np.maximum(0, position - (rows.shape[1] - TS_PACKET_BYTES) + places * rows.shape[1])  # as FFmpeg says
        found.at.extend(starts[lost].tolist())
        lost[0] |= pid in interrupted
        interrupted.discard(pid)
        found.own.extend(starts[lost].tolist())
        counters[pid] = int(counter[-1])
