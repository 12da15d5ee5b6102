"""Sequence numbers unwrapped to 64 bits: positions that only rise, the same modulo 2^32 (`tcp.md` 3.1)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from brokerlens.tcp.content import ACK, EPOCH, FAR, RST, Content, Int64s, at, wrapped_difference

# Unwrapping, per sequence space: the last place (-1 none), and a value too far from it that waits for a second one to agree.
U_LAST: Final = 0
U_WAITS: Final = 1
U_ROW: Final = 2  # whose value waits: row, doubled, and 1 more where it is an acknowledgement
U_WORDS: Final = 3


@njit(cache=True, nogil=True)
def _place(value: int, number: int, spaces: Int64s, space: int, places: Int64s) -> int:
    """Unwrap a 32-bit number of a sequence space; ``number`` is its index in ``places``, where a value that waited may be put.

    A value more than 2^30 away (no window is larger) gets no place, -1, unless the next one agrees with it: one wrong value
    shifts nothing, and a capture that lacks gigabytes goes on.
    """
    if spaces[space, U_LAST] < 0:
        spaces[space, U_LAST] = EPOCH + value
        return EPOCH + value
    step = wrapped_difference(value, spaces[space, U_LAST] & (EPOCH - 1))
    place = int(spaces[space, U_LAST] + step)
    if abs(step) > FAR:
        if spaces[space, U_WAITS] < 0 or abs(place - spaces[space, U_WAITS]) > FAR:
            spaces[space, U_WAITS] = place
            spaces[space, U_ROW] = number
            return -1
        places[spaces[space, U_ROW]] = spaces[space, U_WAITS]
    spaces[space, U_LAST] = place
    spaces[space, U_WAITS] = -1
    return place


@njit(cache=True, nogil=True)
def unwrap(rows: Int64s, first: Int64s, content: Content) -> Int64s:
    """Unwrapped sequence (even places) and acknowledgement numbers (odd places) of all rows (`tcp.md` 3.1).

    Both sides' numbers of one space are placed by the one before, so acknowledgements stand on the other side's positions. An RST's
    numbers have no place.
    """
    places = np.full(2 * len(rows), -1, np.int64)
    spaces = np.empty((2, U_WORDS), np.int64)
    for c in range(len(first) - 1):
        spaces[:] = -1
        for i in range(first[c], first[c + 1]):
            row = rows[i]
            flags = at(content.flags, row)
            side = at(content.from_broker, row)
            if flags & RST == 0:
                places[2 * i] = _place(at(content.seq, row), 2 * i, spaces, side, places)
                if flags & ACK:
                    places[2 * i + 1] = _place(at(content.ack, row), 2 * i + 1, spaces, 1 - side, places)
    return places
