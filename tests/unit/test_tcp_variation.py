"""Variation: each kind against what its definition says, clocks with skew, ticks and wraps among them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokerlens.tcp import variation

MS = 1_000_000
SECOND = 1_000 * MS
IDLE = np.full(8, 200 * MS, np.int64)
SAMPLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**10), st.integers(0, 10**9)), max_size=40)


def array(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


def test_inter_arrival_changes_need_two_gaps_that_are_not_idle() -> None:
    time = array([0, 10, 30, 35, 900, 910, 950]) * MS
    found = variation.iat_changes(np.zeros(7, np.int64), time, IDLE)
    assert found.value.tolist() == [10, 15, 30]
    assert (found.time // MS).tolist() == [30, 35, 950]


def test_round_trip_changes_and_distances_from_the_smallest() -> None:
    group, time, rtt = array([1, 1, 2, 1, 1]), array([0, 100, 110, 200, 900]) * MS, array([10, 14, 70, 11, 50]) * MS
    found = variation.rtt_ipdv(group, time, rtt, IDLE)
    assert found.value.tolist() == [4, 3]
    assert found.group.tolist() == [1, 1]
    above = variation.rtt_pdv(group, time, rtt)
    assert above.value.tolist() == [0, 4, 1, 40, 0]
    assert variation.idle_gap(array([-1, 100 * MS])).tolist() == [200 * MS, 400 * MS]


@settings(max_examples=100, deadline=None)
@given(SAMPLES)
def test_arrays_agree_with_loops(samples: list[tuple[int, int, int]]) -> None:
    group, time, rtt = (array(list(column)) for column in zip(*samples, strict=True)) if samples else (array([]),) * 3
    changes, gaps, above = [], [], []
    for g in range(4):
        mine = sorted(((t, k, r) for k, (h, t, r) in enumerate(samples) if h == g), key=lambda sample: sample[:2])
        for k, (t, _, r) in enumerate(mine):
            above.append((r - min(other for _, _, other in mine)) / MS)
            if k > 0 and t - mine[k - 1][0] <= 200 * MS:
                changes.append(abs(r - mine[k - 1][2]) / MS)
                if k > 1 and mine[k - 1][0] - mine[k - 2][0] <= 200 * MS:
                    gaps.append(abs((t - mine[k - 1][0]) - (mine[k - 1][0] - mine[k - 2][0])) / MS)
    assert variation.rtt_ipdv(group, time, rtt, IDLE).value.tolist() == changes
    assert variation.iat_changes(group, time, IDLE).value.tolist() == gaps
    assert variation.rtt_pdv(group, time, rtt).value.tolist() == above


def one_way(tick: int, skew: float, delays: np.ndarray, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Arrival times and timestamps of packets sent every 20 ms by a clock of this tick that runs fast by ``skew``."""
    sent = np.arange(len(delays)) * 20 * MS
    stamps = (first + np.floor(sent * (1 + skew) / tick).astype(np.int64)) % 2**32
    return sent + delays.astype(np.int64), stamps


@pytest.mark.parametrize("tick", variation.TICKS)
@pytest.mark.parametrize("skew", [0.0, 1e-4, -5e-5])
def test_one_way_variation_is_that_of_the_delay(tick: int, skew: float) -> None:
    random = np.random.default_rng(7)
    delays = 50 * MS + np.abs(random.normal(0, 30 * MS, 2000)).astype(np.int64)
    time, stamps = one_way(tick, skew, delays, first=2**32 - 100)
    kept = np.flatnonzero(np.diff(np.maximum.accumulate(time), prepend=-1) > 0)  # in order, as one connection's packets come
    found, smoothed = variation.owdv(np.full(len(kept), 3, np.int64), time[kept], stamps[kept], IDLE)
    truth = np.abs(np.diff(delays[kept])) / MS
    assert found.value.mean() == pytest.approx(truth.mean(), rel=0.05)
    assert (found.group == 3).all()
    assert len(smoothed.value) == len(found.value) - 15
    assert smoothed.value.mean() == pytest.approx(truth.mean(), rel=0.05)  # the fixed point of RFC 3550's J is the mean of |D|


def test_the_estimator_of_rfc_3550_begins_anew_behind_an_idle_gap() -> None:
    delays = 50 * MS + np.random.default_rng(7).integers(0, 40 * MS, 120)
    time, stamps = one_way(MS, 0, np.sort(delays))
    pause = np.where(np.arange(120) < 60, 0, 10 * SECOND)
    found, smoothed = variation.owdv(np.zeros(120, np.int64), time + pause, stamps + pause // MS, IDLE)
    expected, j = [], 0.0
    for flow in (found.value[:59], found.value[59:]):
        j = 0.0
        for n, change in enumerate(flow, 1):
            j += (change - j) / 16
            expected += [j] if n >= 16 else []
    np.testing.assert_allclose(smoothed.value, expected)


def test_variation_below_the_clocks_tick_is_not_told() -> None:
    random = np.random.default_rng(7)
    time, stamps = one_way(10 * MS, 0, 50 * MS + random.integers(0, MS, 2000))
    assert len(variation.owdv(np.zeros(2000, np.int64), time, stamps, IDLE).changes.value) == 0


def test_a_few_changes_are_not_told_from_the_clocks_ticks() -> None:
    """Five times two packets in a row, all others an idle gap apart; the delay differs by 0.3 ms, the stamps by up to one of rounding."""
    sent = np.arange(60) * 10 * SECOND
    sent[30::6] += 999_999
    sent[31::6] = sent[30::6] + 20 * MS - 999_999
    delay = 50 * MS + np.where(np.arange(60) % 6 == 1, 0, 300_000)
    assert len(variation.owdv(np.zeros(60, np.int64), sent + delay, sent // MS, IDLE).changes.value) == 0


def test_a_clock_that_no_sender_has_is_not_used() -> None:
    time, stamps = one_way(2 * MS, 0, np.random.default_rng(7).integers(0, 50 * MS, 2000).cumsum() % (50 * MS))
    order = np.argsort(time)
    assert len(variation.owdv(np.zeros(2000, np.int64), time[order], stamps[order], IDLE).changes.value) == 0


def test_few_packets_tell_no_clock() -> None:
    time, stamps = one_way(MS, 0, np.full(10, 50 * MS))
    assert len(variation.owdv(np.zeros(10, np.int64), time, stamps, IDLE).changes.value) == 0
    assert len(variation.owdv(np.zeros(0, np.int64), time[:0], stamps[:0], IDLE).changes.value) == 0
