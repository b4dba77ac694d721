"""The stamp of a shard, which detects any change of its bytes, and the parity record, which reverses small changes.

A shard is a Parquet file with two additions: the SHA-256 of the whole file in the footer's key-value list, and a
parity record between the last row group and the footer, which Parquet readers skip. The record holds the CRC-32 of
each block of the other bytes, and the XOR of the blocks of each of eight classes (block number modulo 8). A block with
one flipped bit is corrected by its CRC; one arbitrarily damaged block per class is computed from the others. Contiguous
damage of up to seven blocks is therefore reversible, in the footer too. A record takes 1 % of a large shard and 1.5 kB
of a small one.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

STAMP, BLANK = "arabesque.sha256", "0" * 64
_MAGIC = b"arabesque.parity"
_CLASSES = 8
_BLOCKS, _SMALLEST_BLOCK = 1024, 128
_HEADER = struct.Struct("<16sIIII32s")
"""Magic and length of the record; then length, block size, distance of the stamp's digits from the end, and SHA-256 of
all other bytes, with a blank stamp.
"""
_TRAILER = struct.Struct("<II16s")
"""CRC-32 of the record's other bytes, length of the record, magic."""
_CRC_POLYNOMIAL = 0xEDB88320  # of zlib.crc32, lowest bit first
_PARQUET_END = 8  # the footer's length and PAR1


def stamped(parquet: bytes) -> bytes:
    """Add parity record and stamp to a Parquet file that has `BLANK` under the key `STAMP` in its footer."""
    footer = len(parquet) - _PARQUET_END - int.from_bytes(parquet[-_PARQUET_END:-4], "little")
    return _with_stamp(parquet[:footer] + _record(parquet, len(parquet) - _stamp_place(parquet)) + parquet[footer:])


def is_intact(data: bytes) -> bool:
    """Return whether the bytes of a shard are unchanged since it was written."""
    return data == _with_stamp(data)


def restored(damaged: bytes) -> bytes | None:
    """Return the original bytes of a shard; None if the damage exceeds what its parity can restore."""
    for start, end in _records(damaged):
        record, rest = damaged[start:end], damaged[:start] + damaged[end:]
        body, trailer = record[: -_TRAILER.size], record[-_TRAILER.size :]
        if _TRAILER.unpack(trailer) == (zlib.crc32(body), len(record), _MAGIC):
            corrected = _corrected(rest, record)
            if corrected is not None:
                return _with_stamp(corrected[:start] + record + corrected[start:])
        else:  # the damage is in the record, which can be computed from the rest
            place = _stamp_place(rest)
            blank = rest[:place] + BLANK.encode() + rest[place + len(BLANK) :]
            whole = rest[:start] + _record(blank, len(rest) - place) + rest[start:]
            if is_intact(whole):
                return whole
    return None


def _with_stamp(data: bytes) -> bytes:
    place = _stamp_place(data)
    before, after = data[:place], data[place + len(BLANK) :]
    digest = hashlib.sha256(before)
    digest.update(BLANK.encode())
    digest.update(after)
    return before + digest.hexdigest().encode() + after


def _stamp_place(data: bytes) -> int:
    """Return the stamp's offset: a value follows its key after two bytes, its type and its length."""
    return data.rfind(STAMP.encode()) + len(STAMP) + 2


def _record(rest: bytes, stamp_from_end: int) -> bytes:
    """Build the parity record. ``rest``: all other bytes of the shard, with a blank stamp."""
    block = max(_SMALLEST_BLOCK, -(-len(rest) // _BLOCKS))
    blocks = _blocks(rest, block)
    content = b"".join(each.tobytes() for each in _checks(blocks))
    length = _HEADER.size + len(content) + _TRAILER.size
    digest = hashlib.sha256(rest).digest()
    body = _HEADER.pack(_MAGIC, length, len(rest), block, stamp_from_end, digest) + content
    return body + _TRAILER.pack(zlib.crc32(body), length, _MAGIC)


def _records(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield possible offsets of the record, found by the magic and the length at either of its ends."""
    at = data.find(_MAGIC)
    while at >= 0:
        for begins in (True, False):
            end = at + len(_MAGIC)
            (length,) = struct.unpack("<I", (data[end : end + 4] if begins else data[at - 4 : at]).ljust(4, b"\0")[:4])
            start = at if begins else end - length
            if length >= _HEADER.size + _TRAILER.size and 0 <= start < start + length <= len(data):
                yield start, start + length
        at = data.find(_MAGIC, at + 1)


def _corrected(rest: bytes, record: bytes) -> bytes | None:
    """Correct the rest of a shard by an intact ``record``. The stamp stays blank."""
    _, _, length, block, stamp_from_end, digest = _HEADER.unpack_from(record)
    count, place = -(-length // max(block, 1)), length - stamp_from_end
    if len(record) != _HEADER.size + 4 * count + _CLASSES * block + _TRAILER.size:
        return None
    if abs(length - len(rest)) > _CLASSES * block or not 0 <= place <= length - len(BLANK):
        return None
    rest = rest[:length].ljust(length, b"\0")
    blocks = _blocks(rest[:place] + BLANK.encode() + rest[place + len(BLANK) :], block)
    sums = np.frombuffer(record, "<u4", count, _HEADER.size)
    parity = np.frombuffer(record, np.uint8, _CLASSES * block, _HEADER.size + 4 * count).reshape(_CLASSES, block)
    for bad in np.flatnonzero(_checks(blocks)[0] != sums).tolist():
        _flip_back(blocks[bad], int(sums[bad]))
    sums_now, parity_now = _checks(blocks)
    for bad in np.flatnonzero(sums_now != sums).tolist():  # one of each class, or the digest does not match
        blocks[bad] ^= parity[bad % _CLASSES] ^ parity_now[bad % _CLASSES]
    corrected = blocks.tobytes()[:length]
    return corrected if hashlib.sha256(corrected).digest() == digest else None


def _flip_back(block: NDArray[np.uint8], wanted: int) -> None:
    """Flip the one bit of a block, if there is one, that gives it the wanted CRC-32.

    The change of a CRC by a flipped bit depends only on the bit's distance from the end.
    """
    change, register = zlib.crc32(block.data) ^ wanted, _CRC_POLYNOMIAL
    for distance in range(8 * len(block)):
        if register == change:
            block[len(block) - 1 - distance // 8] ^= 0x80 >> distance % 8
            return
        register = register >> 1 ^ (_CRC_POLYNOMIAL if register & 1 else 0)


def _blocks(data: bytes, size: int) -> NDArray[np.uint8]:
    """Split into ``[blocks, size]``, padding the last block with zeros."""
    count = -(-len(data) // size)
    return np.frombuffer(bytearray(data.ljust(count * size, b"\0")), np.uint8).reshape(count, size)


def _checks(blocks: NDArray[np.uint8]) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return the CRC-32 of each block and the XOR of the blocks of each class, ``[classes, size]``."""
    sums = np.array([zlib.crc32(block.data) for block in blocks], "<u4")
    return sums, np.stack([np.bitwise_xor.reduce(blocks[each::_CLASSES], axis=0) for each in range(_CLASSES)])
