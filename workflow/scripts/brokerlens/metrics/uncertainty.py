"""Samples described with their 95 % intervals, where the rules of `brokerlens.statistics` allow one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from brokerlens.metrics.rows import QUANTILES, SHARE, Interval, Rows, describe
from brokerlens.statistics import intervals
from brokerlens.statistics.arms import Arm
from brokerlens.statistics.rounding import published


MOST_IN_ARM: Final = 1 << 20
"""Values from which intervals and comparisons are made; of more, so many are chosen."""


@dataclass(frozen=True)
class Sample:
    """Values with the time (ns) at which each was seen and the number of its connection; arrays of one length, in any order."""

    times: np.ndarray
    values: np.ndarray
    connections: np.ndarray

    @classmethod
    def of(cls, parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Sample:
        """One sample of several parts: times, values and connections of each."""
        columns = list(zip(*parts, strict=True)) or [[np.zeros(0, kind)] for kind in (np.int64, np.float64, np.int32)]
        return cls(*(np.concatenate(columns.pop(0)) for _ in range(3)))

    def arm(self, offset: int = 0) -> Arm:
        """The sample for intervals and comparisons, ``offset`` (ns) taken off its times.

        Of more than `MOST_IN_ARM` values about so many count, chosen by their time and connection alone: not by their value, nor by where they stand.
        """
        chosen = self
        if self.n > MOST_IN_ARM:
            chosen = self.only(_scattered(self.times, self.connections) < np.uint64((MOST_IN_ARM << 64) // self.n))
        return Arm(chosen.times - offset, chosen.values, chosen.connections)

    def only(self, chosen: np.ndarray) -> Sample:
        """The values at a mask or at indices."""
        return Sample(self.times[chosen], self.values[chosen], self.connections[chosen])

    @property
    def n(self) -> int:
        """Number of values."""
        return int(self.values.size)


def _scattered(times: np.ndarray, connections: np.ndarray) -> np.ndarray:
    """A number (uint64) for each pair that looks like chance, the same in every run (Steele, Lea and Flood 2014: SplitMix64)."""
    mixed = times.astype(np.uint64) + connections.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _bounds(interval: intervals.Interval) -> Interval:
    return published(interval.low), published(interval.high)


def mean_of_bins(series: np.ndarray) -> Interval:
    """Interval of the mean of a series of equal time bins of amounts: no rate is below 0, however few bursts it comes in."""
    low, high = _bounds(intervals.mean_of_bins(series))
    return None if low is None else max(0.0, low), high


def ratio_by_connection(part: np.ndarray, whole: np.ndarray) -> Interval:
    """Interval of sum(part) / sum(whole), one value of each per connection; the ratio is a share."""
    return _bounds(intervals.ratio_interval(part, whole))


def ratio_by_connection_or_time(part: np.ndarray, whole: np.ndarray, part_by_second: np.ndarray, whole_by_second: np.ndarray) -> Interval:
    """Interval of the same share over connections; over time where these are too few to say anything: then for these connections alone."""
    by_connection = intervals.ratio_interval(part, whole)
    return _bounds(
        by_connection
        if not by_connection.too_few
        else intervals.ratio_of_stretches(intervals.Stretches.of(part_by_second, whole_by_second))
    )


def _interval(arm: Arm, statistic: str, threshold: float | None) -> Interval:
    if statistic in QUANTILES:
        return _bounds(intervals.quantile_of(arm, QUANTILES[statistic]))
    if statistic == "mean":
        return _bounds(intervals.mean_of(arm))
    if statistic == "share_over" and threshold is not None:
        return _bounds(intervals.share_over(arm, threshold))
    return None, None


def add_sample(
    rows: Rows, metric: str, group: str, statistics: Sequence[str], sample: Sample, *, unit: str, of: str, threshold: float | None = None
) -> None:
    """Rows of one metric and group: ``statistics`` of the sample, in ``unit``, with intervals; ``of`` is the unit of `count`.

    ``share_over`` is the share of values above ``threshold``. Small samples get no interval by rule, so none is tried.
    """
    arm = sample.arm() if sample.n >= intervals.LEAST_SAMPLES else None
    _add(rows, metric, group, statistics, sample.values, unit=unit, of=of, arm=arm, threshold=threshold)


def add_values(rows: Rows, metric: str, group: str, statistics: Sequence[str], values: np.ndarray, *, unit: str, of: str) -> None:
    """The same rows without intervals, of values alone."""
    _add(rows, metric, group, statistics, values, unit=unit, of=of)


def _add(
    rows: Rows,
    metric: str,
    group: str,
    statistics: Sequence[str],
    values: np.ndarray,
    *,
    unit: str,
    of: str,
    arm: Arm | None = None,
    threshold: float | None = None,
) -> None:
    n = int(values.size)
    found = describe(values, [name for name in statistics if name != "share_over"])
    if "share_over" in statistics and n:
        found["share_over"] = float((values > threshold).sum()) / n
    for name in statistics:
        interval = (None, None) if arm is None else _interval(arm, name, threshold)
        rows.add(metric, group, name, found.get(name), {"count": of, "share_over": SHARE}.get(name, unit), n, interval)
