"""Segments sent again: what made the sender do it (`evidence.KINDS`), and whether what it sent had arrived after all.

``resent`` is [2, MOST, WORDS], the latest segments sent again by each side, a ring; ``count`` [2] how many there were in all.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.tcp import evidence as ev
from brokerlens.tcp.content import MILLISECOND, Int64s, wrapped_difference

FROM: Final = 0
TO: Final = 1
ROW: Final = 2
STAMP: Final = 3  # its timestamp, -1 where the first acknowledgement of it cannot tell, or has told
REPORTED: Final = 4  # 1: reported as a duplicate
WORDS: Final = 5
MOST: Final = 64  # sent again within the round trip after which a receiver reports

TIMEOUT: Final = 200 * MILLISECOND  # the smallest retransmission timeout in use
LONGEST_DELAY: Final = 200 * MILLISECOND  # of an acknowledgement, as senders of probes expect it
REACTION: Final = 20 * MILLISECOND  # a sender answers acknowledgements within this
DUPLICATES: Final = 3  # that make a fast retransmission (RFC 5681)


@njit(cache=True, nogil=True)
def timeout(smoothed: int, variation: int) -> int:
    """The retransmission timeout (RFC 6298) of a sender with this smoothed round trip and its variation (ns; -1 unknown), with the floor in use."""
    return TIMEOUT if smoothed < 0 else max(TIMEOUT, smoothed + 4 * variation)


@njit(cache=True, nogil=True)
def kind_of(
    bits: int, repeats: int, sacked: int, mss: int, reacts: bool, waited: int, at_least: bool, smoothed: int, timeout: int
) -> int:  # fmt: skip
    """What made a sender send again, index into `evidence.KINDS`.

    ``bits`` is the evidence so far; ``repeats`` the duplicate acknowledgements and ``sacked`` the bytes above it reported selectively before it;
    ``reacts``: it came right behind such a report; ``waited`` since it was sent last (ns, -1 unknown), ``at_least`` so long; ``smoothed`` round trip (ns, -1 where it
    cannot be a probe), ``timeout`` the retransmission timeout. A probe for a lost tail comes after two round trips, with one segment in
    flight up to 200 ms later, and never behind the timeout (RFC 8985, 7.2): where both are due, the probe is what is sent.
    """
    if reacts and (repeats >= DUPLICATES or sacked > 2 * mss):
        return ev.FAST
    probed = bits & ev.TAIL and smoothed >= 0 and (at_least or 2 * waited >= 3 * smoothed)
    if probed and 5 * waited <= 6 * max(2 * smoothed + LONGEST_DELAY, timeout):
        return ev.TAIL_PROBE
    if bits & ev.TIMEOUT_PASSED:
        return ev.TIMED_OUT
    return ev.RACK if bits & ev.SELECTIVE_ACKS else ev.UNKNOWN


@njit(cache=True, nogil=True)
def note(resent: Int64s, side: int, count: Int64s, start: int, end: int, row: int, stamp: int) -> None:
    """A segment was sent again; ``stamp`` -1 where it was not the oldest one outstanding, whose timestamp alone an acknowledgement must echo."""
    k = count[side] % MOST
    resent[side, k, FROM] = start
    resent[side, k, TO] = end
    resent[side, k, ROW] = row
    resent[side, k, STAMP] = stamp
    resent[side, k, REPORTED] = 0
    count[side] += 1


@njit(cache=True, nogil=True)
def acknowledge(resent: Int64s, side: int, count: Int64s, ack: int, echo: int, evidence: NDArray[Any]) -> None:
    """An acknowledgement moved on: one that covers what was sent again, but echoes an older timestamp, answers the original (RFC 3522)."""
    for k in range(min(count[side], MOST)):
        if resent[side, k, STAMP] >= 0 and ack >= resent[side, k, TO]:
            if echo >= 0 and wrapped_difference(echo, resent[side, k, STAMP]) < 0:
                evidence[resent[side, k, ROW]] |= np.uint16(ev.EIFEL)
            resent[side, k, STAMP] = -1


@njit(cache=True, nogil=True)
def report(resent: Int64s, side: int, count: Int64s, left: int, right: int, evidence: NDArray[Any]) -> None:
    """The receiver has ``left`` to ``right`` twice (RFC 2883): of what was sent again in it the earliest not reported yet, each byte once."""
    told = left
    for n in range(max(count[side] - MOST, 0), count[side]):
        k = n % MOST
        if resent[side, k, REPORTED] == 0 and resent[side, k, FROM] >= told and resent[side, k, TO] <= right:
            evidence[resent[side, k, ROW]] |= np.uint16(ev.DSACK)
            resent[side, k, REPORTED] = 1
            told = resent[side, k, TO]
