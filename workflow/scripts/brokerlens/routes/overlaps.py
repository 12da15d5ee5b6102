"""Ranges of offsets that meet: which produced batches lie in which fetched ones."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Int64s = NDArray[np.int64]


@njit(cache=True, nogil=True)
def overlaps(p_log: Int64s, p_last: Int64s, f_log: Int64s, f_first: Int64s, f_last: Int64s) -> tuple[Int64s, Int64s]:
    """Which produced batches have their last offset in the range of which fetched ones: places of both, in the order of the fetched.

    int64[n] and int64[m], ordered by log, then by last offset (produced) and first offset (fetched).
    """
    room, used = len(f_log) + 16, 0
    produced, fetched = np.empty(room, np.int64), np.empty(room, np.int64)
    begin = 0
    for f in range(len(f_log)):
        while begin < len(p_log) and (p_log[begin] < f_log[f] or (p_log[begin] == f_log[f] and p_last[begin] < f_first[f])):
            begin += 1
        p = begin
        while p < len(p_log) and p_log[p] == f_log[f] and p_last[p] <= f_last[f]:
            if used == room:
                larger = np.empty((2, 2 * room), np.int64)
                larger[0, :room], larger[1, :room] = produced, fetched
                produced, fetched, room = larger[0].copy(), larger[1].copy(), 2 * room
            produced[used], fetched[used] = p, f
            used += 1
            p += 1
    return produced[:used].copy(), fetched[:used].copy()
