"""Variation in time, each kind under its own name; none of them is "jitter" (RFC 5481 tells them apart).

All functions take samples in any order: ``group`` (an integer per sample: the connection, or connection and direction), ``time`` (ns), and
return `Values` in order of group and time, so that a caller can choose a window and a statistic. Samples are compared with the one before in
their group only.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from brokerlens.tcp.content import MILLISECOND, SECOND, Int64s, wrapped_difference

Float64s = NDArray[np.float64]

TICKS: Final = (
    1_000,
    1_000_000,
    4_000_000,
    10_000_000,
)  # ns, of the timestamp clocks in use (RFC 7323 asks for 1 ms to 1 s; Linux: 1 µs, 1, 4, 10 ms)
LEAST_SAMPLES: Final = 16  # fewer cannot tell a clock's tick, nor whether changes are larger than it
LEAST_SPAN: Final = SECOND
GAIN: Final = 16  # RFC 3550's J moves by a sixteenth of each difference, so it says nothing before so many
IDLE_FLOOR: Final = 200 * MILLISECOND


class Values(NamedTuple):
    """Values [k] in ms, with the time (ns) of the sample that made each, and its group."""

    value: Float64s
    time: Int64s
    group: Int64s


class OneWay(NamedTuple):
    """``changes`` of the one-way delay, and what RFC 3550's estimator makes of them: J after each, from the sixteenth of a flow on."""

    changes: Values
    smoothed: Values


def idle_gap(rtt_p95_ns: Int64s) -> Int64s:
    """Longest gap within one flow of packets, per group: 200 ms or four times the 95th percentile of its round trips (-1 unknown)."""
    return np.maximum(IDLE_FLOOR, 4 * np.asarray(rtt_p95_ns, np.int64))


def _by_group(group: Int64s, time: Int64s) -> NDArray[np.intp]:
    return np.lexsort((time, group))


def iat_changes(group: Int64s, time: Int64s, idle: Int64s) -> Values:
    """|change| of successive inter-arrival times, both at most the group's ``idle`` (ns, by group number): burstiness at the tap.

    Of data packets of one direction, without duplicates and what was sent again; its mean is `iat_mas`.
    """
    order = _by_group(group, time)
    group, time = group[order], time[order]
    gap = np.diff(time)
    near = (np.diff(group) == 0) & (gap <= idle[group[1:]])
    last = np.flatnonzero(near[1:] & near[:-1]) + 2
    return Values(np.abs(gap[last - 1] - gap[last - 2]) / MILLISECOND, time[last], group[last])


def rtt_ipdv(group: Int64s, time: Int64s, rtt_ns: Int64s, idle: Int64s) -> Values:
    """|change| of successive valid round trips that ended at most ``idle`` apart (RFC 3393, consecutive selection)."""
    order = _by_group(group, time)
    group, time, rtt_ns = group[order], time[order], rtt_ns[order]
    last = np.flatnonzero((np.diff(group) == 0) & (np.diff(time) <= idle[group[1:]])) + 1
    return Values(np.abs(rtt_ns[last] - rtt_ns[last - 1]) / MILLISECOND, time[last], group[last])


def rtt_pdv(group: Int64s, time: Int64s, rtt_ns: Int64s) -> Values:
    """Each round trip less the smallest of its group (RFC 5481, PDV)."""
    order = _by_group(group, time)
    group, time, rtt_ns = group[order], time[order], rtt_ns[order]
    least = np.full(int(group.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(least, group, rtt_ns)
    return Values((rtt_ns - least[group]) / MILLISECOND, time, group)


@njit(cache=True, nogil=True)
def _tick(span_time: int, span_ticks: int, ticks: Int64s) -> int:
    """The clock's tick (ns), -1 where none of the known ones comes within a tenth."""
    if span_ticks <= 0:
        return -1
    for tick in ticks:
        if 10 * abs(span_time - span_ticks * tick) <= span_ticks * tick:
            return int(tick)
    return -1


@njit(cache=True, nogil=True)
def _above_lower_hull(x: Int64s, y: Int64s) -> Float64s:
    """Distance of each point from the line below all of them that lies nearest to them: the lower hull's edge over the mean of ``x``.

    A clock that runs faster or slower shows as that line's slope (Moon, Skelly and Towsley 1999). ``x`` must rise.
    """
    hull = np.empty(len(x), np.int64)
    n = 0
    for k in range(len(x)):
        while n > 1:
            a, b = hull[n - 2], hull[n - 1]
            if float(y[b] - y[a]) * float(x[k] - x[a]) < float(y[k] - y[a]) * float(x[b] - x[a]):
                break
            n -= 1
        hull[n] = k
        n += 1
    center = 0.0
    for k in range(len(x)):
        center += float(x[k] - x[0]) / len(x)
    edge = 0
    while edge + 2 < n and float(x[hull[edge + 1]] - x[0]) < center:
        edge += 1
    a, b = hull[edge], hull[min(edge + 1, n - 1)]
    slope = float(y[b] - y[a]) / float(x[b] - x[a]) if x[b] > x[a] else 0.0
    above = np.empty(len(x), np.float64)
    for k in range(len(x)):
        above[k] = float(y[k] - y[a]) - slope * float(x[k] - x[a])
    return above


@njit(cache=True, nogil=True)
def _one_way(
    first: Int64s, time: Int64s, tsval: Int64s, idle: Int64s, groups: Int64s, ticks: Int64s
) -> tuple[Float64s, Int64s, Float64s]:  # fmt: skip
    value = np.empty(len(time), np.float64)
    smoothed = np.empty(len(time), np.float64)
    row = np.empty(len(time), np.int64)
    x = np.empty(len(time), np.int64)
    y = np.empty(len(time), np.int64)
    chosen = np.empty(len(time), np.int64)
    used = 0
    for g in range(len(first) - 1):
        n = 0
        latest = 0
        for i in range(first[g], first[g + 1]):
            step = 0 if n == 0 else wrapped_difference(tsval[i], latest & 0xFFFFFFFF)
            if n > 0 and (step <= 0 or time[i] <= x[n - 1]):
                continue
            latest = tsval[i] if n == 0 else latest + step
            x[n] = time[i]
            y[n] = latest
            chosen[n] = i
            n += 1
        if n < LEAST_SAMPLES or x[n - 1] - x[0] < LEAST_SPAN:
            continue
        tick = _tick(x[n - 1] - x[0], y[n - 1] - y[0], ticks)
        if tick < 0:
            continue
        start = y[0]
        for k in range(n):
            y[k] = (x[k] - x[0]) - (y[k] - start) * tick
        above = _above_lower_hull(x[:n], y[:n])
        begin = used
        total = 0.0
        j = 0.0
        steps = 0
        for k in range(1, n):
            if x[k] - x[k - 1] > idle[groups[g]]:
                j, steps = 0.0, 0
                continue
            value[used] = abs(above[k] - above[k - 1])
            total += value[used]
            j += (value[used] - j) / GAIN
            steps += 1
            smoothed[used] = j if steps >= GAIN else np.nan
            row[used] = chosen[k]
            used += 1
        if used - begin < LEAST_SAMPLES or total / (used - begin) <= tick:
            used = begin
    return value[:used].copy(), row[:used].copy(), smoothed[:used].copy()


def owdv(group: Int64s, time: Int64s, tsval: Int64s, idle: Int64s) -> OneWay:
    """|change| of successive one-way delays from the sender to the tap, from the sender's timestamps: RFC 3550's D, and its J, begun anew behind an idle gap.

    Of data packets of one direction that were sent once; only the first packet of each timestamp counts. The sender's clock rate is told from
    the data and its skew taken out. Groups with less than 16 changes, or whose mean change is not larger than a tick, have no values: the clock is
    too coarse for them. Says nothing about packets that the tapped host itself sent.
    """
    order = _by_group(group, time)
    group, time = group[order], time[order]
    groups, starts = np.unique(group, return_index=True)
    first = np.append(starts, len(group)).astype(np.int64)
    value, row, smoothed = _one_way(
        first, time, tsval[order].astype(np.int64), np.asarray(idle, np.int64), groups.astype(np.int64), np.array(TICKS, np.int64)
    )
    told = ~np.isnan(smoothed)
    return OneWay(
        Values(value / MILLISECOND, time[row], group[row]), Values(smoothed[told] / MILLISECOND, time[row[told]], group[row[told]])
    )
