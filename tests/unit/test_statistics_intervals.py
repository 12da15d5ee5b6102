"""Intervals of one arm against scipy, closed forms and the rules that refuse them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statistics_bounds import bounds, holds, width

from brokerlens.statistics import dependence
from brokerlens.statistics.arms import CELLS, CENTRES, EDGES, LEVELS, Arm, Projector, cells_of, rank
from brokerlens.statistics.dependence import clock_bins, correlation_time, cosines, degrees_of_freedom, equal_bins, satterthwaite
from brokerlens.statistics.intervals import (
    Clumping,
    Clusters,
    Stretches,
    clopper_pearson,
    jeffreys,
    mean_interval,
    mean_of,
    mean_of_bins,
    quantile_interval,
    quantile_of,
    ratio_interval,
    ratio_of_stretches,
    samples_needed,
    share_interval,
    share_over,
)
from brokerlens.statistics.rounding import published

Floats = NDArray[np.float64]


def times(n: int) -> NDArray[np.int64]:
    return np.arange(n, dtype=np.int64) * 10**9


def independent(n: int, seed: int = 1) -> Floats:
    return np.random.default_rng(seed).lognormal(3.0, 0.6, n)


def autoregressive(n: int, tau: float, seed: int = 1) -> Floats:
    rng = np.random.default_rng(seed)
    keep = np.exp(-1.0 / tau)
    found = np.empty(n)
    state = float(rng.standard_normal())
    for i, shock in enumerate(rng.standard_normal(n).tolist()):
        state = keep * state + np.sqrt(1.0 - keep**2) * shock
        found[i] = state
    return found


# Bins, correlation times, cosines


@given(st.integers(1, 10_000))
def test_bins_of_equal_counts_differ_by_at_most_one(n: int) -> None:
    counts = np.bincount(equal_bins(n))
    assert len(counts) == min(n, 2048)
    assert counts.max() - counts.min() <= 1


def test_clock_bins_hold_both_ends() -> None:
    assert clock_bins(np.array([0, 49, 50, 100]), 0, 100, 2).tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("tau", [5.0, 20.0])
def test_the_correlation_time_of_an_ar1_comes_out(tau: float) -> None:
    found = [correlation_time(autoregressive(2048, tau, seed)) for seed in range(10)]
    # statistics.md: 0.3 to 0.95 of the true one.
    assert 0.3 * tau < float(np.median(found)) < 1.2 * tau


@pytest.mark.parametrize("series", [np.ones(500), np.arange(3.0), np.r_[np.zeros(499), 1.0]])
def test_series_that_show_no_dependence_have_none_and_no_warning(series: Floats) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert correlation_time(series) < 1.5


def test_degrees_of_freedom() -> None:
    assert degrees_of_freedom(2048, 0.0) == 24
    assert degrees_of_freedom(2048, 50.0) == 4
    assert degrees_of_freedom(2048, 52.0) == 3
    assert degrees_of_freedom(20, 0.0) == 2


def test_cosines_are_orthonormal_and_free_of_the_mean() -> None:
    phi = cosines(500, 24)
    np.testing.assert_allclose(phi @ phi.T / 500, np.eye(24), atol=1e-12)
    np.testing.assert_allclose(phi.sum(axis=1), 0.0, atol=1e-9)


def test_satterthwaite_of_equals_adds_up() -> None:
    assert satterthwaite((2.0, 2.0), (10.0, 10.0)) == pytest.approx(20.0)
    assert satterthwaite((1.0, 1e-12), (7.0, 24.0)) == pytest.approx(7.0)
    assert satterthwaite((0.0, 0.0), (7.0, 24.0)) == 7.0


# The state of an arm


def test_cells_hold_the_values_between_their_edges() -> None:
    values = independent(10_000)
    cells = cells_of(values)
    assert np.all(values >= EDGES[cells] * (1 - 1e-8))
    assert np.all(values < EDGES[cells + 1])
    assert cells_of(np.array([0.0, 1e-9, 1e9])).tolist() == [0, 0, CELLS - 1]
    assert cells_of(CENTRES).tolist() == list(range(CELLS))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.sampled_from([0.02, 0.5, 0.9, 0.95, 0.99, 0.999]))
def test_quantiles_are_the_inverted_cdf(values: list[int], level: float) -> None:
    arm = Arm(times(len(values)), np.array(values, dtype=float))
    assert arm.quantile(level) == np.quantile(values, level, method="inverted_cdf")
    assert rank(len(values), level) / len(values) >= level - 1e-9


def test_the_state_gives_the_variance_of_any_mean() -> None:
    arm = Arm(times(5000), independent(5000))
    direct = Projector.over(arm.counts, arm.dof).transform(np.bincount(arm.bins, weights=CENTRES[cells_of(arm.values)]).astype(np.float64))
    np.testing.assert_allclose(arm.state @ CENTRES, direct, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(arm.state @ CENTRES, arm.mean_transform, rtol=0.02, atol=0.002)


def test_the_variance_of_an_independent_mean_is_the_usual_one() -> None:
    found = [np.mean(Arm(times(2000), independent(2000, seed)).mean_transform ** 2) for seed in range(40)]
    assert np.mean(found) == pytest.approx(np.mean([independent(2000, seed).var() / 2000 for seed in range(40)]), rel=0.1)


def test_the_order_in_which_values_come_does_not_matter() -> None:
    values, when = independent(3000), times(3000)
    order = np.random.default_rng(2).permutation(3000)
    assert quantile_interval(when, values, None, 0.95) == quantile_interval(when[order], values[order], None, 0.95)


def test_the_first_of_unequal_lengths_is_an_error() -> None:
    with pytest.raises(ValueError, match="differ in length: 3, 2, 3"):
        Arm(times(3), np.ones(2))


# Quantiles


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_independent_values_agree_with_the_exact_order_statistics(level: float) -> None:
    wider = []
    for seed in range(20):
        values = independent(4000, seed)
        found = quantile_interval(times(4000), values, None, level)
        exact: Any = stats.quantile_test(values, p=level).confidence_interval(0.95)
        assert found.low is not None
        assert found.high is not None
        low, high = bounds(found)
        assert low <= values[np.argsort(values)[rank(4000, level) - 1]] <= high
        wider.append(width(found) / (exact.high - exact.low))
    assert 1.0 < np.median(wider) < 1.35


def test_clopper_pearson_and_jeffreys_are_scipys() -> None:
    exact = stats.binomtest(30, 200).proportion_ci(0.95, "exact")
    assert clopper_pearson(0.15, 200.0) == pytest.approx((exact.low, exact.high))
    assert jeffreys(0.15, 200.0) == pytest.approx(tuple(float(stats.beta.ppf(at, 30.5, 170.5)) for at in (0.025, 0.975)))


def test_dependence_widens() -> None:
    values = np.exp(autoregressive(4000, 25.0))
    shuffled = np.random.default_rng(3).permutation(values)
    slow, quick = (quantile_interval(times(4000), each, None, 0.5) for each in (values, shuffled))
    assert width(slow) > 3.0 * width(quick)
    assert slow.n_eff is not None
    assert quick.n_eff is not None
    assert slow.n_eff < 0.2 * quick.n_eff


@pytest.mark.parametrize(("level", "needed"), [(0.5, 300), (0.9, 300), (0.95, 300), (0.99, 1000), (0.999, 10_000)])
def test_a_percentile_needs_samples(level: float, needed: int) -> None:
    assert samples_needed(level) == needed
    enough = quantile_interval(times(needed), independent(needed), None, level)
    assert enough.reason is None or "upper" in enough.reason or "needed" not in enough.reason
    few = quantile_interval(times(needed - 1), independent(needed - 1), None, level)
    assert (few.low, few.high) == (None, None)
    assert few.estimate is not None
    assert few.reason == f"{needed - 1:,} samples; {needed:,} needed"


def test_a_slow_series_gives_no_interval_or_one_without_an_upper_bound() -> None:
    trend = np.exp(np.linspace(0.0, 3.0, 2000) + 0.01 * autoregressive(2000, 2.0))
    refused = quantile_interval(times(2000), trend, None, 0.5)
    assert (refused.low, refused.high) == (None, None)
    short = [quantile_interval(times(300), np.exp(autoregressive(300, 40.0, seed)), None, 0.5) for seed in range(10)]
    assert sum(one.reason is not None and one.reason.startswith("fewer than 40 correlation times") for one in short) >= 3
    slow = [quantile_interval(times(1500), np.exp(autoregressive(1500, 8.0, seed)), None, 0.99) for seed in range(10)]
    open_above = [one for one in slow if one.low is not None and one.high is None]
    assert len(open_above) >= 8
    assert open_above[0].reason is not None
    assert open_above[0].reason.endswith("correlation times give no upper bound")
    assert any(one.weak for one in slow)


def test_no_samples() -> None:
    assert quantile_interval([], [], None, 0.5).estimate is None
    assert mean_interval([], []).reason == "no samples"
    assert share_interval([], [], None, 1.0).estimate is None
    assert mean_of_bins([]).estimate is None


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = quantile_interval(times(1000), np.full(1000, 5.0), None, 0.5)
    assert (found.low, found.estimate, found.high) == (5.0, 5.0, 5.0)


def test_connections_as_a_sample_widen_where_they_differ() -> None:
    rng = np.random.default_rng(4)
    connection = np.arange(8000) % 40
    values = rng.lognormal(3.0, 0.3, 8000) * np.exp(0.3 * rng.standard_normal(40))[connection]
    arm = Arm(times(8000), values, connection)
    in_time, both = quantile_of(arm, 0.5), quantile_of(arm, 0.5, sampling="time_and_connections")
    assert width(both) > 2.0 * width(in_time)
    # The spread of connections alone: their median varies as 1.2533 * 0.3 / sqrt(40) on the log scale, t of some 30 degrees of freedom.
    assert np.log(bounds(both)[1] / bounds(both)[0]) == pytest.approx(2 * 2.03 * 0.3 / np.sqrt(40), rel=0.35)
    few = Arm(times(2000), values[:2000], connection[:2000] % 3)
    assert quantile_of(few, 0.5, sampling="time_and_connections").reason == "connections worth 3.0 of equal size; 5 needed"


def test_limits_never_narrow_in_the_second_pass() -> None:
    arm = Arm(times(4000), np.exp(autoregressive(4000, 5.0)))
    clumping = Clumping.of(arm)
    for level in LEVELS[2:-3]:
        limits = clumping.limits(float(level))
        first = clopper_pearson(float(level), limits.n_star)
        assert limits.low <= first[0] + 1e-12
        assert limits.high >= first[1] - 1e-12


# Shares, means, ratios


def test_a_share_over_a_threshold() -> None:
    values = independent(4000)
    arm = Arm(times(4000), values)
    found = share_over(arm, 60.0)
    assert found.estimate == np.mean(values > 60.0)
    truth = stats.lognorm.sf(60.0, 0.6, scale=np.exp(3.0))
    assert holds(found, truth)
    none = share_over(arm, 1e6)
    assert (none.estimate, none.low) == (0.0, 0.0)
    assert 1 - 0.025 ** (1 / 4000) < bounds(none)[1] < 0.01
    rare = share_over(arm, float(arm.ordered[-3]))
    assert rare.estimate == 2 / 4000
    assert bounds(none)[1] < bounds(rare)[1] < 0.005
    every = share_over(arm, 0.0)
    assert (every.estimate, every.high) == (1.0, 1.0)


def test_the_mean_of_independent_values_agrees_with_students_t() -> None:
    ratios = []
    for seed in range(20):
        values = independent(4000, seed)
        found = mean_of(Arm(times(4000), values))
        usual: Any = stats.ttest_1samp(values, 0.0).confidence_interval()
        ratios.append(width(found) / (usual.high - usual.low))
    assert np.median(ratios) == pytest.approx(stats.t.ppf(0.975, 24) / 1.96, rel=0.1)


def test_neighbours_that_are_joined_in_a_long_series_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two and a half days of seconds that follow each other for a minute: half of them can be left out of the work, none of the mean."""
    chance = np.random.default_rng(11)
    slow = np.convolve(chance.gamma(2.0, 1.0, 200_059), np.exp(-np.arange(60) / 20), "valid")
    joined, shares = mean_of_bins(slow), ratio_of_stretches(Stretches.of(np.floor(slow), np.ceil(10 * slow)))
    monkeypatch.setattr(dependence, "MOST_BINS", 1 << 20)
    whole, whole_shares = mean_of_bins(slow), ratio_of_stretches(Stretches.of(np.floor(slow), np.ceil(10 * slow)))
    for one, other in ((joined, whole), (shares, whole_shares)):
        assert one.estimate == pytest.approx(other.estimate)
        assert one.n == other.n
        assert width(one) == pytest.approx(width(other), rel=0.01)


def test_the_mean_of_bins() -> None:
    series = np.random.default_rng(5).poisson(20.0, 600)
    found = mean_of_bins(series)
    assert holds(found, 20.0)
    assert width(found) == pytest.approx(2 * 2.06 * np.sqrt(20.0 / 600), rel=0.4)
    assert mean_of_bins(series[:30]).low is None
    assert mean_of_bins(np.full(600, 3.0)).low == 3.0


def test_a_ratio_of_equal_connections_is_near_the_pooled_one() -> None:
    sent = np.full(200, 500)
    lost = np.random.default_rng(6).binomial(sent, 0.02)
    found = ratio_interval(lost, sent)
    exact = stats.binomtest(int(lost.sum()), int(sent.sum())).proportion_ci(0.95, "exact")
    assert width(found) == pytest.approx((exact.high - exact.low), rel=0.2)


def test_a_ratio_that_differs_by_connection_is_wider_than_the_pooled_one() -> None:
    rng = np.random.default_rng(7)
    sent = np.full(30, 5000)
    lost = rng.binomial(sent, 0.02 * rng.lognormal(0.0, 0.7, 30))
    found = ratio_interval(lost, sent)
    exact = stats.binomtest(int(lost.sum()), int(sent.sum())).proportion_ci(0.95, "exact")
    assert width(found) > 2.0 * (exact.high - exact.low)


def test_a_share_in_time_of_independent_events_is_near_the_pooled_one() -> None:
    rng = np.random.default_rng(9)
    sent = rng.poisson(24.0, 600)
    lost = rng.binomial(sent, 0.02)
    found = ratio_of_stretches(Stretches.of(lost, sent))
    exact = stats.binomtest(int(lost.sum()), int(sent.sum())).proportion_ci(0.95, "exact")
    assert found.estimate == lost.sum() / sent.sum()
    assert width(found) == pytest.approx(exact.high - exact.low, rel=0.35)
    # What comes in bursts of ten seconds is known less well: the same events, each second's put ten times into the first of ten.
    bursts = np.zeros(600, np.int64)
    bursts[np.repeat(np.arange(0, 600, 100), 10) + np.tile(np.arange(10), 6)] = lost.sum() // 60
    assert width(ratio_of_stretches(Stretches.of(bursts, sent))) > 1.5 * (exact.high - exact.low)


def test_shares_in_time_that_get_no_interval() -> None:
    assert ratio_of_stretches(None).reason == "no samples"
    assert Stretches.of(np.zeros(100), np.zeros(100)) is None
    assert ratio_of_stretches(Stretches.of(np.zeros(100), np.full(100, 5))).reason == "none in 500"
    burst = ratio_of_stretches(Stretches.of(np.where(np.arange(600) < 590, 0, 40), np.full(600, 50)))
    assert (burst.low, burst.reason) == (None, "400 of 30,000, as good as in one burst")
    few = ratio_of_stretches(Stretches.of(np.arange(100) < 9, np.full(100, 5)))
    assert (few.estimate, few.low, few.reason) == (9 / 500, None, "9 of 500; 10 needed")
    once = ratio_of_stretches(Stretches.of(np.arange(100) < 50, np.full(100, 5)))
    assert once.reason is not None
    assert once.reason.startswith("fewer than 40 correlation times")


def test_ratios_that_get_no_interval() -> None:
    assert ratio_interval([0, 0], [0, 0]).estimate is None
    none = ratio_interval(np.zeros(10), np.full(10, 50))
    assert (none.estimate, none.low, none.high, none.reason) == (0.0, None, None, "none in 500")
    few = ratio_interval([1, 2, 3], [100, 100, 100])
    assert (few.estimate, few.low, few.reason) == (0.02, None, "connections worth 3.0 of equal size; 4 needed")


def test_a_rate_may_pass_one() -> None:
    found = ratio_interval([20, 30, 25, 15, 30, 22], [10, 10, 10, 10, 10, 10], is_share=False)
    assert holds(found, 142 / 60)
    assert bounds(found)[1] > 2.5


def test_the_jackknife_of_a_ratio() -> None:
    clusters = Clusters.of([1, 2, 3, 6], [10, 20, 40, 30])
    assert clusters is not None
    left_out = [11 / 90, 10 / 80, 9 / 60, 6 / 70]
    variance = 3 / 4 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)
    assert clusters.n_eff == pytest.approx(100 / max(1.0, variance / (0.12 * 0.88 / 100)))
    assert clusters.effective_connections == pytest.approx(10_000 / 3_000)


@pytest.mark.parametrize(("value", "shown"), [(1 / 3, 0.333333333), (123456789012.0, 123456789000.0), (None, None), (float("inf"), None)])
def test_published_figures(value: float | None, shown: float | None) -> None:
    assert published(value) == shown
