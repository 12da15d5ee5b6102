"""Round trips told by timestamps, against a list that is searched, and against a path whose delay is known."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens.tcp.stamps import timestamp_round_trips

MS = 1_000_000
Row = tuple[int, int, int, int, bool, bool]


def trips(rows: list[Row], connections: int = 1) -> list[int]:
    """The round trips of one connection's rows (side, time, tsval, tsecr, begins, answers), that many times over."""
    side, time, tsval, tsecr, begins, answers = (np.tile(np.array(column, np.int64), connections) for column in zip(*rows, strict=True))
    first = np.arange(connections + 1, dtype=np.int64) * len(rows)
    found: list[int] = timestamp_round_trips(first, side, time, tsval, tsecr, begins != 0, answers != 0).tolist()
    return found


def slowly(rows: list[Row]) -> list[int]:
    """The same by looking through all timestamps that wait."""
    waiting: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    latest: list[int | None] = [None, None]
    found = []
    for side, time, tsval, tsecr, begins, answers in rows:
        trip = -1
        theirs = waiting[1 - side]
        if answers:
            theirs[:] = [(value, since) for value, since in theirs if value >= tsecr]
            if theirs and theirs[0][0] == tsecr:
                waited = time - theirs.pop(0)[1]
                trip = waited if waited < 10_000 * MS else -1
        before = latest[side]
        if before is None or tsval > before:
            latest[side] = tsval
            if begins:
                waiting[side].append((tsval, time))
        found.append(trip)
    return found


@st.composite
def stamped(draw: st.DrawFn) -> list[Row]:
    rows: list[Row] = []
    time = 0
    for _ in range(draw(st.integers(1, 30))):
        time += draw(st.sampled_from((0, MS, 40 * MS, 6_000 * MS)))
        rows.append(
            (draw(st.integers(0, 1)), time, draw(st.integers(0, 12)), draw(st.integers(0, 12)), draw(st.booleans()), draw(st.booleans()))
        )
    return rows


@settings(max_examples=300, deadline=None)
@given(stamped(), st.sampled_from((0, 2**32 - 6)))
def test_as_if_all_that_wait_were_looked_through(rows: list[Row], start: int) -> None:
    """Also where the timestamps wrap, and the same for the next connection."""
    shifted = [(side, time, (tsval + start) % 2**32, (tsecr + start) % 2**32, *marks) for side, time, tsval, tsecr, *marks in rows]
    assert trips(shifted, connections=2) == 2 * slowly(rows)  # type: ignore[arg-type]  # the marks are two


def test_a_segment_sent_again_does_not_hide_the_round_trip() -> None:
    """Each copy has a timestamp of its own and its echo tells which of them it answers."""
    rows: list[Row] = [(0, 0, 10, 1, True, True), (0, 300 * MS, 310, 1, False, True), (1, 340 * MS, 5, 310, False, True), (0, 350 * MS, 360, 5, True, True),
                       (1, 391 * MS, 6, 360, False, True)]  # fmt: skip
    assert trips(rows) == [-1, -1, -1, -1, 41 * MS]
