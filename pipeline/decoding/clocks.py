"""Corrections of clocks that restart, jump or count wrongly within a file."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .timelines import MAX_REORDERING, NO_STAMP, Packets

MAX_OUTLIERS = 3
"""Maximal number of consecutive packets with other times that count as damaged and not as a restarted clock."""
MAX_LOST_CHUNKS = 1000
"""Maximal number of consecutive lost packets of an AVI file after which `by_index` finds the next packet."""
MATCHING_PACKETS = 3
"""Number of consecutive packets of an AVI file that must match its index after a change of their positions."""

END_OF_FILE = int(np.iinfo(np.int64).max)
"""Position of a loss after the last packet."""

Clock = tuple[tuple[int, int], ...]
"""See `VideoMetadata.clock`."""


def restarts(packets: Packets, max_forward: float, losses: Sequence[int] = ()) -> tuple[Clock, list[int]]:
    """Return corrections for a clock that jumps backwards, or forwards by more than ``max_forward`` ticks.

    As in FFmpeg, the packet after the jump follows the packet before it. If a clock runs backwards, this may be another
    recording, or an earlier part of a damaged file that is repeated. It is another recording only if it starts with a
    keyframe that does not repeat a packet, except one that started an earlier recording, and if nothing is lost in this
    packet or in the previous one: the first packets of a repeated part may differ from the original ones because of
    losses.

    Args:
        packets: The packets of one stream.
        max_forward: Largest forward jump that is not a restart, in ticks.
        losses: `StreamLosses.own`, for a transport stream.

    Returns:
        The corrections, and the packets whose own stamps are damaged: a few packets between two jumps that cancel each
        other, and packets that run backwards but cannot start another recording.
    """
    stamped = np.flatnonzero(packets.dts != NO_STAMP)  # presentation times run backwards where frames are reordered
    if len(stamped) < max(3.0, 0.9 * len(packets)):
        return (), []
    if len(stamped) < len(packets):
        complete = without(packets, np.flatnonzero(packets.dts == NO_STAMP).tolist())
        found, damaged = restarts(complete, max_forward, losses)
        return found, stamped[damaged].tolist()
    stamps = packets.dts
    steps = np.diff(stamps)
    usual = max(1.0, float(np.median(steps[steps > 0]))) if (steps > 0).any() else 1.0
    jumps = np.flatnonzero((steps < 0) | (steps > max_forward)).tolist()
    clock: list[tuple[int, int]] = []
    damaged: list[int] = []
    shift, number = 0, 0
    beginnings = [0]
    while number < len(jumps):
        before = jumps[number]
        following = jumps[number + 1] if number + 1 < len(jumps) else None
        if following is not None and following - before <= MAX_OUTLIERS:
            skipped = int(stamps[following + 1]) - int(stamps[before])
            if 0 <= skipped <= 4 * (following - before + 1) * usual:
                damaged += range(before + 1, following + 1)
                number += 2
                continue
        if strays := _strays(steps, before, usual):
            damaged += range(before + 1 - strays, before + 1)
            number += 1
            continue
        if steps[before] < 0 and (strays := _strays_of_before(packets, steps, before, usual, losses)):
            damaged += range(before + 1, before + 1 + strays)
            number += int(np.count_nonzero(np.array(jumps[number:]) <= before + strays))
            continue
        if steps[before] < 0 and not _may_begin(packets, before + 1, beginnings, losses):
            behind = stamps[before + 1 :] <= stamps[before]
            length = len(behind) if behind.all() else int(np.argmin(behind))
            if before < MAX_OUTLIERS < length:  # the first few packets belong to a later part
                damaged += range(before + 1)
                number += 1
                continue
            damaged += range(before + 1, before + 1 + length)
            number += int(np.count_nonzero(np.array(jumps[number:]) <= before + length))
            continue
        before_shift, shift = shift, shift + int(stamps[before]) + round(usual) - int(stamps[before + 1])
        shift += _overlap(packets.pts, beginnings[-1], before + 1, before_shift - shift, usual)
        clock.append((int(packets.position[before + 1]), shift))
        beginnings.append(before + 1)
        number += 1
    return tuple(clock), damaged


def _overlap(pts: NDArray[np.int64], first: int, number: int, ahead: int, usual: float) -> int:
    """Return the delay of a recording relative to its decoding times, because the previous recording was truncated.

    The last packets of a truncated recording may be presented long after they are decoded; the frames between them are
    missing.

    Args:
        pts: Presentation times of all packets.
        first: The first packet of the previous recording.
        number: The first packet of the recording.
        ahead: Correction of the times of the previous recording, relative to those of this one.
        usual: Duration of a frame in ticks.
    """
    earlier = pts[first:number][pts[first:number] != NO_STAMP]
    if len(earlier) == 0 or pts[number] == NO_STAMP:
        return 0
    overlap = int(earlier.max()) + ahead + round(usual) - int(pts[number])
    return overlap if 0 < overlap <= MAX_REORDERING * usual else 0


def _strays(steps: NDArray[np.int64], before: int, usual: float) -> int:
    """Return the number of packets up to ``before`` that belong to a later part; the clock continues without them.

    They are few and follow a gap that is within the limit of a forward jump; the next packet jumps back before it.
    """
    for count in range(1, min(MAX_OUTLIERS, before) + 1):
        gap, skipped = int(steps[before - count]), int(steps[before - count : before + 1].sum())
        if 0 < skipped <= 4 * (count + 1) * usual < gap:
            return count
    return 0


def _strays_of_before(
    packets: Packets, steps: NDArray[np.int64], before: int, usual: float, losses: Sequence[int]
) -> int:
    """Return the number of packets after ``before`` that belong to an earlier part; the clock continues after them.

    They are few and have a loss. Without a loss they may be a short separate recording.
    """
    for count in range(1, min(MAX_OUTLIERS, len(steps) - before - 1) + 1):
        skipped = int(steps[before : before + count + 1].sum())
        begin, end = packets.position[[before + 1, before + count + 1]].tolist()
        if 0 < skipped <= 4 * (count + 1) * usual and any(begin < loss <= end for loss in losses):
            return count
    return 0


def _may_begin(packets: Packets, number: int, beginnings: Sequence[int], losses: Sequence[int]) -> bool:
    """Return whether a packet may start another recording, and is not in a part of the file that is repeated.

    A file that is appended to itself is another recording: a packet may repeat the first packets of earlier recordings.
    A loss directly before the packet is usual where two recordings were joined.
    """
    before, start = packets.position[number - 1 : number + 1].tolist()
    end = int(packets.position[number + 1]) if number + 1 < len(packets) else END_OF_FILE
    if any(before < loss < end and loss != start for loss in losses):
        return False
    same = (packets.dts[:number] == packets.dts[number]) & (packets.size[:number] == packets.size[number])
    same[list(beginnings)] = False
    return bool(packets.keyframe[number]) and not same.any()


def follow(packets: Packets, clock: Clock, ticks_per_tick: float) -> Clock:
    """Return the corrections for another stream of the file, at the positions where its clock jumps.

    ``ticks_per_tick``: ticks of the other stream per tick of the first one.
    """
    stamps = np.where(packets.dts == NO_STAMP, packets.pts, packets.dts)
    steps = np.diff(stamps)
    found: list[tuple[int, int]] = []
    last = 0
    for position, shift in clock:
        step, last = (shift - last) * ticks_per_tick, shift
        near = np.flatnonzero(np.abs(steps + step) < 0.5 * abs(step)) + 1
        place = position
        if len(near):
            place = int(packets.position[near[np.argmin(np.abs(packets.position[near] - position))]])
        found.append((place, round(shift * ticks_per_tick)))
    return tuple(sorted(found))


def by_index(packets: Packets, index: NDArray[np.int64]) -> tuple[Clock, list[int]]:
    """Return corrections for an AVI file. FFmpeg counts its packets, and a lost packet shifts the times of later ones.

    A packet's place is certain if an entry of the index has the same position and size. In a file that has lost or
    gained bytes, all later packets have moved by the same distance. A new distance is accepted if `MATCHING_PACKETS`
    consecutive packets have the sizes and distances of entries.

    Args:
        packets: The packets of one stream.
        index: ``[packets, 3]``: position, size and decoding time of each packet in the file's index.

    Returns:
        The corrections, and the packets whose place is uncertain.
    """
    if len(index) == 0:
        return (), []
    positions, sizes, stamps = (column.tolist() for column in index[np.argsort(index[:, 0], kind="stable")].T)
    by_position = {position: number for number, position in enumerate(positions)}
    own_positions, own_sizes = packets.position.tolist(), packets.size.tolist()
    clock: list[tuple[int, int]] = []
    unknown: list[int] = []
    shift, following, moved_bytes = 0, 0, 0

    def matches(number: int, entry: int) -> bool:
        wanted = slice(number, number + MATCHING_PACKETS), slice(entry, entry + MATCHING_PACKETS)
        distance = own_positions[number] - positions[entry]
        return own_sizes[wanted[0]] == sizes[wanted[1]] and own_positions[wanted[0]] == [
            position + distance for position in positions[wanted[1]]
        ]

    for number, (position, size, dts) in enumerate(zip(own_positions, own_sizes, packets.dts.tolist(), strict=True)):
        found = by_position.get(position - moved_bytes)
        if found is None or found < following or sizes[found] != size:
            near = range(following, min(following + MAX_LOST_CHUNKS, len(sizes)))
            found = next((entry for entry in near if matches(number, entry)), None)
        if found is None:
            unknown.append(number)
            continue
        following, moved_bytes = found + 1, position - positions[found]
        if stamps[found] - dts != shift:
            shift = stamps[found] - dts
            clock.append((position, shift))
    return tuple(clock), unknown


def by_counting(packets: Packets) -> Packets:
    """Replace contradictory times of an MPEG program stream by counted ones.

    The container states times only for some frames. FFmpeg interpolates between them, and repeats times if several
    frames share a packet of the container. The frames of a recording are counted if none of them is later than the
    counted time, because a lost frame would delay the later ones.

    Returns:
        The packets. If frames were counted, they have no presentation times, and their decoding times start with the
        presentation time of the first frame.
    """
    steps = np.diff(packets.dts)
    if (packets.dts == NO_STAMP).any() or not (steps > 0).any():
        return packets
    usual = float(np.median(steps[steps > 0]))
    ends = [*(np.flatnonzero(np.abs(steps) > MAX_REORDERING * usual) + 1).tolist(), len(packets)]
    dts, is_counted, first = packets.dts.copy(), False, 0
    for end in ends:
        mine = packets.dts[first:end]
        counted = mine[0] + np.rint(np.arange(len(mine)) * usual).astype(np.int64)
        late = mine - counted
        contradict = (np.diff(mine) <= 0).any() or len(np.unique(packets.pts[first:end])) < len(mine)
        if contradict and -MAX_REORDERING * usual <= late.min() and late.max() < usual:
            dts[first:end], is_counted = counted, True
        first = end
    if not is_counted:
        return packets
    head = packets.pts[: min(ends[0], MAX_REORDERING)]
    delay = max(0, int(head[head != NO_STAMP].min()) - int(packets.dts[0])) if (head != NO_STAMP).any() else 0
    return replace(packets, pts=np.full(len(packets), NO_STAMP), dts=dts + delay)


def corrected(packets: Packets, clock: Clock) -> Packets:
    """Return the packets with corrected stamps."""
    if not clock:
        return packets
    shifts = np.array([0, *(shift for _, shift in clock)], np.int64)
    shift = shifts[np.searchsorted([position for position, _ in clock], packets.position, side="right")]
    pts = np.where(packets.pts == NO_STAMP, NO_STAMP, packets.pts + shift)
    dts = np.where(packets.dts == NO_STAMP, NO_STAMP, packets.dts + shift)
    return replace(packets, pts=pts, dts=dts)


def without(packets: Packets, numbers: Sequence[int]) -> Packets:
    """Return all packets except those with these numbers."""
    if not numbers:
        return packets
    kept = np.ones(len(packets), np.bool_)
    kept[list(numbers)] = False
    return Packets(**{name: values[kept] for name, values in vars(packets).items()})


def without_stamps(packets: Packets, lost_at: Sequence[int]) -> list[int]:
    """Return the few packets that have lost their time stamps in a damaged file; none if many have no stamps."""
    missing = np.flatnonzero(packets.pts == NO_STAMP)
    return missing.tolist() if len(lost_at) and len(missing) <= MAX_OUTLIERS * len(lost_at) else []


def within_packets(losses: Sequence[int], packets: Packets, *, whole_before_keyframe: bool, clock: Clock) -> list[int]:
    """Return the losses of a transport stream as positions that identify damaged packets; see `VideoMetadata.lost_at`.

    A loss directly before a keyframe may have removed the end of the previous packet. It did not if the clock restarts
    there (two joined recordings), nor, with ``whole_before_keyframe``, if the decoder detects a truncated picture.
    """
    starts, first = np.unique(packets.position, return_index=True)
    restarts_at = {position for position, _ in clock}
    found: list[int] = []
    for loss in losses:
        number = int(np.searchsorted(starts, loss, side="right")) - 1
        if number < 0:
            continue
        start = int(starts[number])
        if start < loss:
            found.append(start + 1)
        elif packets.keyframe[first[number]] and (whole_before_keyframe or start in restarts_at):
            found.append(start)
        elif number:
            found.append(int(starts[number - 1]) + 1)
    return sorted(set(found))


def audio_losses(losses: Sequence[int], packets: Packets, joins: Sequence[int]) -> list[int]:
    """Return the losses of an audio stream like `within_packets`; several packets may start at the same position.

    ``joins``: losses of the video stream between two whole packets. Recordings were joined at an audio loss beside such
    a loss, and the audio packets are whole, too.
    """
    starts = np.unique(packets.position)
    found: set[int] = set()
    for loss in losses:
        number = int(np.searchsorted(starts, loss, side="right")) - 1
        if number < 1:
            continue
        start, before = int(starts[number]), int(starts[number - 1])
        if start == loss and any(before < join <= start for join in joins):
            found.add(start)
        else:
            found |= {before + 1, start + 1}
    return sorted(found)


def beside_gaps(losses: Sequence[int], packets: Packets) -> list[int]:
    """Return the losses of other streams of a transport stream at which this stream has a gap in time.

    The continuity counter has 16 values, and does not change if 16 packets are lost.
    """
    if not losses or len(packets) < 3 or (packets.pts == NO_STAMP).any():
        return []
    ticks = np.sort(packets.pts)
    gaps = np.diff(ticks)
    wide = np.flatnonzero(gaps > 1.5 * float(np.median(gaps)))
    found: list[int] = []
    for loss, (first, last) in zip(losses, spans_of(losses, packets), strict=True):
        if ((ticks[wide] >= first) & (ticks[wide + 1] <= last)).any():
            found.append(loss)
    return found


def apart_from_joins(losses: Sequence[int], packets: Packets, clock: Clock) -> list[int]:
    """Return the losses of a stream except those where another recording starts, at a restart of the clock."""
    starts = np.unique(packets.position)
    found: list[int] = []
    for loss in losses:
        number = int(np.searchsorted(starts, loss)) - 1
        before = int(starts[number]) if number >= 0 else -1
        if not any(before < restart <= loss for restart, _ in clock):
            found.append(loss)
    return found


def spans_of(lost_at: Sequence[int], packets: Packets) -> list[tuple[int, int]]:
    """Return ``(first, last)`` presentation times of the packets around each lost position."""
    times = packets.pts if not (packets.pts == NO_STAMP).any() else packets.dts
    spans: list[tuple[int, int]] = []
    positions: NDArray[np.int64] = np.maximum.accumulate(packets.position) if len(packets) else packets.position
    for lost in lost_at:
        number = bisect_left(positions, lost)
        around = times[max(0, number - MAX_REORDERING) : number + MAX_REORDERING]
        spans.append((int(around.min()), int(around.max())) if len(around) else (0, 0))
    return spans
