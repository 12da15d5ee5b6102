"""Holes in what was captured of a direction: disjoint ranges of sequence space, in order, between what is known of it.

``holes`` is [2, capacity, WORDS], a row of the first index per side; ``count`` [2] how many there are. A pass makes room before each packet
(`HEADROOM`); the functions here add no more than that.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.tcp.content import Int64s

FROM: Final = 0
TO: Final = 1
OPENED: Final = 2  # when the packet above it was captured, ns
ID: Final = 3  # IP id of that packet, -1 none
TSVAL: Final = 4  # timestamp of that packet, -1 none
ACK_ROW: Final = 5  # which row acknowledged it, -1 none
ACK_TIME: Final = 6
BEFORE: Final = 7  # 1: may have been sent before the capture began
SENT: Final = 8  # the sender's data segments captured by then
WORDS: Final = 9
HEADROOM: Final = 8


@njit(cache=True, nogil=True)
def larger(holes: Int64s, count: Int64s) -> Int64s:
    """The same holes with twice the room."""
    copy = np.empty((2, 2 * holes.shape[1], WORDS), np.int64)
    for side in range(2):
        copy[side, : count[side]] = holes[side, : count[side]]
    return copy


@njit(cache=True, nogil=True)
def first_behind(holes: Int64s, side: int, count: int, position: int) -> int:
    """The first hole that ends behind ``position``."""
    if count == 0 or holes[side, count - 1, TO] <= position:  # nothing is missing any more where most packets are
        return count
    lo, hi = 0, count
    while lo < hi:
        middle = (lo + hi) // 2
        if holes[side, middle, TO] <= position:
            lo = middle + 1
        else:
            hi = middle
    return lo


@njit(cache=True, nogil=True)
def overlap(holes: Int64s, side: int, count: int, start: int, end: int) -> int:
    """How many bytes of ``start`` to ``end`` are holes."""
    amount = 0
    k = first_behind(holes, side, count, start)
    while k < count and holes[side, k, FROM] < end:
        amount += min(end, holes[side, k, TO]) - max(start, holes[side, k, FROM])
        k += 1
    return amount


@njit(cache=True, nogil=True)
def _insert(holes: Int64s, side: int, count: Int64s, k: int) -> None:
    for j in range(count[side], k, -1):
        for word in range(WORDS):
            holes[side, j, word] = holes[side, j - 1, word]
    count[side] += 1


@njit(cache=True, nogil=True)
def _split(holes: Int64s, side: int, count: Int64s, k: int, position: int) -> None:
    """Make two of hole ``k``, the second from ``position`` on."""
    _insert(holes, side, count, k)
    holes[side, k, TO] = position
    holes[side, k + 1, FROM] = position


@njit(cache=True, nogil=True)
def _write(holes: Int64s, side: int, k: int, start: int, end: int, time: int, ip_id: int, tsval: int, before: bool, sent: int) -> None:
    holes[side, k, FROM] = start
    holes[side, k, TO] = end
    holes[side, k, OPENED] = time
    holes[side, k, ID] = ip_id
    holes[side, k, TSVAL] = tsval
    holes[side, k, ACK_ROW] = -1
    holes[side, k, ACK_TIME] = -1
    holes[side, k, BEFORE] = 1 if before else 0
    holes[side, k, SENT] = sent


@njit(cache=True, nogil=True)
def append(
    holes: Int64s, side: int, count: Int64s, start: int, end: int, time: int, ip_id: int, tsval: int, before: bool, sent: int
) -> None:
    """Open a hole above all others."""
    _write(holes, side, count[side], start, end, time, ip_id, tsval, before, sent)
    count[side] += 1


@njit(cache=True, nogil=True)
def put_before(holes: Int64s, side: int, count: Int64s, start: int, end: int, time: int, ip_id: int, tsval: int) -> None:
    """Open a hole below all others, where a packet shows that the space begins lower than was known."""
    _insert(holes, side, count, 0)
    _write(holes, side, 0, start, end, time, ip_id, tsval, True, 0)


@njit(cache=True, nogil=True)
def fill(holes: Int64s, side: int, count: Int64s, start: int, end: int) -> None:
    """Take ``start`` to ``end`` out of the holes."""
    k = first_behind(holes, side, count[side], start)
    if k < count[side] and holes[side, k, FROM] < start and holes[side, k, TO] > end:
        _insert(holes, side, count, k)
        holes[side, k, TO] = start
        holes[side, k + 1, FROM] = end
        return
    if k < count[side] and holes[side, k, FROM] < start:
        holes[side, k, TO] = start
        k += 1
    gone = k
    while gone < count[side] and holes[side, gone, TO] <= end:
        gone += 1
    if gone < count[side] and holes[side, gone, FROM] < end:
        holes[side, gone, FROM] = end
    if gone > k:
        for j in range(gone, count[side]):
            for word in range(WORDS):
                holes[side, k + j - gone, word] = holes[side, j, word]
        count[side] -= gone - k


@njit(cache=True, nogil=True)
def acknowledge(holes: Int64s, side: int, count: Int64s, before: int, ack: int, row: int, time: int) -> int:
    """Note that ``row`` acknowledged ``before`` to ``ack``; returns how many bytes of it are holes that the capture must have made."""
    unseen = 0
    k = first_behind(holes, side, count[side], before)
    if k < count[side] and holes[side, k, FROM] < before:  # of a hole that the first acknowledgement of all ended in, the rest
        _split(holes, side, count, k, before)
        k += 1
    while k < count[side] and holes[side, k, FROM] < ack:
        if holes[side, k, TO] > ack:
            _split(holes, side, count, k, ack)
        if holes[side, k, ACK_ROW] < 0 and holes[side, k, BEFORE] == 0:
            unseen += holes[side, k, TO] - holes[side, k, FROM]
        holes[side, k, ACK_ROW] = row
        holes[side, k, ACK_TIME] = time
        k += 1
    return unseen


@njit(cache=True, nogil=True)
def take_back(holes: Int64s, side: int, count: int, start: int, end: int, since: int, unseen: NDArray[Any]) -> None:
    """Subtract ``start`` to ``end`` from what rows acknowledged unseen at ``since`` or later: the data came right behind."""
    k = first_behind(holes, side, count, start)
    while k < count and holes[side, k, FROM] < end:
        if holes[side, k, ACK_ROW] >= 0 and holes[side, k, ACK_TIME] >= since and holes[side, k, BEFORE] == 0:
            unseen[holes[side, k, ACK_ROW]] -= min(end, holes[side, k, TO]) - max(start, holes[side, k, FROM])
        k += 1


@njit(cache=True, nogil=True)
def unfilled(holes: Int64s, side: int, count: int) -> int:
    """How many bytes are still missing, what may have been sent before the capture began left out."""
    amount = 0
    for k in range(count):
        if holes[side, k, BEFORE] == 0:
            amount += holes[side, k, TO] - holes[side, k, FROM]
    return amount
