"""Coverage of the intervals on simulated runs whose truth is known in closed form; slow.

200 runs per scenario, or as many as BROKERLENS_COVERAGE_RUNS says; what is reached is printed (pytest -s).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq
from statistics_bounds import ratio_bounds

from brokerlens.statistics import effects
from brokerlens.statistics.arms import Arm
from brokerlens.statistics.contrasts import Contrast
from brokerlens.statistics.differences import mean_difference, quantile_difference, ratio_difference
from brokerlens.statistics.intervals import Clusters, Interval, Stretches, mean_of, quantile_of, ratio_interval, ratio_of_stretches

Floats = NDArray[np.float64]
Simulated = tuple[NDArray[np.int64], Floats]
LEVELS = (0.5, 0.9, 0.95, 0.99)
SIGMA = 0.6
MEDIAN = 30.0


def runs() -> int:
    return int(os.environ.get("BROKERLENS_COVERAGE_RUNS", "200"))


def slow_normal(rng: np.random.Generator, times: Floats, tau: float) -> Floats:
    """A stationary normal process of variance 1 whose correlation falls by e in tau, at increasing times."""
    keep = np.exp(-np.diff(times, prepend=times[0]) / tau)
    shock = np.sqrt(1.0 - keep**2) * rng.standard_normal(len(times))
    state = float(rng.standard_normal())
    found = np.empty(len(times))
    for i, (kept, new) in enumerate(zip(keep.tolist(), shock.tolist(), strict=True)):
        state = kept * state + new
        found[i] = state
    return found


def arrivals(rng: np.random.Generator, n: int) -> Floats:
    """Times of n requests, one per second in the mean, at random."""
    return np.cumsum(rng.exponential(1.0, n))


def nanoseconds(times: Floats) -> NDArray[np.int64]:
    return np.asarray(np.round(times * 1e9), dtype=np.int64)


def lognormal_ar(rng: np.random.Generator, n: int, tau: float, slow_share: float) -> Simulated:
    times = arrivals(rng, n)
    slow = slow_normal(rng, times, tau) if slow_share else 0.0
    logs = np.sqrt(slow_share) * slow + np.sqrt(1.0 - slow_share) * rng.standard_normal(n)
    return nanoseconds(times), MEDIAN * np.exp(SIGMA * logs)


def pareto_ar(rng: np.random.Generator, n: int, tau: float = 10.0) -> Simulated:
    times = arrivals(rng, n)
    normal = np.sqrt(0.7) * slow_normal(rng, times, tau) + np.sqrt(0.3) * rng.standard_normal(n)
    return nanoseconds(times), MEDIAN * stats.norm.sf(normal) ** (-1.0 / 1.5)


def burst(rng: np.random.Generator, n: int) -> Simulated:
    """Bad state 10 % of the time, 20 requests long in the mean, three times as slow; a retransmission adds 200 to 400 ms to 1.45 %."""
    lengths = np.column_stack([rng.geometric(1 / 180, n // 20 + 50), rng.geometric(1 / 20, n // 20 + 50)]).ravel()
    bad = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    start = int(rng.integers(0, 2000))
    factor = np.where(bad[start : start + n], 3.0, 1.0)
    spike = np.where(rng.random(n) < 0.0145, rng.uniform(200.0, 400.0, n), 0.0)
    return nanoseconds(arrivals(rng, n)), MEDIAN * factor * np.exp(SIGMA * rng.standard_normal(n)) + spike


def burst_quantile(level: float) -> float:
    shifts = np.linspace(200.0, 400.0, 401)[:, None]

    def cdf(x: float) -> float:
        base = sum(share * stats.lognorm.cdf(x, SIGMA, scale=MEDIAN * factor) for share, factor in ((0.9, 1.0), (0.1, 3.0)))
        spiked = sum(
            share * np.mean(stats.lognorm.cdf(x - shifts, SIGMA, scale=MEDIAN * factor)) for share, factor in ((0.9, 1.0), (0.1, 3.0))
        )
        return float(0.9855 * base + 0.0145 * spiked - level)

    return float(brentq(cdf, 1.0, 2000.0))


def lognormal_quantile(level: float) -> float:
    return float(stats.lognorm.ppf(level, SIGMA, scale=MEDIAN))


def pareto_quantile(level: float) -> float:
    return float(MEDIAN * (1.0 - level) ** (-1.0 / 1.5))


def covers(interval: Interval, truth: float) -> bool:
    """Whether what the interval says is true: an open side says nothing and is not wrong."""
    return (interval.low is None or interval.low <= truth) and (interval.high is None or truth <= interval.high)


def coverage(
    simulate: Callable[[np.random.Generator], Simulated], truth: Callable[[float], float], levels: tuple[float, ...]
) -> dict[float, float]:
    kept: dict[float, list[bool]] = {level: [] for level in levels}
    truths = {level: truth(level) for level in levels}
    for run in range(runs()):
        arm = Arm(*simulate(np.random.default_rng([7, run])))
        for level in levels:
            interval = quantile_of(arm, level)
            if interval.low is not None or interval.high is not None:
                kept[level].append(covers(interval, truths[level]))
    return {level: float(np.mean(kept[level])) for level in levels}


def tolerance() -> float:
    """Three binomial errors of a coverage of 95 %; 2 points for the 1,000 runs of the table, and one for what is systematic."""
    return 0.01 + 3.0 * float(np.sqrt(0.95 * 0.05 / runs()))


SCENARIOS: dict[str, tuple[Callable[[np.random.Generator], Simulated], Callable[[float], float], tuple[float, ...]]] = {
    "iid 1k": (lambda rng: lognormal_ar(rng, 1_000, 1.0, 0.0), lognormal_quantile, LEVELS),
    "ar5 4k": (lambda rng: lognormal_ar(rng, 4_000, 5.0, 0.5), lognormal_quantile, LEVELS),
    "burst 4k": (lambda rng: burst(rng, 4_000), burst_quantile, LEVELS),
    "ar25 10k": (lambda rng: lognormal_ar(rng, 10_000, 25.0, 0.7), lognormal_quantile, LEVELS),
    "heavy 10k": (lambda rng: pareto_ar(rng, 10_000), pareto_quantile, LEVELS),
    "dense100 20k": (lambda rng: lognormal_ar(rng, 20_000, 200.0, 0.7), lognormal_quantile, (0.5, 0.9, 0.95)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_quantile_intervals_cover(name: str) -> None:
    found = coverage(*SCENARIOS[name])
    print(name, {f"p{100 * level:g}": round(100 * share, 1) for level, share in found.items()})
    assert min(found.values()) >= 0.95 - tolerance()
    assert all(share <= 0.95 + tolerance() + 0.02 for level, share in found.items() if level < 0.99)


@pytest.mark.slow
def test_means_cover() -> None:
    truth = MEDIAN * np.exp(SIGMA**2 / 2.0)
    kept = [covers(mean_of(Arm(*lognormal_ar(np.random.default_rng([8, run]), 4_000, 5.0, 0.5))), truth) for run in range(runs())]
    print("mean, ar5 4k", np.mean(kept))
    assert abs(np.mean(kept) - 0.95) <= tolerance() + 0.01


@pytest.mark.slow
def test_slow_series_of_300_are_often_refused_and_their_p99_has_no_upper_bound() -> None:
    short = [Arm(*lognormal_ar(np.random.default_rng([9, run]), 300, 25.0, 0.7)).is_long_enough for run in range(runs())]
    print("ar25 300, refused", 1.0 - np.mean(short))
    assert np.mean(short) <= 0.7 + tolerance()
    upper = [quantile_of(Arm(*lognormal_ar(np.random.default_rng([10, run]), 1_000, 25.0, 0.7)), 0.99).high for run in range(runs())]
    print("ar25 1k, p99 without upper bound", np.mean([bound is None for bound in upper]))
    assert np.mean([bound is None for bound in upper]) >= 0.9 - tolerance()


@pytest.mark.slow
def test_paired_arms_cover_and_are_narrower() -> None:
    """Half of the slow variance is shared; b = a / 1.2."""
    kept: dict[str, list[bool]] = {name: [] for name in ("p50", "p90", "p95", "p99", "delta", "hl_ratio", "mean")}
    widths = []
    delta = 2.0 * stats.norm.cdf(np.log(1.2) / (SIGMA * np.sqrt(2.0))) - 1.0
    for run in range(runs()):
        rng = np.random.default_rng([11, run])
        common = np.linspace(0.0, 20_000.0, 200_001)
        shared = slow_normal(rng, common, 25.0)
        arms = []
        for factor in (1.2, 1.0):
            times = np.sort(rng.uniform(0.0, 20_000.0, 20_000))
            slow = np.sqrt(0.5) * np.interp(times, common, shared) + np.sqrt(0.5) * slow_normal(rng, times, 25.0)
            logs = np.sqrt(0.7) * slow + np.sqrt(0.3) * rng.standard_normal(len(times))
            arms.append(Arm(nanoseconds(times), factor * MEDIAN * np.exp(SIGMA * logs)))
        paired, independent = Contrast.of(arms[0], arms[1], (0, 20_000 * 10**9)), Contrast.of(arms[0], arms[1])
        for name, level in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
            found = quantile_difference(paired, level)
            kept[name].append(covers(Interval(None, found.ratio_low, found.ratio_high), 1.2))
        narrow, wide = quantile_difference(paired, 0.5), quantile_difference(independent, 0.5)
        widths.append(np.ptp(np.log(ratio_bounds(narrow))) / np.ptp(np.log(ratio_bounds(wide))))
        cliff, ratio, mean = effects.cliffs_delta(paired), effects.hodges_lehmann_ratio(paired), mean_difference(paired)
        kept["delta"].append(covers(Interval(None, cliff.low, cliff.high), delta))
        kept["hl_ratio"].append(covers(Interval(None, ratio.low, ratio.high), 1.2))
        kept["mean"].append(covers(Interval(None, mean.low, mean.high), 0.2 * MEDIAN * np.exp(SIGMA**2 / 2.0)))
    reached = {name: round(100 * float(np.mean(each)), 1) for name, each in kept.items()}
    print("paired ar25 20k", reached, "width", np.median(widths))
    assert min(reached.values()) >= 100 * (0.95 - tolerance())
    assert np.median(widths) < 0.9


@pytest.mark.slow
def test_independent_arms_cover() -> None:
    kept: dict[str, list[bool]] = {name: [] for name in ("p50", "p90", "p95", "p99", "delta", "hl_ratio", "w1", "mean")}
    delta = 2.0 * stats.norm.cdf(np.log(1.2) / (SIGMA * np.sqrt(2.0))) - 1.0
    mean_gap = 0.2 * MEDIAN * np.exp(SIGMA**2 / 2.0)
    for run in range(runs()):
        rng = np.random.default_rng([12, run])
        (times_a, a), (times_b, b) = (lognormal_ar(rng, 4_000, 5.0, 0.5) for _ in "ab")
        contrast = Contrast.of(Arm(times_a, 1.2 * a), Arm(times_b, b))
        for name, level in (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
            found = quantile_difference(contrast, level)
            kept[name].append(covers(Interval(None, found.ratio_low, found.ratio_high), 1.2))
        cliff, ratio, mean = effects.cliffs_delta(contrast), effects.hodges_lehmann_ratio(contrast), mean_difference(contrast)
        distance = effects.wasserstein(contrast)
        kept["delta"].append(covers(Interval(None, cliff.low, cliff.high), delta))
        kept["hl_ratio"].append(covers(Interval(None, ratio.low, ratio.high), 1.2))
        kept["w1"].append(covers(Interval(None, distance.low, distance.high), mean_gap))
        kept["mean"].append(covers(Interval(None, mean.low, mean.high), mean_gap))
    reached = {name: round(100 * float(np.mean(each)), 1) for name, each in kept.items()}
    print("two arms, ar5 4k", reached)
    assert min(reached.values()) >= 100 * (0.95 - tolerance())


@pytest.mark.slow
@pytest.mark.parametrize("connections", [10, 50])
def test_ratios_by_connection_cover(connections: int) -> None:
    kept, differences = [], []
    for run in range(runs()):
        rng = np.random.default_rng([13, run])
        counted = []
        for _ in range(2):
            sizes = np.floor(200.0 * (1.0 + rng.pareto(1.3, connections))).astype(np.int64)
            rates = 0.01 * rng.lognormal(-0.125, 0.5, connections)
            counted.append((rng.binomial(sizes, np.minimum(rates, 1.0)), sizes))
        kept.append(covers(ratio_interval(*counted[0]), 0.01))
        if not any(ratio_interval(part, whole).too_few for part, whole in counted):
            found = ratio_difference(Clusters.of(*counted[0]), Clusters.of(*counted[1]))
            differences.append(covers(Interval(None, found.low, found.high), 0.0))
    print(f"ratio, {connections} connections", np.mean(kept), "difference", np.mean(differences))
    assert np.mean(kept) >= 0.95 - tolerance()
    assert np.mean(differences) >= 0.95 - tolerance()


def bad_seconds(rng: np.random.Generator, seconds: int, stay: float, share: float) -> np.ndarray:
    """Whether each second is bad: bad times last ``stay`` seconds and make up a ``share`` of all."""
    bad = np.zeros(seconds, bool)
    now = rng.random() < share
    for second in range(seconds):
        now = rng.random() > 1.0 / stay if now else rng.random() < share / (1.0 - share) / stay
        bad[second] = now
    return bad


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "good", "worst"), [(240, 0.018, 0.018), (3_600, 0.002, 0.002), (1_200, 0.01, 0.09)], ids=["even", "rare", "burst"]
)
def test_shares_in_time_cover(seconds: int, good: float, worst: float) -> None:
    kept = []
    for run in range(runs()):
        rng = np.random.default_rng([14, run])
        sent = rng.poisson(24.0 * rng.lognormal(0.0, 0.3, seconds))
        lost = rng.binomial(sent, np.where(bad_seconds(rng, seconds, 5.0, 0.1), worst, good))
        found = ratio_of_stretches(Stretches.of(lost, sent))
        if not found.too_few:
            kept.append(covers(found, 0.9 * good + 0.1 * worst))
    print(f"share in time, {seconds} s", np.mean(kept), "of", len(kept))
    assert np.mean(kept) >= 0.95 - tolerance()
