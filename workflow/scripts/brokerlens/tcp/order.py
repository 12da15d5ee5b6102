"""Packets put in order: identical copies collapsed, connections told apart, sequence numbers unwrapped, duplicates flagged.

The order is by time; packets of one time are ordered by what they contain, never by the file they came from, so that nothing depends
on how the packets were spread over captures. All passes are linear in the number of rows but for the sorting of rows out of order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

if TYPE_CHECKING:
    from brokerlens.capture.working import Rows

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10

MILLISECOND: Final = 1_000_000
SECOND: Final = 1_000_000_000
DUPLICATE_WINDOW: Final = MILLISECOND  # copies made by a capture: below half of any round trip between hosts worth comparing
NETWORK_WINDOW: Final = SECOND  # copies made by the network
IDLE_SPLIT: Final = 15 * 60 * SECOND  # longer than any idle timeout of Kafka's
LATE_SYN: Final = SECOND  # a SYN captured behind its connection's first data
EPOCH: Final = 1 << 32
HALF: Final = 1 << 31
FAR: Final = 1 << 30  # the largest window that TCP can have (RFC 7323)
NEAR: Final = 1 << 20

# Words of a packet's content that have four bytes, compared after the fields that the order of ties names.
WORDS: Final = ("header_hash", "wire_len", "interface", "payload_len", "tsval", "tsecr") + tuple(
    f"sack{block}_{end}" for block in range(1, 5) for end in ("from", "to")
)
W_INTERFACE: Final = 2
W_PAYLOAD: Final = 3
W_TSVAL: Final = 4  # from here on: what a copy with another time to live has in common with its original


@dataclass
class Ordered:
    """The rows of a shard that survive the collapse of identical copies, by connection, then time.

    Rows: ``row`` (index into ``Rows.columns``; of identical copies the one captured longest), ``connection``, ``side``, ``time`` (ns),
    ``position`` (unwrapped sequence number), ``ack_position`` (the same in the other side's space); both -1 for RST and for numbers
    that cannot be, the latter also without ACK;
    ``is_duplicate``, ``payload_captured``.
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
    payload_captured: Int64s
    first: Int64s
    address: Int64s
    generation: Int64s
    copies: int
    kept_row: Int64s
    kept_offset: Int64s
    kept_length: Int64s
    kept_at: Int64s


class Content(NamedTuple):
    """What the order of ties and the search for copies read of a packet; arrays over all rows."""

    time: Any  # int64
    from_broker: Any  # bool
    seq: Any  # uint32
    ack: Any  # uint32
    flags: Any  # uint16
    window: Any  # uint16
    ip_id: Any  # int32
    ttl: Any  # uint8
    words: Any  # tuple of uint32 arrays, one for each of WORDS


@njit(cache=True, nogil=True)
def at(values: NDArray[Any], i: int) -> int:
    """``values[i]`` as a signed number: unsigned ones would wrap, or turn into floats where they meet signed ones."""
    return int(np.int64(values[i]))


@njit(cache=True, nogil=True)
def wrapped_difference(a: int, b: int) -> int:
    """``a - b`` of two 32-bit numbers as the nearest signed distance, -2^31 to 2^31 - 1 (RFC 1982)."""
    return ((a - b + HALF) & (EPOCH - 1)) - HALF


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
def _better_copy(a: int, b: int, captured: NDArray[Any], payload_captured: NDArray[Any], capture: NDArray[Any], frame: NDArray[Any]) -> bool:
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


# What the search for generations knows of the connection that it is in, a word each; words for both sides stand two by two.
G_ISN: Final = 0  # sequence number of the side's SYN, -1 unknown
G_LOW: Final = 2  # sequence number of the side's first packet that is no SYN, -1 none
G_LAST: Final = 4  # last sequence number of the side, -1 none
G_ACKED: Final = 6  # last acknowledgement of the side, -1 none
G_FIN: Final = 8
G_CLOSED: Final = 10
G_BEGAN: Final = 11
G_TIME: Final = 12
G_SYN_TIME: Final = 13
G_SYN_ID: Final = 14
G_ROWS: Final = 15
G_WORDS: Final = 16


@njit(cache=True, nogil=True)
def _syn_follows(g: Int64s, isn: int, side: int, time: int) -> bool:
    """Whether a SYN whose side has no known SYN belongs to the packets seen so far, having been captured behind them."""
    soon = time - g[G_BEGAN] <= LATE_SYN
    if g[G_LOW + side] >= 0:
        return bool(soon and 0 <= wrapped_difference(g[G_LOW + side], isn + 1) < NEAR)
    if g[G_ACKED + 1 - side] >= 0:
        return bool(soon and 0 <= wrapped_difference(g[G_ACKED + 1 - side], isn + 1) < NEAR)
    return g[G_LOW + 1 - side] < 0


@njit(cache=True, nogil=True)
def _begins_connection(g: Int64s, flags: int, side: int, seq: int, time: int, ip_id: int) -> bool:
    """Whether this packet begins a new connection on the same addresses and ports (`tcp.md` 3.0)."""
    if g[G_ROWS] == 0:
        return False
    closed = g[G_CLOSED] != 0
    if flags & SYN and not flags & RST:
        isn = g[G_ISN + side]
        if flags & ACK:
            if isn >= 0:
                return bool(closed and isn != seq)
            return bool(closed or (g[G_ISN + 1 - side] < 0 and g[G_LOW + side] >= 0 and not _syn_follows(g, seq, side, time)))
        if isn < 0:
            return bool(closed or not _syn_follows(g, seq, side, time))
        if isn != seq:
            return True
        copied = time - g[G_SYN_TIME] <= DUPLICATE_WINDOW or (ip_id > 0 and ip_id == g[G_SYN_ID])
        return bool(closed and not copied)
    if time - g[G_TIME] > IDLE_SPLIT and not flags & RST:
        before = g[G_LAST + side] if g[G_LAST + side] >= 0 else g[G_ACKED + 1 - side]
        return bool(before >= 0 and abs(wrapped_difference(seq, before)) > FAR)
    return False


@njit(cache=True, nogil=True)
def _note_packet(g: Int64s, flags: int, side: int, seq: int, ack: int, time: int, ip_id: int) -> None:
    """Take one packet into what is known of its connection."""
    if g[G_ROWS] == 0:
        g[G_BEGAN] = time
    g[G_ROWS] += 1
    g[G_TIME] = time
    if flags & RST:
        g[G_CLOSED] = 1
        return
    g[G_LAST + side] = seq
    if flags & SYN:
        g[G_ISN + side] = seq
        if not flags & ACK:
            g[G_SYN_TIME] = time
            g[G_SYN_ID] = ip_id
    elif g[G_LOW + side] < 0:
        g[G_LOW + side] = seq
    if flags & ACK:
        g[G_ACKED + side] = ack
    if flags & FIN:
        g[G_FIN + side] = 1
        if g[G_FIN + 1 - side]:
            g[G_CLOSED] = 1


@njit(cache=True, nogil=True)
def _forget(g: Int64s) -> None:
    g[:] = 0
    g[G_ISN:G_FIN] = -1


@njit(cache=True, nogil=True)
def _tell_connections_apart(rows: Int64s, first: Int64s, content: Content) -> tuple[Int64s, Int64s, Int64s, Int64s]:
    """Connection number of each row, and per connection its first row (one more at the end), address and generation."""
    connection = np.empty(len(rows), np.int64)
    starts = np.empty(len(rows) + 1, np.int64)
    address = np.empty(len(rows), np.int64)
    generation = np.empty(len(rows), np.int64)
    g = np.empty(G_WORDS, np.int64)
    c = -1
    for a in range(len(first) - 1):
        _forget(g)
        for i in range(first[a], first[a + 1]):
            row = rows[i]
            flags, seq, ip_id = at(content.flags, row), at(content.seq, row), at(content.ip_id, row)
            side, time = at(content.from_broker, row), content.time[row]
            again = _begins_connection(g, flags, side, seq, time, ip_id)
            if i == first[a] or again:
                c += 1
                starts[c] = i
                address[c] = a
                generation[c] = generation[c - 1] + 1 if again else 1
                _forget(g)
            _note_packet(g, flags, side, seq, at(content.ack, row), time, ip_id)
            connection[i] = c
    starts[c + 1] = len(rows)
    return connection, starts[: c + 2].copy(), address[: c + 1].copy(), generation[: c + 1].copy()


# Unwrapping, per sequence space: the last place (-1 none), and a value too far from it that waits for a second one to agree.
U_LAST: Final = 0
U_WAITS: Final = 1
U_ROW: Final = 2  # whose value waits: row, doubled, and 1 more where it is an acknowledgement
U_WORDS: Final = 3


@njit(cache=True, nogil=True)
def _place(value: int, number: int, space: Int64s, places: Int64s) -> int:
    """Unwrap a 32-bit number of a sequence space; ``number`` is its index in ``places``, where a value that waited may be put.

    A value more than 2^30 away (no window is larger) gets no place, -1, unless the next one agrees with it: one wrong value
    shifts nothing, and a capture that lacks gigabytes goes on.
    """
    if space[U_LAST] < 0:
        space[U_LAST] = EPOCH + value
        return EPOCH + value
    step = wrapped_difference(value, space[U_LAST] & (EPOCH - 1))
    place = int(space[U_LAST] + step)
    if abs(step) > FAR:
        if space[U_WAITS] < 0 or abs(place - space[U_WAITS]) > FAR:
            space[U_WAITS] = place
            space[U_ROW] = number
            return -1
        places[space[U_ROW]] = space[U_WAITS]
    space[U_LAST] = place
    space[U_WAITS] = -1
    return place


@njit(cache=True, nogil=True)
def _unwrap(rows: Int64s, first: Int64s, content: Content) -> Int64s:
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
                places[2 * i] = _place(at(content.seq, row), 2 * i, spaces[side], places)
                if flags & ACK:
                    places[2 * i + 1] = _place(at(content.ack, row), 2 * i + 1, spaces[1 - side], places)
    return places


@njit(cache=True, nogil=True)
def _flag_other_interfaces(rows: Int64s, first: Int64s, content: Content, duplicate: Bools) -> None:
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
                duplicate[i] = True


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
def _find_copies(rows: Int64s, first: Int64s, content: Content, skip: Bools) -> tuple[Int64s, Int64s]:
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


MOST_COPIES: Final = 8


@njit(cache=True, nogil=True)
def _usual_copies(lo: int, hi: int, number: Int64s, skip: Bools) -> int:
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
def _flag_copies(rows: Int64s, first: Int64s, content: Content, duplicate: Bools) -> None:
    """Flag copies of a packet made by the capture (within 1 ms) or the network (within 1 s), rules 2 to 4 of `tcp.md` 3.2.

    Packets with an IP id of their own are copies when it is the same. For others (id 0, IPv6) only connections whose packets are
    captured several times throughout tell a copy from a second packet with equal fields.
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
                duplicate[i] = True
            elif usual > 0 and gap[i] <= DUPLICATE_WINDOW:
                duplicate[i] = number[i] % usual != 0


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


def _column(values: NDArray[Any], kind: Any) -> NDArray[Any]:
    """The column as kernels are compiled for it: contiguous, writable, of the one type."""
    return np.require(values, dtype=kind, requirements=["C", "W"])


def content_of(rows: Rows) -> Content:
    """The columns of ``rows`` that decide order and copies."""
    columns = rows.columns
    return Content(
        time=_column(columns["timestamp"], np.int64),
        from_broker=_column(columns["from_broker"], np.bool_),
        seq=_column(columns["seq"], np.uint32),
        ack=_column(columns["ack"], np.uint32),
        flags=_column(columns["flags"], np.uint16),
        window=_column(columns["window"], np.uint16),
        ip_id=_column(columns["ip_id"], np.int32),
        ttl=_column(columns["ttl"], np.uint8),
        words=tuple(_column(columns[name], np.uint32) for name in WORDS),
    )


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
    connection = _column(columns["connection"], np.uint32)
    addresses = int(connection.max()) + 1 if len(connection) else 0
    order, first = _group_by_connection(connection, addresses)
    _sort_by_time(order, first, content.time)
    _sort_ties(order, first, content)
    payload_captured = _column(columns["payload_captured"], np.uint32)
    captured, frame = _column(columns["captured_len"], np.uint32), _column(columns["frame_number"], np.uint32)
    kept, first, home = _collapse(order, first, content, captured, payload_captured, _column(rows.capture, np.int32), frame)
    numbers, starts, address, generation = _tell_connections_apart(kept, first, content)
    places = _unwrap(kept, starts, content)
    duplicate = np.zeros(len(kept), np.bool_)
    _flag_other_interfaces(kept, starts, content, duplicate)
    _flag_copies(kept, starts, content, duplicate)
    kept_row, kept_offset, kept_length, kept_at = _order_runs(rows, home)
    return Ordered(
        row=kept,
        connection=numbers,
        side=content.from_broker[kept].astype(np.int64),
        time=content.time[kept],
        position=places[0::2].copy(),
        ack_position=places[1::2].copy(),
        is_duplicate=duplicate,
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
