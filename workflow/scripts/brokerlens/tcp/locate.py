"""Which packet brought a byte: from positions in a direction's stream back to rows."""

from __future__ import annotations

import numpy as np
from numba import njit

from brokerlens.tcp.content import SYN, Bools, Int64s


@njit(cache=True, nogil=True)
def rows_of_bytes(
    first: Int64s,
    side: Int64s,
    time: Int64s,
    position: Int64s,
    flags: Int64s,
    payload: Int64s,
    is_duplicate: Bools,
    direction: Int64s,
    byte: Int64s,
    seen: Int64s,
) -> Int64s:
    """The row of `tcp.order.Ordered` that first brought each byte; -1 where none did.

    ``first`` to ``is_duplicate`` are the rows, in order; ``direction``, ``byte`` (position) and ``seen`` (time of its first sight, ns) the bytes.
    """
    found = np.full(len(byte), -1, np.int64)
    for k in range(len(byte)):
        connection = direction[k] // 2
        lo, hi = first[connection], first[connection + 1]
        end = hi
        while lo < hi:
            middle = (lo + hi) // 2
            if time[middle] < seen[k]:
                lo = middle + 1
            else:
                hi = middle
        while lo < end and time[lo] == seen[k]:
            begins = position[lo] + (flags[lo] & SYN) // SYN
            if side[lo] == direction[k] % 2 and not is_duplicate[lo] and begins <= byte[k] < begins + payload[lo]:
                found[k] = lo
                break
            lo += 1
    return found
