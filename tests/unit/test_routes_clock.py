"""Two taps' clocks from the packets that both captured: made delays, and an offset that is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from brokerlens.routes.one_way import MS, Clock, estimate_clock

SECOND = 1_000_000_000
T0 = 1_766_769_260 * SECOND
HOUR_MS = 3_600_000.0


def way(
    offset_ms: Callable[[np.ndarray], np.ndarray],
    seconds: float = 300,
    packets: int = 6000,
    delay: tuple[float, float] = (17.0, 17.0),
    extra: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    seed: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sent, received (ns by the tap's clock there) and from_broker; delays of the given ms + |N(0, 8)|, ``extra`` (ms) by second and direction."""
    rng = np.random.default_rng(seed)
    true = np.sort(rng.random(packets)) * seconds
    from_broker = rng.random(packets) < 0.5
    waited = np.where(from_broker, delay[1], delay[0]) + np.abs(rng.normal(0, 8, packets))
    if extra is not None:
        waited = waited + extra(true, from_broker)
    begin, end = true, true + waited / 1e3

    def by_clock(time: np.ndarray, broker: np.ndarray) -> np.ndarray:
        return np.asarray(T0 + np.rint(time * SECOND + np.where(broker, offset_ms(time) * MS, 0.0)).astype(np.int64))

    return by_clock(begin, from_broker), by_clock(end, ~from_broker), from_broker


def constant(ms: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda time: np.full(time.shape, ms)


@pytest.mark.parametrize("offset", [0.0, -3.25, 250.0])
def test_an_offset(offset: float) -> None:
    clock = estimate_clock(*way(constant(offset)))
    assert (clock.source, clock.reason) == ("estimated", None)
    assert clock.offset_ms == pytest.approx(offset, abs=0.5)
    assert clock.drift_ppm == 0
    assert clock.scatter_ms is not None
    assert clock.scatter_ms < 0.5
    assert clock.uncertainty_ms == pytest.approx(17, abs=0.5)


@pytest.mark.parametrize("seed", range(20))
def test_the_bounds_hold_the_truth(seed: int) -> None:
    """Also where the way back takes longer, so that the middle is not the offset: half the smallest round trip is what no packet rules out."""
    clock = estimate_clock(*way(constant(40), delay=(5.0, 45.0), seed=seed))
    assert clock.offset_ms is not None
    assert clock.uncertainty_ms is not None
    assert clock.offset_ms == pytest.approx(40 - 20, abs=0.5)
    assert abs(clock.offset_ms - 40) < clock.uncertainty_ms


def test_clocks_hours_apart_are_measured_and_named() -> None:
    """As exactly as others; the report says that one of them is set wrong."""
    clock = estimate_clock(*way(constant(3 * HOUR_MS)))
    assert (clock.source, clock.reason) == ("estimated", "far_apart")
    assert clock.offset_ms == pytest.approx(3 * HOUR_MS, abs=0.5)


@pytest.mark.parametrize("drift", [-120.0, 15.0, 50.0])
def test_a_drift(drift: float) -> None:
    """Over five minutes 15 ppm are 4.5 ms. The offset is that of the middle."""
    clock = estimate_clock(*way(lambda time: 2 + drift * 1e-3 * (time - 150)))
    assert clock.source == "estimated"
    assert clock.drift_ppm == pytest.approx(drift, abs=4)
    assert clock.offset_ms == pytest.approx(2, abs=0.5)
    at = clock.offset_at(np.array([T0, T0 + 300 * SECOND]))
    assert at is not None
    assert at / MS == pytest.approx([2 - 0.15 * drift, 2 + 0.15 * drift], abs=0.8)


def test_no_drift_is_made_up() -> None:
    found = [estimate_clock(*way(constant(1), seed=seed)).drift_ppm for seed in range(30)]
    assert sum(drift != 0 for drift in found) <= 4  # 5 % of 30 are 1.5


@pytest.mark.parametrize("step", [5.0, -12.0, 500.0, -HOUR_MS])
@pytest.mark.parametrize("at", [60.0, 150.0, 250.0])
def test_a_step_leaves_no_figure(step: float, at: float) -> None:
    clock = estimate_clock(*way(lambda time: np.where(time > at, step, 0.0)))
    assert clock == Clock("unknown", "stepping")


def test_a_step_of_a_clock_that_drifts() -> None:
    assert estimate_clock(*way(lambda time: 0.03 * time + np.where(time > 140, -9.0, 0.0))).reason == "stepping"


def test_many_small_steps() -> None:
    """A clock that is set every minute by what it ran ahead."""
    assert estimate_clock(*way(lambda time: 0.2 * (time % 60))).reason == "stepping"


@pytest.mark.parametrize("both", [False, True])
def test_a_queue_or_another_path_is_no_step(both: bool) -> None:
    """Half way through the way to the broker, or the way in both directions, takes 12 ms longer."""
    clock = estimate_clock(*way(constant(0), extra=lambda time, back: np.where((time > 150) & (both | ~back), 12.0, 0.0)))
    assert clock.source == "estimated"
    assert clock.offset_ms == pytest.approx(0, abs=6.5 if not both else 0.5)


def test_no_step_is_made_up() -> None:
    assert {estimate_clock(*way(constant(0), seed=seed)).source for seed in range(60)} == {"estimated"}


@pytest.mark.parametrize("fewest", [0, 9])
def test_too_few_packets_of_a_direction(fewest: int) -> None:
    sent, received, from_broker = way(constant(0), packets=100)
    keep = ~from_broker | (np.cumsum(from_broker) <= fewest)
    assert estimate_clock(sent[keep], received[keep], from_broker[keep]) == Clock("unknown", "too_few_packets")


def test_a_short_run_has_an_offset_and_no_drift() -> None:
    clock = estimate_clock(*way(constant(7), seconds=3, packets=60))
    assert clock.offset_ms == pytest.approx(7, abs=3)
    assert (clock.drift_ppm, clock.scatter_ms) == (0, None)


def test_a_configured_offset_is_used() -> None:
    clock = estimate_clock(*way(constant(4)), configured_ms=6.0)
    assert (clock.source, clock.offset_ms, clock.drift_ppm) == ("configured", 6.0, None)
    # The fastest packets leave room from −13 to 21: 6 may be off by 19.
    assert clock.uncertainty_ms == pytest.approx(19, abs=0.5)


def test_a_configured_offset_by_which_packets_arrive_before_they_were_sent_is_not() -> None:
    assert estimate_clock(*way(constant(4)), configured_ms=30.0) == Clock("unknown", "contradicted")


def test_a_configured_offset_needs_one_direction_alone() -> None:
    sent, received, from_broker = way(constant(4))
    one = ~from_broker
    assert estimate_clock(sent[one], received[one], from_broker[one], configured_ms=4.0).source == "configured"
