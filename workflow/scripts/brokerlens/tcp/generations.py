"""Connections on the same addresses and ports told apart: SYNs, ends, and long pauses (`Ordered.generation` counts them)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from brokerlens.tcp.content import ACK, DUPLICATE_WINDOW, FAR, FIN, RST, SECOND, SYN, Content, Int64s, at, wrapped_difference

IDLE_SPLIT: Final = 15 * 60 * SECOND  # longer than any idle timeout of Kafka's
LATE_SYN: Final = SECOND  # a SYN captured behind its connection's first data
NEAR: Final = 1 << 20  # bytes that a side may have sent before its SYN turns up in the capture

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
    return bool(g[G_LOW + 1 - side] < 0)


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
def tell_connections_apart(rows: Int64s, first: Int64s, content: Content) -> tuple[Int64s, Int64s, Int64s, Int64s]:
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
