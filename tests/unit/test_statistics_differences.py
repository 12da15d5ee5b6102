"""Differences, ratios and effect sizes of two arms against scipy and closed forms; Holm; the sentences made from rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statistics_bounds import bounds, holds, ratio_holds, ratio_width, width

from brokerlens.statistics import effects
from brokerlens.statistics.arms import Arm
from brokerlens.statistics.compiled.sorted_pairs import share_above
from brokerlens.statistics.contrasts import Contrast, common_stretch, within
from brokerlens.statistics.differences import (
    LEAST_P,
    Bounded,
    interval_difference,
    mean_difference,
    mover,
    quantile_difference,
    ratio_difference,
)
from brokerlens.statistics.intervals import Clusters, Interval, share_over
from brokerlens.statistics.multiplicity import holm
from brokerlens.statistics.sentences import MINUS, difference_sentence, interval_words, number


def arm(n: int, factor: float = 1.0, seed: int = 1, spread: float = 0.6) -> Arm:
    rng = np.random.default_rng(seed)
    times: NDArray[np.int64] = np.sort(rng.integers(0, 10**12, n))
    return Arm(times, factor * 20.0 * rng.lognormal(0.0, spread, n))


CONTRAST = Contrast.of(arm(4000, 1.2, 11), arm(3000, 1.0, 12))


def test_mover_of_symmetric_limits_is_the_root_of_squares() -> None:
    low, high = mover(Bounded(10.0, 7.0, 13.0), Bounded(6.0, 2.0, 10.0))
    assert (low, high) == (4.0 - 5.0, 4.0 + 5.0)
    paired = mover(Bounded(10.0, 7.0, 13.0), Bounded(6.0, 2.0, 10.0), 0.5)
    assert paired[1] - paired[0] == pytest.approx(2 * np.sqrt(9 + 16 - 12))


def test_an_open_limit_opens_the_side_that_needs_it() -> None:
    low, high = mover(Bounded(10.0, 7.0, np.inf), Bounded(6.0, 2.0, 10.0))
    assert (low, high) == (-1.0, np.inf)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_differences_and_ratios_hold_the_truth(level: float) -> None:
    found = quantile_difference(CONTRAST, level, with_p=True)
    truth = stats.lognorm.ppf(level, 0.6, scale=20.0)
    assert holds(found, 0.2 * truth)
    assert ratio_holds(found, 1.2)
    assert found.difference == CONTRAST.a.quantile(level) - CONTRAST.b.quantile(level)


@pytest.mark.parametrize("factor", [1.0, 1.02, 1.04, 1.1, 2.0])
@pytest.mark.parametrize("seed", [3, 5, 7])
def test_p_is_below_5_percent_exactly_where_the_interval_excludes_0(factor: float, seed: int) -> None:
    found = quantile_difference(Contrast.of(arm(4000, factor, seed), arm(4000, 1.0, seed + 1)), 0.5, with_p=True)
    low, high = bounds(found)
    excludes = low > 0.0 or high < 0.0
    assert found.p is not None
    assert (found.p < 0.05) == excludes
    assert LEAST_P <= found.p <= 1.0


def test_p_of_a_median_is_near_that_of_a_normal_test() -> None:
    found = quantile_difference(Contrast.of(arm(4000, 1.05, 1), arm(4000, 1.0, 2)), 0.5, with_p=True)
    error = width(found) / (2.0 * stats.t.ppf(0.975, 45))
    assert found.difference is not None
    expected = 2.0 * stats.t.sf(abs(found.difference) / error, 45)
    assert found.p == pytest.approx(expected, rel=0.6, abs=1e-4)


def test_a_side_without_enough_samples_gives_points_only() -> None:
    found = quantile_difference(Contrast.of(arm(4000), arm(200, 1.0, 2)), 0.5, with_p=True)
    assert found.difference is not None
    assert (found.low, found.high, found.p) == (None, None, None)
    assert found.reason == "b: 200 samples; 300 needed"


def test_means() -> None:
    found = mean_difference(CONTRAST)
    truth = 4.0 * np.exp(0.18)
    assert holds(found, truth)
    assert ratio_holds(found, 1.2)
    usual = stats.ttest_ind(CONTRAST.a.values, CONTRAST.b.values, equal_var=False).confidence_interval()
    assert width(found) == pytest.approx((usual.high - usual.low), rel=0.4)


def test_shares_over_a_threshold() -> None:
    found = interval_difference(share_over(CONTRAST.a, 50.0), share_over(CONTRAST.b, 50.0))
    truth = [stats.lognorm.sf(50.0, 0.6, scale=20.0 * factor) for factor in (1.2, 1.0)]
    assert holds(found, truth[0] - truth[1])
    assert ratio_holds(found, truth[0] / truth[1])
    none = interval_difference(share_over(CONTRAST.a, 50.0), share_over(CONTRAST.b, 1e5))
    assert (none.ratio, none.ratio_low) == (None, None)
    assert none.low is not None


def test_ratios_by_connection() -> None:
    rng = np.random.default_rng(8)
    sent = np.full(50, 2000)
    a, b = (Clusters.of(rng.binomial(sent, rate), sent) for rate in (0.03, 0.01))
    found = ratio_difference(a, b, with_p=True)
    assert holds(found, 0.02)
    assert found.p is not None
    assert found.p < 0.001
    assert ratio_difference(a, None).difference is None


# Effect sizes


def test_cliffs_delta_is_that_of_the_rank_sum() -> None:
    u = stats.mannwhitneyu(CONTRAST.a.values, CONTRAST.b.values).statistic
    exact = 2.0 * u / (CONTRAST.a.n * CONTRAST.b.n) - 1.0
    found = effects.cliffs_delta(CONTRAST)
    assert found.estimate == pytest.approx(exact, abs=1e-12)
    assert holds(found, 2.0 * stats.norm.cdf(np.log(1.2) / (0.6 * np.sqrt(2.0))) - 1.0)


def test_the_error_of_delta_at_equality_is_that_of_the_rank_sum() -> None:
    widths = []
    for seed in range(20):
        found = effects.cliffs_delta(Contrast.of(arm(1000, 1.0, seed), arm(1000, 1.0, seed + 100)))
        widths.append(np.ptp(np.arctanh(bounds(found))) / 2.0)
    assert np.median(widths) == pytest.approx(2.01 * np.sqrt(2001 / (3 * 1000 * 1000)), rel=0.15)


def test_samples_that_do_not_overlap_have_no_interval_of_delta() -> None:
    found = effects.cliffs_delta(Contrast.of(arm(1000, 1000.0), arm(1000, 1.0, 2)))
    assert (found.estimate, found.low, found.reason) == (1.0, None, "the samples do not overlap")


def test_hodges_lehmann_is_the_median_of_all_differences() -> None:
    contrast = Contrast.of(arm(900, 1.3, 1), arm(800, 1.0, 2))
    a, b = contrast.a.values, contrast.b.values
    shift, ratio = effects.hodges_lehmann_shift(contrast), effects.hodges_lehmann_ratio(contrast)
    assert shift.estimate == pytest.approx(np.median(np.subtract.outer(a, b)), abs=1e-3)
    assert ratio.estimate == pytest.approx(np.median(np.divide.outer(a, b)), rel=1e-4)
    assert holds(ratio, 1.3)
    assert holds(shift, shift.estimate)


def test_wasserstein_is_scipys() -> None:
    found = effects.wasserstein(CONTRAST)
    assert found.estimate == pytest.approx(stats.wasserstein_distance(CONTRAST.a.values, CONTRAST.b.values))
    assert holds(found, 4.0 * np.exp(0.18))


def test_wasserstein_of_equal_arms_is_noise() -> None:
    found = [effects.wasserstein(Contrast.of(arm(2000, 1.0, seed), arm(2000, 1.0, seed + 50))) for seed in range(20)]
    assert sum(one.low is not None for one in found) <= 4  # statistics.md: 3 to 11 % of equal arms exceed three floors
    assert np.median([one.estimate / (one.noise_floor or np.nan) for one in found]) == pytest.approx(1.0, rel=0.4)


# Pairs


def test_what_both_share_in_time_is_taken_out() -> None:
    rng = np.random.default_rng(9)
    slow = np.convolve(rng.standard_normal(6100), np.ones(100) / 10.0, "valid")[:6000]
    times = np.arange(6000, dtype=np.int64) * 10**8
    a, b = (Arm(times, 20.0 * factor * np.exp(0.3 * slow + 0.2 * rng.standard_normal(6000))) for factor in (1.2, 1.0))
    paired, independent = Contrast.of(a, b, (0, int(times[-1]))), Contrast.of(a, b)
    assert paired.paired
    assert paired.correlation(0.5) > 0.5
    for effect in (effects.cliffs_delta, effects.hodges_lehmann_ratio):
        narrow, wide = effect(paired), effect(independent)
        assert width(narrow) < 0.7 * width(wide)
    medians = [quantile_difference(contrast, 0.5) for contrast in (paired, independent)]
    assert ratio_width(medians[0]) < 0.8 * ratio_width(medians[1])
    assert ratio_holds(medians[0], 1.2)


def test_sides_that_share_less_than_80_percent_are_independent() -> None:
    assert common_stretch((0, 100), (10, 110)) == (10, 100)
    assert common_stretch((0, 100), (21, 100)) is None
    assert common_stretch((0, 100), (0, 200)) is None
    assert common_stretch((0, 100), (200, 300)) is None


SORTED = st.lists(st.integers(-20, 20), min_size=1, max_size=30).map(lambda values: np.sort(np.array(values, np.float64)))


@given(SORTED, SORTED, st.integers(-50, 50))
def test_the_share_of_pairs_above_is_what_a_search_per_value_finds(a: np.ndarray, b: np.ndarray, shift: int) -> None:
    twin = sum(x - shift > y for x in a.tolist() for y in b.tolist()) / (len(a) * len(b))
    for counted in (share_above, share_above.py_func):
        assert counted(a, b, float(shift)) == twin


def test_within_keeps_both_ends() -> None:
    found = within(Arm(np.arange(10), np.arange(10.0)), 2, 5)
    assert found.times.tolist() == [2, 3, 4, 5]


# Holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=30))
def test_holm_is_between_the_p_and_bonferronis(p_values: list[float]) -> None:
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p) + 1e-12


# Sentences


ROW: dict[str, Any] = {
    "scope": "sites", "experiment_a": "experiment08", "site_a": "edge", "experiment_b": "experiment08", "site_b": "cloud",
    "metric": "kafka_latency", "group": "api=Produce", "statistic": "p95", "unit": "ms", "difference": 41.3, "difference_low": 33.2,
    "difference_high": 52.4, "ratio": 2.41, "ratio_low": 2.13, "ratio_high": 2.81, "p_holm": 1e-5, "family_size": 12, "verdict": "differs",
    "weak": False, "reason": None, "margin": 2.0, "estimate_a": 70.0, "low_a": 60.0, "high_a": 80.0, "estimate_b": 40.0, "low_b": 38.0,
    "high_b": 42.0, "n_a": 953, "n_b": 346, "noise_floor": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
("Produce latency at edge is higher than at cloud: p95 by 41 ms (95 % interval 33 to 52), 2.4 times (2.1 to 2.8); "
            "adjusted p < 0.001 among 12 comparisons."),
        ),
        (
            {"group": "all", "statistic": "p50", "difference": -25.51, "difference_low": -26.49, "difference_high": -24.71, "ratio": None, "p_holm": 0.012},
            "Kafka latency at edge is lower than at cloud: p50 by 25.5 ms (95 % interval 24.7 to 26.5); adjusted p = 0.012 among 12 comparisons.",
        ),
        (
            {"verdict": "equivalent_within_margin", "statistic": "p50", "ratio": 1.01, "ratio_low": 0.98, "ratio_high": 1.03},
            "Produce latency at edge and at cloud: p50 differs by less than the margin of 5 %: ratio 1.01 (0.98 to 1.03).",
        ),
        (
            {"verdict": "undecided", "difference_low": -4.2, "difference_high": 9.4},
            "Produce latency at edge and at cloud: the data do not decide: p95 between 4 ms lower and 9 ms higher.",
        ),
        (
            {"verdict": "undecided", "difference": 5.1, "difference_low": 0.8, "difference_high": 9.4, "p_holm": 0.09, "weak": True},
("Produce latency at edge and at cloud: the data do not decide: p95 is higher by 5 ms (95 % interval 1 to 9); "
            "adjusted p = 0.09 among 12 comparisons. (few independent stretches; take the interval as a minimum)"),
        ),
        (
            {
                "verdict": "too_few_samples", "statistic": "p99", "low_a": 214.0, "high_a": None,
                "reason": "edge: 3,100 samples over 90 correlation times give no upper bound",
            },
            "Produce latency: p99 at edge is at least 214 ms (edge: 3,100 requests over 90 correlation times give no upper bound).",
        ),
        (
            {"verdict": "not_comparable", "reason": "edge was captured at the client, cloud at the broker"},
            "Not compared: edge was captured at the client, cloud at the broker.",
        ),
        (
            {"statistic": "cliffs_delta", "verdict": "described", "difference": 0.42, "difference_low": 0.38, "difference_high": 0.46},
            "A random edge request is slower than a random cloud request in 71 % of pairs (95 % interval 69 to 73).",
        ),
        (
            {"verdict": "described", "statistic": "p90", "difference": 0.1, "difference_low": -0.1, "difference_high": 0.4},
            "Produce latency at edge and at cloud: no difference found in p90, +0.1 ms (−0.1 to +0.4).",
        ),
        (
            {"metric": "retransmissions", "group": "all", "statistic": "ratio_of_sums", "unit": "share", "difference": 0.024, "difference_low": 0.017,
             "difference_high": 0.032, "ratio": None, "scope": "experiments", "site_b": "edge", "experiment_b": "experiment07", "family_size": 1},
("Retransmitted share at edge in experiment08 is higher than in experiment07: the share by 2.4 points (95 % interval 1.7 to 3.2); "
            "adjusted p < 0.001."),
        ),
        (
            {"statistic": "hl_ratio", "verdict": "described", "ratio": 1.8, "ratio_low": 1.71, "ratio_high": 1.92},
            "Produce latency at edge is typically 1.80 times that at cloud (95 % interval 1.71 to 1.92).",
        ),
        (
            {"statistic": "hl_shift", "verdict": "described", "difference": -25.0, "difference_low": -26.4, "difference_high": -24.1},
            "Produce latency at edge is typically 25.0 ms less than at cloud (95 % interval 24.1 to 26.4).",
        ),
    ],
)  # fmt: skip
def test_sentences(changes: dict[str, Any], sentence: str) -> None:
    assert difference_sentence(ROW | changes) == sentence


@pytest.mark.parametrize(
    ("value", "low", "high", "shown"),
    [
        (25.512, 24.71, 26.48, "25.5"),
        (41.3, 33.2, 52.4, "41"),
        (-10.6, -13.7, -2.1, MINUS + "11"),
        (1234.5, 1100.0, 1420.0, "1,234"),
        (0.0123, 0.0101, 0.0149, "0.012"),
        (-0.004, -0.1, 0.4, "0.0"),
        (4.1, 0.32, 7.4, "4.1"),
        (48.2, None, None, "48.2"),
    ],
)
def test_numbers_have_the_digits_of_their_interval(value: float, low: float | None, high: float | None, shown: str) -> None:
    assert number(value, low, high) == shown


def test_interval_words() -> None:
    assert interval_words(48.21, 47.13, 49.04, "ms") == "48.2 ms (95 % interval 47.1 to 49.0)"
    assert interval_words(0.0367, 0.026, 0.051, "share") == "3.7 % (95 % interval 2.6 to 5.1)"
    assert interval_words(230.0, 214.0, None, "ms") == "at least 214 ms"
    assert interval_words(0.0, None, 0.0137, "share") == "at most 1.37 %"
    assert interval_words(230.0, None, None, "ms") == "230 ms (no interval)"
    assert interval_words(None, None, None, "ms") == "no samples"


def test_a_ratio_beyond_what_a_number_holds_is_open() -> None:
    low, high = 1e-320, 0.9
    a, b = (Interval(estimate, low, high) for estimate in (0.6, 0.3))
    found = interval_difference(a, b)
    assert found.ratio == pytest.approx(2.0)
    assert found.ratio_high is None
