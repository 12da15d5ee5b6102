"""Copies of packets that the capture made, by watching several interfaces or a mirrored port, and copies that the network made.

They stay as rows and are counted nowhere. Evidence in order: the interface that a link header names; an IP id of the packet's own; for packets
without one, that the whole connection was captured several times over.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.tcp.content import DUPLICATE_WINDOW, SECOND, W_INTERFACE, W_PAYLOAD, W_TSVAL, Content, Int64s, at

Codes = NDArray[np.uint8]

DUPLICATES: Final = ("", "interface", "capture", "pattern", "network")
"""Why a packet is a copy: seen on another interface; the same IP id within 1 ms; its whole connection was captured several times; the same IP id within 1 s."""
NO_COPY, INTERFACE, CAPTURE, PATTERN, NETWORK = range(5)

NETWORK_WINDOW: Final = SECOND  # copies made by the network
MOST_COPIES: Final = 8


@njit(cache=True, nogil=True)
def _flag_other_interfaces(rows: Int64s, first: Int64s, content: Content, duplicate: Codes) -> None:
    """Of a connection seen on several interfaces keep the one with most packets, the lowest of equals (`tcp.md` 3.2, rule 1).

    A direction of which that interface has less than half as much as another keeps its own: traffic may leave by one interface and
    come by another.
    """
    interface = content.words[W_INTERFACE]
    for c in range(len(first) - 1):
        alike = True
        for i in range(first[c] + 1, first[c + 1]):
            if interface[rows[i]] != interface[rows[first[c]]]:
                alike = False
                break
        if alike:
            continue
        names = np.unique(interface[rows[first[c] : first[c + 1]]])
        count = np.zeros((3, len(names)), np.int64)
        for i in range(first[c], first[c + 1]):
            k = np.searchsorted(names, interface[rows[i]])
            count[at(content.from_broker, rows[i]), k] += 1
            count[2, k] += 1
        main = np.argmax(count[2])
        chosen = np.empty(2, np.int64)
        for side in range(2):
            most = np.argmax(count[side])
            chosen[side] = main if 2 * count[side, main] >= count[side, most] else most
        for i in range(first[c], first[c + 1]):
            if interface[rows[i]] != names[chosen[at(content.from_broker, rows[i])]]:
                duplicate[i] = INTERFACE


@njit(cache=True, nogil=True)
def _copy_hash(content: Content, row: int) -> int:
    """A hash of what a copy has in common with its original: all but the time to live and the checksum that covers it."""
    mixed = at(content.seq, row) * 2 + at(content.from_broker, row)
    mixed = (mixed ^ (at(content.ack, row) * 65537)) * 0x9E3779B1 & 0x7FFFFFFFFFFFFFF
    mixed = (mixed ^ (at(content.flags, row) << 34) ^ (at(content.window, row) << 16) ^ (at(content.ip_id, row) + 1)) & 0x7FFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 29)) & 0xFFFFFFFF) * 0x85EBCA6B & 0x7FFFFFFFFFFFFFF
    return (mixed >> 24) & 0xFFFF


@njit(cache=True, nogil=True)
def _is_copy(content: Content, a: int, b: int) -> bool:
    """Whether two rows are one packet seen twice, the time to live aside."""
    if content.seq[a] != content.seq[b] or content.ack[a] != content.ack[b] or content.flags[a] != content.flags[b]:
        return False
    if content.from_broker[a] != content.from_broker[b] or content.window[a] != content.window[b] or content.ip_id[a] != content.ip_id[b]:
        return False
    if content.words[W_PAYLOAD][a] != content.words[W_PAYLOAD][b]:
        return False
    for k in range(W_TSVAL, len(content.words)):
        if content.words[k][a] != content.words[k][b]:
            return False
    return True


@njit(cache=True, nogil=True)
def _find_copies(rows: Int64s, first: Int64s, content: Content, skip: Codes) -> tuple[Int64s, Int64s]:
    """Per row the gap to its latest copy in the second before (ns, -1 none) and its number in the run of copies a millisecond apart."""
    gap = np.full(len(rows), -1, np.int64)
    number = np.zeros(len(rows), np.int64)
    head = np.full(1 << 16, -1, np.int64)
    before = np.empty(len(rows), np.int64)
    for c in range(len(first) - 1):
        for i in range(first[c], first[c + 1]):
            if skip[i]:
                continue
            time = content.time[rows[i]]
            slot = _copy_hash(content, rows[i])
            k = head[slot]
            before[i] = k
            head[slot] = i
            while k >= first[c] and time - content.time[rows[k]] <= NETWORK_WINDOW:
                if _is_copy(content, rows[i], rows[k]):
                    gap[i] = time - content.time[rows[k]]
                    if gap[i] <= DUPLICATE_WINDOW:
                        number[i] = number[k] + 1
                    break
                k = before[k]
    return gap, number


@njit(cache=True, nogil=True)
def _ids_vary(rows: Int64s, lo: int, hi: int, side: int, content: Content, gap: Int64s) -> bool:
    """Whether a sender gives each packet an IP id of its own, as a copy's equal id is evidence only then."""
    last = -1
    changed = 0
    same = 0
    for i in range(lo, hi):
        if at(content.from_broker, rows[i]) != side or gap[i] >= 0:
            continue
        ip_id = at(content.ip_id, rows[i])
        if last > 0 and ip_id > 0:
            if ip_id == last:
                same += 1
            else:
                changed += 1
        last = ip_id
    return changed >= same


@njit(cache=True, nogil=True)
def _usual_copies(lo: int, hi: int, number: Int64s, skip: Codes) -> int:
    """How often this connection's packets were captured, if that was systematic, else 0 (`tcp.md` 3.2, rule 3)."""
    runs = np.zeros(MOST_COPIES + 1, np.int64)
    rows = 0
    for i in range(lo, hi):
        if skip[i]:
            continue
        rows += 1
        if number[i] < MOST_COPIES:
            runs[number[i] + 1] += 1
            runs[number[i]] -= 1 if number[i] > 0 else 0
    usual = 2
    several = 0
    copied = 0
    for k in range(2, MOST_COPIES + 1):
        several += runs[k]
        copied += k * runs[k]
        if runs[k] > runs[usual]:
            usual = k
    if copied < rows and (several < 3 or 10 * copied < 3 * rows or 10 * runs[usual] < 9 * several):
        return 0  # a few equal packets in a short connection are no system
    return usual


@njit(cache=True, nogil=True)
def _flag_copies(rows: Int64s, first: Int64s, content: Content, duplicate: Codes) -> Int64s:
    """Flag copies of a packet made by the capture (within 1 ms) or the network (within 1 s), rules 2 to 4 of `tcp.md` 3.2.

    Packets with an IP id of their own are copies when it is the same. For others (id 0, IPv6) only connections whose packets are
    captured several times throughout tell a copy from a second packet with equal fields. Returns the gap to the latest copy (ns, -1 none).
    """
    gap, number = _find_copies(rows, first, content, duplicate)
    vary = np.zeros(2, np.bool_)
    for c in range(len(first) - 1):
        lo, hi = first[c], first[c + 1]
        any_copy = False
        for i in range(lo, hi):
            if gap[i] >= 0:
                any_copy = True
                break
        if not any_copy:
            continue
        vary[0] = _ids_vary(rows, lo, hi, 0, content, gap)
        vary[1] = _ids_vary(rows, lo, hi, 1, content, gap)
        usual = _usual_copies(lo, hi, number, duplicate)
        for i in range(lo, hi):
            if gap[i] < 0:
                continue
            if at(content.ip_id, rows[i]) > 0 and vary[at(content.from_broker, rows[i])]:
                duplicate[i] = CAPTURE if gap[i] <= DUPLICATE_WINDOW else NETWORK
            elif usual > 0 and gap[i] <= DUPLICATE_WINDOW and number[i] % usual != 0:
                duplicate[i] = PATTERN
    return gap


def flag_duplicates(rows: Int64s, first: Int64s, content: Content) -> tuple[Codes, Int64s]:
    """Which of ``rows`` (by connection, then time; offsets ``first``) are copies of another, and why: indices into `DUPLICATES`.

    Beside it how long after the packet before it that it copies each came (ns; -1 where none was looked for or found).
    """
    duplicate = np.zeros(len(rows), np.uint8)
    _flag_other_interfaces(rows, first, content, duplicate)
    gap = _flag_copies(rows, first, content, duplicate)
    return duplicate, gap
