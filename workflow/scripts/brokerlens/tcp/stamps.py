"""Round trips told by TCP timestamps (RFC 7323): no retransmission makes them ambiguous, but they are no finer than the sender's clock."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from brokerlens.tcp.content import SECOND, Bools, Int64s, wrapped_difference

LONGEST: Final = 10 * SECOND  # an echo later than this answers something else


@njit(cache=True, nogil=True)
def _match(first: Int64s, side: Int64s, time: Int64s, tsval: Int64s, tsecr: Int64s, begins: Bools, answers: Bools) -> Int64s:
    trip = np.full(len(time), -1, np.int64)
    waiting = np.empty((2, len(time)), np.int64)  # rows whose timestamp waits for its echo, in order
    head, tail, latest = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    for c in range(len(first) - 1):
        head[:] = 0
        tail[:] = 0
        latest[:] = -1
        for i in range(first[c], first[c + 1]):
            mine, other = side[i], 1 - side[i]
            if answers[i]:
                while head[other] < tail[other] and wrapped_difference(tsval[waiting[other, head[other]]], tsecr[i]) < 0:
                    head[other] += 1
                if head[other] < tail[other] and tsval[waiting[other, head[other]]] == tsecr[i]:
                    waited = time[i] - time[waiting[other, head[other]]]
                    trip[i] = waited if waited < LONGEST else -1
                    head[other] += 1
            if latest[mine] < 0 or wrapped_difference(tsval[i], latest[mine]) > 0:
                latest[mine] = tsval[i]
                if begins[i]:
                    waiting[mine, tail[mine]] = i
                    tail[mine] += 1
    return trip


def timestamp_round_trips(first: Int64s, side: Int64s, time: Int64s, tsval: Int64s, tsecr: Int64s, begins: Bools, answers: Bools) -> Int64s:
    """The round trip (ns, -1 none) that each packet ended: since the first packet with the timestamp that it echoes first.

    Packets with timestamps, by connection (offsets ``first``), in order. ``begins``: carries payload, SYN or FIN for the first time and in its
    order, so that the other side must echo it; ``answers``: has the ACK flag. A timestamp that a packet without payload had before tells nothing.
    """
    return _match(first, side, time, tsval, tsecr, begins, answers)
