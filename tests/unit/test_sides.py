"""A side of comparisons: the arms that it keeps."""

from __future__ import annotations

import numpy as np

from brokerlens.comparisons.sides import Side
from brokerlens.statistics.arms import Arm

LATENCY, ROUND_TRIP = ("kafka_latency", "all"), ("rtt", "half=to_broker")


def test_arms_are_kept_of_the_stretch_asked_for_last_and_of_no_other() -> None:
    arms = {key: Arm(np.arange(100), np.arange(100.0), np.zeros(100, np.int64)) for key in (LATENCY, ROUND_TRIP)}
    side = Side({}, arms, {}, {}, connections=1, capture_loss=None)
    first = side.arm_within(LATENCY, 10, 19)
    assert first.values.tolist() == list(range(10, 20))
    assert side.arm_within(LATENCY, 10, 19) is first
    by_clock = side.arm_over_clock(LATENCY, 10, 19, 4)
    assert side.arm_over_clock(LATENCY, 10, 19, 4) is by_clock
    assert side.arm_over_clock(ROUND_TRIP, 10, 19, 4) is not by_clock
    assert side.arm_over_clock(LATENCY, 10, 19, 8).bin_count == 8
    assert side.arm_within(LATENCY, 20, 24).values.tolist() == [20, 21, 22, 23, 24]
    assert side.arm_over_clock(LATENCY, 20, 24, 4).values.tolist() == [20, 21, 22, 23, 24]
    again = side.arm_within(LATENCY, 10, 19)
    assert again is not first
    assert again.values.tolist() == first.values.tolist()
    assert side.arm_over_clock(LATENCY, 10, 19, 4) is not by_clock
