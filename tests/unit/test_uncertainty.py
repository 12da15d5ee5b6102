"""Which values of a very large sample make its intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokerlens.metrics import uncertainty
from brokerlens.metrics.rows import Rows
from brokerlens.metrics.uncertainty import Sample, add_sample

MASK = (1 << 64) - 1
MOST = 2_000


def scattered(time: int, connection: int) -> int:
    """SplitMix64's last steps, with Python's whole numbers."""
    mixed = (time + connection * 0x9E3779B97F4A7C15) & MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
    return mixed ^ (mixed >> 31)


@given(st.lists(st.tuples(st.integers(0, (1 << 62)), st.integers(0, (1 << 31) - 1)), max_size=20))
def test_numbers_that_look_like_chance_are_splitmixs(pairs: list[tuple[int, int]]) -> None:
    times, connections = (np.array([pair[place] for pair in pairs], np.int64) for place in (0, 1))
    assert uncertainty._scattered(times, connections).tolist() == [scattered(*pair) for pair in pairs]


def large(n: int = 40_000) -> Sample:
    """A sample of equal distances in time, of seven connections."""
    random = np.random.default_rng(3)
    return Sample(
        np.arange(n) * 1_000_000 + 1_766_769_260_000_000_000, random.lognormal(3.0, 0.5, n), random.integers(0, 7, n).astype(np.int32)
    )


@pytest.fixture(autouse=True)
def few_in_an_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertainty, "MOST_IN_ARM", MOST)


def test_a_part_of_a_large_sample_stands_for_it() -> None:
    """The part is of about the size wanted, from the whole time, and its quantiles lie where such a part's do."""
    sample = large()
    arm = sample.arm()
    assert abs(arm.n - MOST) < 4 * MOST**0.5
    assert arm.times[0] - sample.times[0] < 0.02 * np.ptp(sample.times)
    for level in (0.5, 0.95, 0.99):
        share = float((sample.values <= arm.quantile(level)).mean())
        assert abs(share - level) < 4 * (level * (1 - level) / MOST) ** 0.5


def test_the_part_depends_on_nothing_but_time_and_connection() -> None:
    sample = large()
    turned = sample.only(np.random.default_rng(4).permutation(sample.n))
    one, other = sample.arm(), turned.arm()
    for name in ("times", "values", "connections"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_sample_that_fits_is_taken_whole_and_moved_by_its_offset() -> None:
    sample = large(MOST)
    arm = sample.arm(offset=5)
    assert arm.n == MOST
    np.testing.assert_array_equal(arm.times, sample.times - 5)


def test_figures_are_of_all_values_and_their_intervals_hold_them() -> None:
    sample, rows = large(), Rows()
    add_sample(rows, "rtt", "all", ("count", "mean", "p50", "p99", "max"), sample, unit="ms", of="round trips")
    found = {row["statistic"]: row for row in rows.rows}
    ordered = np.sort(sample.values)
    assert found["count"]["value"] == found["p50"]["n"] == sample.n
    assert found["max"]["value"] == ordered[-1]
    assert found["mean"]["value"] == pytest.approx(sample.values.mean(), rel=1e-12)
    for statistic, level in (("p50", 0.5), ("p99", 0.99)):
        row = found[statistic]
        assert row["value"] == ordered[int(np.ceil(level * sample.n)) - 1]
        assert row["ci_low"] < row["value"] < row["ci_high"]
        # As wide as those of so many values, not of all.
        assert row["ci_high"] - row["ci_low"] > 3 * (ordered[int(level * sample.n) + 20] - ordered[int(level * sample.n) - 20])


def test_samples_come_together_from_parts() -> None:
    sample = large(10)
    parts = [sample.only(np.arange(10) % 3 == part) for part in range(3)]
    together = Sample.of((part.times, part.values, part.connections) for part in parts)
    assert sorted(together.values) == sorted(sample.values)
    assert Sample.of([]).n == 0
