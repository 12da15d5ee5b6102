"""Packets put in order: identical copies collapsed, connections told apart, sequence numbers unwrapped, duplicates flagged.

The order is by time; packets of one time are ordered by what they contain, never by the file they came from, so that nothing depends
on how the packets were spread over captures. All passes are linear in the number of rows but for the sorting of rows out of order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.tcp.content import ACK, FIN, RST, SYN, Bools, Content, Int64s, at, column, content_of, wrapped_difference
from brokerlens.tcp.duplicates import flag_duplicates
from brokerlens.tcp.generations import tell_connections_apart
from brokerlens.tcp.unwrap import unwrap

if TYPE_CHECKING:
    from brokerlens.capture.working import Rows

__all__ = ["ACK", "FIN", "RST", "SYN", "Ordered", "order_packets"]


@dataclass
class Ordered:
    """The rows of a shard that survive the collapse of identical copies, by connection, then time.

    Rows: ``row`` (index into ``Rows.columns``; of identical copies the one captured longest), ``connection``, ``side``, ``time`` (ns),
    ``position`` (unwrapped sequence number), ``ack_position`` (the same in the other side's space); both -1 for RST and for numbers
    that cannot be, the latter also without ACK;
    ``is_duplicate``; ``duplicate`` says why (index into `duplicates.DUPLICATES`) and ``duplicate_gap`` how long after the packet that it copies
    it came (ns, -1 unknown); ``payload_captured``.
    Connections: ``first`` (row offsets, one more than connections), ``address`` (index into ``Rows.connections``), ``generation``
    (from 1 on each address). ``copies`` counts the rows that were collapsed.
    Kept runs, by row and offset, disjoint: ``kept_row`` (index of a row here), ``kept_offset``, ``kept_length``, ``kept_at`` (in ``Rows.data``).
    """

    row: Int64s
    connection: Int64s
    side: Int64s
    time: Int64s
    position: Int64s
    ack_position: Int64s
    is_duplicate: Bools
    duplicate: NDArray[np.uint8]
    duplicate_gap: Int64s
    payload_captured: Int64s
    first: Int64s
    address: Int64s
    generation: Int64s
    copies: int
    kept_row: Int64s
    kept_offset: Int64s
    kept_length: Int64s
    kept_at: Int64s


@njit(cache=True, nogil=True)
def _group_by_connection(connection: NDArray[Any], connections: int) -> tuple[Int64s, Int64s]:
    """Row numbers by connection, stable, and each connection's first place: a counting sort."""
    first = np.zeros(connections + 1, np.int64)
    for i in range(len(connection)):
        first[at(connection, i) + 1] += 1
    for c in range(connections):
        first[c + 1] += first[c]
    place = first[:-1].copy()
    order = np.empty(len(connection), np.int64)
    for i in range(len(connection)):
        c = at(connection, i)
        order[place[c]] = i
        place[c] += 1
    return order, first


@njit(cache=True, nogil=True)
def _sort_by_time(order: Int64s, first: Int64s, time: Int64s) -> None:
    """Put each connection's rows in order of time; captures follow each other, so most are in order already."""
    for c in range(len(first) - 1):
        lo, hi = first[c], first[c + 1]
        in_order = True
        for i in range(lo + 1, hi):
            if time[order[i]] < time[order[i - 1]]:
                in_order = False
                break
        if not in_order:
            rows = order[lo:hi].copy()
            order[lo:hi] = rows[np.argsort(time[rows], kind="mergesort")]


@njit(cache=True, nogil=True)
def _compare(content: Content, a: int, b: int, reference: Int64s) -> int:
    """The order of two packets of one time by content: below 0, 0 (identical), above 0.

    SYN first, direction, unwrapped sequence number (relative to ``reference`` of the direction), ack, IP id, then every other field.
    """
    difference = (at(content.flags, b) & SYN) - (at(content.flags, a) & SYN)
    if difference != 0:
        return difference
    side = at(content.from_broker, a)
    difference = side - at(content.from_broker, b)
    if difference != 0:
        return difference
    difference = wrapped_difference(at(content.seq, a), reference[side]) - wrapped_difference(at(content.seq, b), reference[side])
    if difference != 0:
        return difference
    difference = at(content.ack, a) - at(content.ack, b)
    if difference != 0:
        return difference
    difference = at(content.ip_id, a) - at(content.ip_id, b)
    if difference != 0:
        return difference
    difference = at(content.flags, a) - at(content.flags, b)
    if difference != 0:
        return difference
    difference = at(content.window, a) - at(content.window, b)
    if difference != 0:
        return difference
    difference = at(content.ttl, b) - at(content.ttl, a)  # the copy that took fewer hops came first
    if difference != 0:
        return difference
    for k in range(len(content.words)):
        difference = at(content.words[k], a) - at(content.words[k], b)
        if difference != 0:
            return difference
    return 0


@njit(cache=True, nogil=True)
def _sort_run(order: Int64s, lo: int, hi: int, spare: Int64s, content: Content, reference: Int64s) -> None:
    """Sort rows ``order[lo:hi]`` of one time by content: a merge sort from the bottom, stable."""
    width = 1
    while width < hi - lo:
        for start in range(lo, hi, 2 * width):
            middle = min(start + width, hi)
            end = min(start + 2 * width, hi)
            left, right = start, middle
            for k in range(start, end):
                if left < middle and (right >= end or _compare(content, order[left], order[right], reference) <= 0):
                    spare[k] = order[left]
                    left += 1
                else:
                    spare[k] = order[right]
                    right += 1
        for k in range(lo, hi):
            order[k] = spare[k]
        width *= 2


@njit(cache=True, nogil=True)
def _sort_ties(order: Int64s, first: Int64s, content: Content) -> None:
    """Order packets of the same connection and time by content.

    A direction's reference for unwrapping is its last sequence number before, else the smallest among the packets of that time.
    """
    spare = np.empty(len(order), np.int64)
    last = np.empty(2, np.int64)
    reference = np.empty(2, np.int64)
    for c in range(len(first) - 1):
        last[0] = -1
        last[1] = -1
        i = first[c]
        end = first[c + 1]
        while i < end:
            j = i + 1
            while j < end and content.time[order[j]] == content.time[order[i]]:
                j += 1
            if j - i > 1:
                reference[0] = last[0]
                reference[1] = last[1]
                for k in range(i, j):
                    side = at(content.from_broker, order[k])
                    if last[side] < 0 and at(content.flags, order[k]) & RST == 0:
                        seq = at(content.seq, order[k])
                        reference[side] = seq if reference[side] < 0 else min(reference[side], seq)
                reference[0] = max(reference[0], 0)
                reference[1] = max(reference[1], 0)
                _sort_run(order, i, j, spare, content, reference)
            for k in range(i, j):
                if at(content.flags, order[k]) & RST == 0:
                    last[at(content.from_broker, order[k])] = at(content.seq, order[k])
            i = j


@njit(cache=True, nogil=True)
def _better_copy(
    a: int, b: int, captured: NDArray[Any], payload_captured: NDArray[Any], capture: NDArray[Any], frame: NDArray[Any]
) -> bool:
    """Whether row ``a`` is to stand for itself and its identical copy ``b``: captured longer, then by capture and frame."""
    if at(captured, a) != at(captured, b):
        return at(captured, a) > at(captured, b)
    if at(payload_captured, a) != at(payload_captured, b):
        return at(payload_captured, a) > at(payload_captured, b)
    if at(capture, a) != at(capture, b):
        return at(capture, a) < at(capture, b)
    return at(frame, a) < at(frame, b)


@njit(cache=True, nogil=True)
def _collapse(
    order: Int64s,
    first: Int64s,
    content: Content,
    captured: NDArray[Any],
    payload_captured: NDArray[Any],
    capture: NDArray[Any],
    frame: NDArray[Any],
) -> tuple[Int64s, Int64s, Int64s]:
    """Collapse identical copies (neighbours in ``order``).

    Returns the surviving rows, each address's first place among them, and for every row of the input the place of its survivor.
    """
    kept = np.empty(len(order), np.int64)
    home = np.empty(len(order), np.int64)
    kept_first = np.zeros(len(first), np.int64)
    reference = np.zeros(2, np.int64)
    n = 0
    for c in range(len(first) - 1):
        for i in range(first[c], first[c + 1]):
            row = order[i]
            same = i > first[c] and content.time[row] == content.time[order[i - 1]]
            if same and _compare(content, row, order[i - 1], reference) == 0:
                if _better_copy(row, kept[n - 1], captured, payload_captured, capture, frame):
                    kept[n - 1] = row
            else:
                kept[n] = row
                n += 1
            home[row] = n - 1
        kept_first[c + 1] = n
    return kept[:n].copy(), kept_first, home


@njit(cache=True, nogil=True)
def _unite_runs(row: Int64s, offset: Int64s, length: Int64s, at: Int64s) -> int:
    """Make kept runs (by row, offset) disjoint in place: later ones lose what an earlier one of the packet has. Returns how many stay."""
    n = 0
    last = -1
    end = 0
    for i in range(len(row)):
        if row[i] != last:
            last = row[i]
            end = 0
        cut = max(end - offset[i], 0)
        if cut >= length[i]:
            continue
        row[n], offset[n], length[n], at[n] = row[i], offset[i] + cut, length[i] - cut, at[i] + cut
        end = offset[n] + length[n]
        n += 1
    return n


@njit(cache=True, nogil=True)
def _longest_payload(home: Int64s, payload_captured: NDArray[Any], n: int) -> Int64s:
    longest = np.zeros(n, np.int64)
    for i in range(len(home)):
        longest[home[i]] = max(longest[home[i]], at(payload_captured, i))
    return longest


def _order_runs(rows: Rows, home: Int64s) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """Kept runs of all copies on their surviving rows, by row and offset, disjoint."""
    row = home[np.asarray(rows.kept_row, np.int64)]
    offset, length, at = (np.asarray(values, np.int64) for values in (rows.kept_offset, rows.kept_length, rows.kept_at))
    order = np.lexsort((-length, offset, row))
    row, offset, length, at = row[order], offset[order], length[order], at[order]
    n = _unite_runs(row, offset, length, at)
    return row[:n], offset[:n], length[:n], at[:n]


def order_packets(rows: Rows) -> Ordered:
    """Put all packets of a shard in order; see `Ordered`.

    Time and memory are linear in rows that are nearly in order of time, as rotated captures are.
    """
    content = content_of(rows)
    columns = rows.columns
    connection = column(columns["connection"], np.uint32)
    addresses = int(connection.max()) + 1 if len(connection) else 0
    order, first = _group_by_connection(connection, addresses)
    _sort_by_time(order, first, content.time)
    _sort_ties(order, first, content)
    payload_captured = column(columns["payload_captured"], np.uint32)
    captured, frame = column(columns["captured_len"], np.uint32), column(columns["frame_number"], np.uint32)
    kept, first, home = _collapse(order, first, content, captured, payload_captured, column(rows.capture, np.int32), frame)
    numbers, starts, address, generation = tell_connections_apart(kept, first, content)
    places = unwrap(kept, starts, content)
    kept_row, kept_offset, kept_length, kept_at = _order_runs(rows, home)
    duplicate, gap = flag_duplicates(kept, starts, content)
    return Ordered(
        row=kept,
        connection=numbers,
        side=content.from_broker[kept].astype(np.int64),
        time=content.time[kept],
        position=places[0::2].copy(),
        ack_position=places[1::2].copy(),
        is_duplicate=duplicate > 0,
        duplicate=duplicate,
        duplicate_gap=gap,
        payload_captured=_longest_payload(home, payload_captured, len(kept)),
        first=starts,
        address=address,
        generation=generation,
        copies=len(order) - len(kept),
        kept_row=kept_row,
        kept_offset=kept_offset,
        kept_length=kept_length,
        kept_at=kept_at,
    )
