"""Round trips: segments that wait for their acknowledgement, and summaries of the samples per connection.

A sample counts only where nothing makes it ambiguous (`tcp.md` 3.7): every byte sent once (Karn's rule, RFC 6298), no hole below the segment
since it was sent and nothing below it sent again (else the acknowledgement waited for another segment), and the acknowledgement ends where
the segment ends, or is the first one inside a segment larger than the MSS (segmentation offload).

``queue`` is [2, capacity, WORDS], a row of the first index per sender, in order of position; ``ends`` [2, 3] its head, its tail, and how many
of its bytes were acknowledged selectively.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.tcp.content import Int64s

FROM: Final = 0
TO: Final = 1
TIME: Final = 2
MARK: Final = 3
PAYLOAD: Final = 4
LATEST: Final = 5  # when it was sent last
WORDS: Final = 6

# Marks: bits. A segment that waits behind a hole may still give a sample by a selective acknowledgement.
CLEAN: Final = 0
WAITS: Final = 1
SENT_AGAIN: Final = 2
DONE: Final = 4
SELECTED: Final = 8  # acknowledged selectively

HEAD: Final = 0
TAIL: Final = 1
SELECTED_BYTES: Final = 2
MOST: Final = 1 << 16  # segments in flight in 1 GiB; more than that wait only where one direction was captured


@njit(cache=True, nogil=True)
def _leave(queue: Int64s, side: int, ends: Int64s, k: int) -> None:
    """Segment ``k`` leaves the queue."""
    if queue[side, k, MARK] & SELECTED:
        ends[side, SELECTED_BYTES] -= queue[side, k, TO] - queue[side, k, FROM]


@njit(cache=True, nogil=True)
def make_room(queue: Int64s, ends: Int64s) -> Int64s:
    """The queue moved to its begin, and with twice the room where that is not enough; a full one loses its oldest half."""
    capacity = queue.shape[1]
    for side in range(2):
        if ends[side, TAIL] - ends[side, HEAD] >= MOST:
            for k in range(ends[side, HEAD], ends[side, TAIL] - MOST // 2):
                _leave(queue, side, ends, k)
            ends[side, HEAD] = ends[side, TAIL] - MOST // 2
    used = max(ends[0, TAIL] - ends[0, HEAD], ends[1, TAIL] - ends[1, HEAD])
    copy = np.empty((2, 2 * capacity if 2 * used > capacity else capacity, WORDS), np.int64)
    for side in range(2):
        n = ends[side, TAIL] - ends[side, HEAD]
        copy[side, :n] = queue[side, ends[side, HEAD] : ends[side, TAIL]]
        ends[side, HEAD] = 0
        ends[side, TAIL] = n
    return copy


@njit(cache=True, nogil=True)
def append(queue: Int64s, side: int, ends: Int64s, start: int, end: int, time: int, mark: int, payload: int) -> None:
    """A segment was sent."""
    k = ends[side, TAIL]
    queue[side, k, FROM] = start
    queue[side, k, TO] = end
    queue[side, k, TIME] = time
    queue[side, k, MARK] = mark
    queue[side, k, PAYLOAD] = payload
    queue[side, k, LATEST] = time
    ends[side, TAIL] = k + 1


@njit(cache=True, nogil=True)
def _first_behind(queue: Int64s, side: int, ends: Int64s, position: int) -> int:
    """The first segment that ends behind ``position``."""
    lo, hi = ends[side, HEAD], ends[side, TAIL]
    while lo < hi:
        middle = (lo + hi) // 2
        if queue[side, middle, TO] <= position:
            lo = middle + 1
        else:
            hi = middle
    return int(lo)


@njit(cache=True, nogil=True)
def outstanding(queue: Int64s, side: int, ends: Int64s, position: int) -> int:
    """The waiting segment that holds ``position``, -1 where none does."""
    k = _first_behind(queue, side, ends, position)
    return k if k < ends[side, TAIL] and queue[side, k, FROM] <= position else -1


@njit(cache=True, nogil=True)
def selected_above(queue: Int64s, side: int, ends: Int64s, position: int) -> int:
    """Bytes of waiting segments from ``position`` on that were acknowledged selectively."""
    amount = 0
    for k in range(ends[side, TAIL] - 1, ends[side, HEAD] - 1, -1):
        if queue[side, k, FROM] < position:
            break
        if queue[side, k, MARK] & SELECTED:
            amount += queue[side, k, TO] - queue[side, k, FROM]
    return amount


@njit(cache=True, nogil=True)
def taint(queue: Int64s, side: int, ends: Int64s, start: int, end: int, time: int) -> None:
    """``start`` to ``end`` was sent again: its own segments are ambiguous, those above it wait for it."""
    for k in range(ends[side, TAIL] - 1, ends[side, HEAD] - 1, -1):
        if queue[side, k, TO] <= start:
            break
        if queue[side, k, FROM] < end:
            queue[side, k, MARK] |= SENT_AGAIN
            queue[side, k, LATEST] = time
        else:
            queue[side, k, MARK] |= WAITS


@njit(cache=True, nogil=True)
def acknowledge(queue: Int64s, side: int, ends: Int64s, ack: int, mss: int) -> int:
    """Take off what ``ack`` acknowledges; returns when the latest such segment was sent if that is a sample, else -1."""
    sent = -1
    while ends[side, HEAD] < ends[side, TAIL]:
        k = ends[side, HEAD]
        if queue[side, k, TO] > ack:
            if queue[side, k, FROM] < ack:
                if queue[side, k, MARK] == CLEAN and queue[side, k, PAYLOAD] > mss:
                    sent = queue[side, k, TIME]
                queue[side, k, MARK] |= DONE
            break
        if queue[side, k, TO] == ack and queue[side, k, MARK] == CLEAN:
            sent = queue[side, k, TIME]
        _leave(queue, side, ends, k)
        ends[side, HEAD] = k + 1
    return sent


@njit(cache=True, nogil=True)
def acknowledge_selectively(queue: Int64s, side: int, ends: Int64s, left: int, right: int) -> int:
    """Note a SACK block (RFC 2018); returns when the segment at its right end was sent if the block is the first to cover it and that is a sample, else -1."""
    sent = -1
    k = _first_behind(queue, side, ends, right) - 1
    if (
        k >= ends[side, HEAD]
        and queue[side, k, TO] == right
        and queue[side, k, FROM] >= left
        and queue[side, k, MARK] & (SENT_AGAIN | DONE) == 0
    ):
        sent = queue[side, k, TIME]
    while k >= ends[side, HEAD] and queue[side, k, FROM] >= left and queue[side, k, MARK] & DONE == 0:
        queue[side, k, MARK] |= DONE | SELECTED
        ends[side, SELECTED_BYTES] += queue[side, k, TO] - queue[side, k, FROM]
        k -= 1
    return sent


@njit(cache=True, nogil=True)
def _interpolated(samples: Int64s, share_of_20: int) -> float:
    """Quantile ``share_of_20 / 20`` of sorted samples by linear interpolation (Hyndman and Fan, type 7)."""
    steps = (len(samples) - 1) * share_of_20
    k = steps // 20
    if k + 1 >= len(samples):
        return float(samples[k])
    return float(samples[k]) + float(samples[k + 1] - samples[k]) * (steps - 20 * k) / 20.0


@njit(cache=True, nogil=True)
def summarize(rtt: Int64s, side: Int64s, first: Int64s) -> tuple[Int64s, NDArray[np.float64]]:
    """Per direction of the packets that ended them: number of samples [2C], and minimum, median and 95th percentile in ns [2C, 3] (NaN without)."""
    connections = len(first) - 1
    n = np.zeros(2 * connections, np.int64)
    values = np.full((2 * connections, 3), np.nan)
    samples = np.empty(len(rtt), np.int64)
    for c in range(connections):
        for this_side in range(2):
            used = 0
            for i in range(first[c], first[c + 1]):
                if rtt[i] >= 0 and side[i] == this_side:
                    samples[used] = rtt[i]
                    used += 1
            d = 2 * c + this_side
            n[d] = used
            if used > 0:
                ordered = np.sort(samples[:used])
                values[d, 0] = float(ordered[0])
                values[d, 1] = _interpolated(ordered, 10)
                values[d, 2] = _interpolated(ordered, 19)
    return n, values
