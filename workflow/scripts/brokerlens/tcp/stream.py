"""The two byte streams of each connection: when the tap first saw each byte, and where the bytes are that are there.

*Seen* follows lengths on the wire, *content* the bytes that were kept; a byte may be seen first in one capture and be there from another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.tcp.content import RST, SYN, Bools, Int64s, at
from brokerlens.tcp.order import Ordered

if TYPE_CHECKING:
    from brokerlens.capture.working import Rows
    from brokerlens.tcp.segments import SegmentFacts

FILLED: Final = 3
KEEPALIVE: Final = 6  # places in segments.LABELS; a test holds them equal
WINDOW_PROBE: Final = 7

# The values of a piece: from and to (positions), and what is there.
FROM: Final = 0
TO: Final = 1
VALUE: Final = 2
BEGINS: Final = 3  # of content: 1 where the piece begins a segment


class Streams(NamedTuple):
    """Per direction ``d = 2 * connection + side``: disjoint pieces in order of position; ``..._first`` are offsets into them.

    ``origin`` [2C]: position of the first byte after the SYN, -1 where that SYN was not captured. ``seen_time`` (ns): when the piece was first
    seen. ``content_at``: index in ``data`` of the piece's first byte, from the earliest copy that was kept; ``content_segment``: the
    piece begins where a segment begins. ``again``: ranges that were sent again, also where the
    first sending was lost before the tap.
    """

    origin: Int64s
    seen_first: Int64s
    seen_from: Int64s
    seen_to: Int64s
    seen_time: Int64s
    content_first: Int64s
    content_from: Int64s
    content_to: Int64s
    content_at: Int64s
    content_segment: Bools
    again_first: Int64s
    again_from: Int64s
    again_to: Int64s
    data: NDArray[np.uint8]


@njit(cache=True, nogil=True)
def first_sight(streams: Streams, d: int, position: int) -> int:
    """When direction ``d``'s byte at ``position`` was first seen (ns), -1 if it never was."""
    lo, hi = streams.seen_first[d], streams.seen_first[d + 1]
    while lo < hi:
        middle = (lo + hi) // 2
        if streams.seen_to[middle] <= position:
            lo = middle + 1
        else:
            hi = middle
    if lo < streams.seen_first[d + 1] and streams.seen_from[lo] <= position:
        return int(streams.seen_time[lo])
    return -1


@njit(cache=True, nogil=True)
def whole_since(seen_first: Int64s, seen_from: Int64s, seen_to: Int64s, seen_time: Int64s, d: Int64s, begin: Int64s, end: Int64s) -> Int64s:
    """When the last of the bytes ``begin`` to ``end`` (positions, int64[n]) of each direction ``d`` was first seen, ns; -1 where none was.

    ``seen_…`` are those of `Streams`. Bytes that were never seen do not count.
    """
    found = np.full(len(d), -1, np.int64)
    for i in range(len(d)):
        lo, hi = seen_first[d[i]], seen_first[d[i] + 1]
        last = hi
        while lo < hi:
            middle = (lo + hi) // 2
            if seen_to[middle] <= begin[i]:
                lo = middle + 1
            else:
                hi = middle
        while lo < last and seen_from[lo] < end[i]:
            found[i] = max(found[i], seen_time[lo])
            lo += 1
    return found


@njit(cache=True, nogil=True)
def room(pieces: Int64s, used: int, more: int) -> Int64s:
    """``pieces`` with room for ``more`` rows behind ``used``."""
    if used + more <= len(pieces):
        return pieces
    larger = np.empty((max(2 * len(pieces), used + more), pieces.shape[1]), np.int64)
    larger[:used] = pieces[:used]
    return larger


@njit(cache=True, nogil=True)
def _first_behind(pieces: Int64s, lo: int, hi: int, position: int) -> int:
    """The first of the pieces ``lo`` to ``hi`` that ends behind ``position``; most segments go to the end, so look there first."""
    if lo == hi or pieces[hi - 1, TO] <= position:
        return hi
    while lo < hi:
        middle = (lo + hi) // 2
        if pieces[middle, TO] <= position:
            lo = middle + 1
        else:
            hi = middle
    return lo


@njit(cache=True, nogil=True)
def _open(pieces: Int64s, used: int, place: int) -> None:
    """Make room for one piece at ``place``."""
    for k in range(used, place, -1):
        for j in range(pieces.shape[1]):
            pieces[k, j] = pieces[k - 1, j]


@njit(cache=True, nogil=True)
def _pieces_inside(pieces: Int64s, place: int, used: int, end: int) -> int:
    """How many pieces from ``place`` on begin before ``end``: one more is the most that can be inserted."""
    n = 0
    while place + n < used and pieces[place + n, FROM] < end:
        n += 1
    return n


@njit(cache=True, nogil=True)
def _add_seen(
    seen: Int64s, base: int, used: int, start: int, end: int, time: int, again: Int64s, again_used: int, counts: bool
) -> tuple[Int64s, int, Int64s, int]:
    """Add a segment's bytes to the pieces ``base`` to ``used``: new ones with this time, others to ``again`` if it ``counts`` as sending."""
    place = _first_behind(seen, base, used, start)
    inside = _pieces_inside(seen, place, used, end)
    seen = room(seen, used, inside + 1)
    again = room(again, again_used, inside)
    at_position = start
    while at_position < end:
        if place < used and seen[place, FROM] <= at_position:
            stop = min(end, seen[place, TO])
            if counts:
                again[again_used, FROM] = at_position
                again[again_used, TO] = stop
                again_used += 1
            place += 1
        else:
            stop = end if place == used else min(end, seen[place, FROM])
            _open(seen, used, place)
            seen[place, FROM] = at_position
            seen[place, TO] = stop
            seen[place, VALUE] = time
            used += 1
            place += 1
        at_position = stop
    return seen, used, again, again_used


@njit(cache=True, nogil=True)
def _add_content(content: Int64s, base: int, used: int, start: int, end: int, data_at: int, begins: bool) -> tuple[Int64s, int]:
    """Add a kept run where no earlier copy of its bytes is there; ``begins``: the run begins its segment."""
    place = _first_behind(content, base, used, start)
    inside = _pieces_inside(content, place, used, end)
    content = room(content, used, inside + 1)
    at_position = start
    while at_position < end:
        if place < used and content[place, FROM] <= at_position:
            at_position = content[place, TO]
            place += 1
            continue
        stop = end if place == used else min(end, content[place, FROM])
        _open(content, used, place)
        content[place, FROM] = at_position
        content[place, TO] = stop
        content[place, VALUE] = data_at + at_position - start
        content[place, BEGINS] = 1 if begins and at_position == start else 0
        used += 1
        place += 1
        at_position = stop
    return content, used


@njit(cache=True, nogil=True)
def unite(again: Int64s, base: int, used: int) -> int:
    """Sort the ranges ``base`` to ``used`` and join those that touch; returns the end of what is left."""
    if used - base < 2:
        return used
    copy = again[base:used].copy()
    order = np.argsort(copy[:, FROM], kind="mergesort")
    n = base
    for k in order:
        if n > base and copy[k, FROM] <= again[n - 1, TO]:
            again[n - 1, TO] = max(again[n - 1, TO], copy[k, TO])
        else:
            again[n, FROM] = copy[k, FROM]
            again[n, TO] = copy[k, TO]
            n += 1
    return n


@njit(cache=True, nogil=True)
def _follow(
    row: Int64s,
    side: Int64s,
    time: Int64s,
    position: Int64s,
    is_duplicate: Bools,
    first: Int64s,
    kept_row: Int64s,
    kept_offset: Int64s,
    kept_length: Int64s,
    kept_at: Int64s,
    flags: NDArray[Any],
    payload_len: NDArray[Any],
    label: NDArray[np.uint8],
) -> tuple[Int64s, Int64s, Int64s, Int64s, Int64s, Int64s, Int64s]:
    """All directions' pieces: origin, then offsets and pieces of seen, content and again."""
    directions = 2 * (len(first) - 1)
    origin = np.full(directions, -1, np.int64)
    seen_first = np.zeros(directions + 1, np.int64)
    content_first = np.zeros(directions + 1, np.int64)
    again_first = np.zeros(directions + 1, np.int64)
    seen = np.empty((max(len(row), 16), 3), np.int64)
    content = np.empty((max(len(kept_row), 16), 4), np.int64)
    again = np.empty((1024, 2), np.int64)
    seen_used, content_used, again_used = 0, 0, 0
    kept = 0
    for c in range(len(first) - 1):
        connection_kept = kept
        for this_side in range(2):
            d = 2 * c + this_side
            seen_base, content_base, again_base = seen_used, content_used, again_used
            kept = connection_kept
            for i in range(first[c], first[c + 1]):
                run = kept
                while kept < len(kept_row) and kept_row[kept] == i:
                    kept += 1
                if side[i] != this_side or position[i] < 0:
                    continue
                row_flags = at(flags, row[i])
                start = position[i]
                if row_flags & SYN:
                    start += 1
                    if origin[d] < 0:
                        origin[d] = start
                size = at(payload_len, row[i])
                if size == 0 or row_flags & RST or label[i] == KEEPALIVE:
                    continue
                if not is_duplicate[i]:
                    seen, seen_used, again, again_used = _add_seen(
                        seen, seen_base, seen_used, start, start + size, time[i], again, again_used, label[i] != WINDOW_PROBE
                    )
                    if label[i] == FILLED:
                        again = room(again, again_used, 1)
                        again[again_used, FROM], again[again_used, TO] = start, start + size
                        again_used += 1
                for k in range(run, kept):
                    content, content_used = _add_content(
                        content,
                        content_base,
                        content_used,
                        start + kept_offset[k],
                        start + kept_offset[k] + kept_length[k],
                        kept_at[k],
                        kept_offset[k] == 0,
                    )
            again_used = unite(again, again_base, again_used)
            seen_first[d + 1], content_first[d + 1], again_first[d + 1] = seen_used, content_used, again_used
    return origin, seen_first, seen[:seen_used], content_first, content[:content_used], again_first, again[:again_used]


def assemble(rows: Rows, ordered: Ordered, facts: SegmentFacts) -> Streams:
    """Both streams of every connection.

    Copies made by the capture (``is_duplicate``) do not count as seen or sent again, but their bytes may be content. The byte of a
    keep-alive is not part of the stream (RFC 9293, 3.8.4); that of a window probe is, but being refused and sent again is its purpose.
    """
    columns = rows.columns
    origin, seen_first, seen, content_first, content, again_first, again = _follow(
        ordered.row,
        ordered.side,
        ordered.time,
        ordered.position,
        ordered.is_duplicate,
        ordered.first,
        ordered.kept_row,
        ordered.kept_offset,
        ordered.kept_length,
        ordered.kept_at,
        np.require(columns["flags"], np.uint16, ["C", "W"]),
        np.require(columns["payload_len"], np.uint32, ["C", "W"]),
        facts.label,
    )
    return Streams(
        origin=origin,
        seen_first=seen_first,
        seen_from=seen[:, FROM].copy(),
        seen_to=seen[:, TO].copy(),
        seen_time=seen[:, VALUE].copy(),
        content_first=content_first,
        content_from=content[:, FROM].copy(),
        content_to=content[:, TO].copy(),
        content_at=content[:, VALUE].copy(),
        content_segment=content[:, BEGINS] != 0,
        again_first=again_first,
        again_from=again[:, FROM].copy(),
        again_to=again[:, TO].copy(),
        data=np.require(rows.data, np.uint8, ["C", "W"]),
    )
