"""Bytes captured of stretches of a stream, against sets of positions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_packets import MS, RST, SYN, Packet, rows_of

from brokerlens.tcp.captured import captured_bytes, covered
from brokerlens.tcp.order import order_packets
from brokerlens.tcp.segments import LABELS, follow_segments

START = 2**32 - 60  # so that streams wrap
SEGMENTS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 120), st.integers(0, 40), st.integers(0, 40)), max_size=30
)
STRETCHES = st.lists(st.tuples(st.integers(0, 3), st.integers(-20, 160), st.integers(1, 80)), max_size=12)


@settings(max_examples=200, deadline=None)
@given(SEGMENTS, STRETCHES)
def test_captured_bytes_are_those_of_any_copy(
    segments: list[tuple[int, int, int, int, int]], stretches: list[tuple[int, int, int]]
) -> None:
    packets = [Packet(side, side, START - 1, flags=SYN, address=address) for address in range(2) for side in range(2)]
    packets += [
        Packet((10 + n) * MS, side, START + offset, payload=size, captured=there, address=address, ip_id=n)
        for n, (address, side, offset, size, there) in enumerate(segments)
    ]
    rows = rows_of(packets)
    ordered = order_packets(rows)
    facts, _ = follow_segments(rows, ordered)
    held: dict[int, set[int]] = {d: set() for d in range(4)}
    origins = dict.fromkeys(range(4), 0)
    for i in range(len(ordered.row)):
        d, flags = int(2 * ordered.connection[i] + ordered.side[i]), int(rows.columns["flags"][ordered.row[i]])
        begin = int(ordered.position[i]) + bool(flags & SYN)
        if flags & SYN:
            origins[d] = begin
        if begin > 0 and not flags & RST and LABELS[facts.label[i]] != "keepalive":
            held[d] |= set(range(begin, begin + int(ordered.payload_captured[i])))
    direction = np.array([d for d, _, _ in stretches], np.int64)
    start = np.array([origins[d] + offset for d, offset, _ in stretches], np.int64)
    size = np.array([length for _, _, length in stretches], np.int64)
    expected = [len(held[d] & set(range(at, at + length))) for d, at, length in zip(direction, start.tolist(), size, strict=True)]
    assert captured_bytes(rows, ordered, facts, direction, start, size).tolist() == expected


def test_a_stretch_is_covered_by_its_own_direction_only() -> None:
    offsets, begins, ends = np.array([0, 0, 2, 3]), np.array([10, 30, 12]), np.array([20, 40, 14])
    direction, start, size = np.array([0, 1, 1, 2, 2]), np.array([10, 15, 20, 0, 14]), np.array([30, 20, 10, 50, 9])
    assert covered(offsets, begins, ends, direction, start, size).tolist() == [0, 10, 0, 2, 0]
