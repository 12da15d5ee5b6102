"""How many bytes of a stretch of a direction's stream were captured: what a snaplen cut off and what the capture lost is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.tcp.content import RST, SYN, Int64s, at
from brokerlens.tcp.order import Ordered
from brokerlens.tcp.stream import FROM, KEEPALIVE, TO, room, unite

if TYPE_CHECKING:
    from brokerlens.capture.working import Rows
    from brokerlens.tcp.segments import SegmentFacts


@njit(cache=True, nogil=True)
def _ranges(
    row: Int64s,
    side: Int64s,
    position: Int64s,
    first: Int64s,
    captured: Int64s,
    flags: NDArray[Any],
    label: NDArray[np.uint8],
) -> tuple[Int64s, Int64s]:
    """Per direction the ranges of positions of which bytes were captured, disjoint and sorted: offsets into them, and from and to of each."""
    offsets = np.zeros(2 * (len(first) - 1) + 1, np.int64)
    ranges = np.empty((1024, 2), np.int64)
    used = 0
    for d in range(len(offsets) - 1):
        base = used
        in_order = True
        for i in range(first[d // 2], first[d // 2 + 1]):
            size = captured[i]
            row_flags = at(flags, row[i])
            if side[i] != d % 2 or position[i] < 0 or size == 0 or row_flags & RST or label[i] == KEEPALIVE:
                continue
            start = position[i] + (row_flags & SYN) // SYN
            if used > base and ranges[used - 1, FROM] <= start <= ranges[used - 1, TO]:
                ranges[used - 1, TO] = max(ranges[used - 1, TO], start + size)
                continue
            in_order &= used == base or start > ranges[used - 1, TO]
            ranges = room(ranges, used, 1)
            ranges[used, FROM], ranges[used, TO] = start, start + size
            used += 1
        if not in_order:
            used = unite(ranges, base, used)
        offsets[d + 1] = used
    return offsets, ranges[:used]


def captured_bytes(rows: Rows, ordered: Ordered, facts: SegmentFacts, direction: Int64s, start: Int64s, size: Int64s) -> Int64s:
    """Bytes captured of each stretch ``start`` to ``start + size`` (positions) of a ``direction``; arrays of one length."""
    offsets, ranges = _ranges(
        ordered.row,
        ordered.side,
        ordered.position,
        ordered.first,
        ordered.payload_captured,
        np.require(rows.columns["flags"], np.uint16, ["C", "W"]),
        facts.label,
    )
    return covered(offsets, ranges[:, FROM], ranges[:, TO], direction, start, size)


def covered(offsets: Int64s, begins: Int64s, ends: Int64s, direction: Int64s, start: Int64s, size: Int64s) -> Int64s:
    """Positions of each stretch that lie in one of its direction's ranges (disjoint and sorted, ``offsets`` per direction)."""
    if len(begins) == 0 or len(start) == 0:
        return np.zeros(len(start), np.int64)
    before = np.concatenate([[0], np.cumsum(ends - begins)])
    # One axis for all directions: positions of a direction lie behind those of the one before.
    span = int(max(ends.max(), (start + size).max())) + 1
    axis = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) * span + begins

    def up_to(position: Int64s) -> Int64s:
        """Covered positions of all directions' ranges before this one."""
        place = np.searchsorted(axis, direction * span + position, side="right") - 1
        inside = (place >= 0) & (place >= offsets[direction])
        within = np.minimum(position, ends[place]) - begins[place]
        result: Int64s = np.where(inside, before[place] + within, before[offsets[direction]])
        return result

    return up_to(start + size) - up_to(start)
