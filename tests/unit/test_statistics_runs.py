"""Runs as the sample: against closed forms and simulated runs, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerlens.statistics.runs import over_runs, runs_difference

FOUR = [10.0, 12.0, 14.0, 16.0]


def test_the_mean_of_runs_has_students_interval() -> None:
    found = over_runs(FOUR, 4_000)
    # t(0.975, 3) = 3.18245; the standard error is sqrt(20 / 3 / 4) = 1.29099.
    assert found.estimate == 13.0
    assert (found.low, found.high) == pytest.approx((13.0 - 3.18245 * 1.29099, 13.0 + 3.18245 * 1.29099), abs=1e-4)
    assert (found.n, found.df) == (4_000, 3.0)


def test_a_difference_is_welchs() -> None:
    found = runs_difference(FOUR, [1.0, 2.0, 3.0, 4.0, 5.0])
    # Standard error sqrt(20/3/4 + 2.5/5) = 1.47196, df by Welch and Satterthwaite 4.7503, t(0.975, 4.7503) = 2.6117.
    assert found.difference == 10.0
    assert (found.low, found.high) == pytest.approx((10.0 - 2.6117 * 1.47196, 10.0 + 2.6117 * 1.47196), abs=2e-3)
    assert found.p is not None
    assert found.p < 0.01
    assert found.ratio == pytest.approx(np.exp(np.mean(np.log(FOUR)) - np.mean(np.log([1, 2, 3, 4, 5]))))
    assert found.ratio is not None
    assert found.ratio_low is not None
    assert found.ratio_high is not None
    assert found.ratio_low < found.ratio < found.ratio_high


def test_three_runs_and_runs_that_do_not_vary_have_no_interval() -> None:
    assert over_runs([1.0, 2.0, 3.0], 30).reason == "3 of the runs have an estimate; 4 needed"
    assert over_runs([0.0] * 5, 50).reason == "the same in all 5 runs"
    assert over_runs([], 0).estimate is None
    found = runs_difference([1.0, 2.0, 3.0], FOUR)
    assert (found.difference, found.low, found.p, found.reason) == (-11.0, None, None, "a: 3 of the runs have an estimate; 4 needed")


def test_runs_of_a_share_bound_no_share_below_zero() -> None:
    assert over_runs([0.0, 0.0, 0.0, 0.01], 100).low == 0.0
    low = over_runs([-1.0, 0.0, 0.0, 0.01], 100).low
    assert low is not None
    assert low < -0.5


def test_a_zero_takes_the_ratio_but_not_the_difference() -> None:
    found = runs_difference([0.0, 0.01, 0.02, 0.03], [0.05, 0.06, 0.07, 0.09])
    assert found.low is not None
    assert found.ratio is None


@given(st.lists(st.floats(0.1, 1e4), min_size=4, max_size=12), st.lists(st.floats(0.1, 1e4), min_size=4, max_size=12))
def test_sides_exchanged_turn_the_difference(a: list[float], b: list[float]) -> None:
    one, other = runs_difference(a, b), runs_difference(b, a)
    assert one.difference == pytest.approx(-(other.difference or 0.0))
    if one.low is not None:
        assert one.low == pytest.approx(-(other.high or 0.0))
        assert one.p == pytest.approx(other.p)


def test_intervals_over_runs_cover_what_a_single_run_cannot() -> None:
    """Five runs a side whose levels differ by 10 %: the interval over runs holds the conditions' true ratio in about 95 % of 2,000 experiments."""
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(2_000):
        a, b = (level * np.exp(rng.normal(0.0, 0.1, 5)) for level in (60.0, 50.0))
        found = runs_difference(a.tolist(), b.tolist())
        assert found.ratio_low is not None
        assert found.ratio_high is not None
        held += found.ratio_low < 1.2 < found.ratio_high
    assert 0.93 < held / 2_000 < 0.97
