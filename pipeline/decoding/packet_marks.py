"""Lost bytes and clock corrections of a file's metadata, applied to the packets of a stream."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from av.container import InputContainer
from av.packet import Packet

LOST = "the file has a damaged stretch here, with packets that are lost"


class Mark(NamedTuple):
    damage: str
    """Damage in or before a packet; empty if there is none."""
    is_inside: bool
    """Whether the packet itself is, or may be, damaged."""


class PacketMarks:
    """Reads the packets of one stream in their order and corrects their time stamps."""

    def __init__(self, container: InputContainer, lost_at: Sequence[int], clock: Sequence[tuple[int, int]]) -> None:
        """``lost_at`` and ``clock``: see `VideoMetadata`."""
        self._lost_at = lost_at
        self._clock_positions = [position for position, _ in clock]
        self._shifts = [0, *(shift for _, shift in clock)]
        self._flags_count = container.format.name != "mpegts"  # mpegts flags the packet before the damaged one
        self._position = -1  # position in the file of the last packet

    def read(self, packet: Packet[Any]) -> Mark:
        damage, is_inside = "", False
        if packet.pos is not None:
            first = bisect_right(self._lost_at, self._position)
            last = bisect_right(self._lost_at, packet.pos + packet.size)
            if first < last:
                damage, is_inside = LOST, self._lost_at[last - 1] > packet.pos
            self._position = packet.pos
        if packet.is_corrupt and self._flags_count:
            damage, is_inside = damage or "the file is damaged or truncated within this frame", True
        self._correct(packet)
        return Mark(damage, is_inside)

    def _correct(self, packet: Packet[Any]) -> None:
        if not self._clock_positions:
            return
        if shift := self._shifts[bisect_right(self._clock_positions, self._position)]:
            if packet.pts is not None:
                packet.pts += shift
            if packet.dts is not None:
                packet.dts += shift
