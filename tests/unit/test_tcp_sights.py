"""When a tap had seen a stretch of a stream, against a plain look at every byte."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens.tcp.stream import whole_since

# Per direction pieces of the stream: how far behind the one before each begins, its length, when it was first seen.
PIECES = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(0, 50)), max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, min_size=1, max_size=3), st.data())
def test_a_stretch_is_whole_with_the_last_of_its_bytes_that_was_seen(
    directions: list[list[tuple[int, int, int]]], data: st.DataObject
) -> None:
    first, begin, end, time = [0], [], [], []
    seen: list[dict[int, int]] = []
    for pieces in directions:
        at = 10
        bytes_seen: dict[int, int] = {}
        for gap, size, when in pieces:
            at += gap
            begin.append(at)
            end.append(at + size)
            time.append(when)
            bytes_seen |= dict.fromkeys(range(at, at + size), when)
            at += size
        first.append(len(begin))
        seen.append(bytes_seen)
    asked = data.draw(st.lists(st.tuples(st.integers(0, len(directions) - 1), st.integers(5, 45), st.integers(1, 20)), max_size=8))
    expected = [max((seen[d].get(byte, -1) for byte in range(low, low + size)), default=-1) for d, low, size in asked]
    columns = [np.array(column, np.int64) for column in (first, begin, end, time)]
    stretches = [
        np.array(column, np.int64)
        for column in ([d for d, _, _ in asked], [low for _, low, _ in asked], [low + size for _, low, size in asked])
    ]
    assert whole_since(*columns, *stretches).tolist() == expected
