"""Samples described with their 95 % intervals, where the rules of `brokerlens.statistics` allow one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from brokerlens.metrics.rows import QUANTILES, SHARE, Interval, Rows, describe
from brokerlens.statistics import intervals
from brokerlens.statistics.arms import Arm
from brokerlens.statistics.rounding import published


@dataclass(frozen=True)
class Sample:
    """Values with the time (ns) at which each was seen and the number of its connection; arrays of one length, in any order."""

    times: np.ndarray
    values: np.ndarray
    connections: np.ndarray

    def only(self, chosen: np.ndarray) -> Sample:
        """The values at a mask or at indices."""
        return Sample(self.times[chosen], self.values[chosen], self.connections[chosen])

    @property
    def n(self) -> int:
        """Number of values."""
        return int(self.values.size)


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
    rows: Rows,
    metric: str,
    group: str,
    statistics: Sequence[str],
    sample: Sample,
    *,
    unit: str,
    of: str,
    threshold: float | None = None,
    with_intervals: bool = True,
) -> None:
    """Rows of one metric and group: ``statistics`` of the sample, in ``unit``; ``of`` is the unit of `count`.

    ``share_over`` is the share of values above ``threshold``. Small samples get no interval by rule, so none is tried.
    """
    found = describe(sample.values, [name for name in statistics if name != "share_over"])
    if "share_over" in statistics and sample.n:
        found["share_over"] = float((sample.values > threshold).sum()) / sample.n
    arm = None
    if with_intervals and sample.n >= intervals.LEAST_SAMPLES:
        arm = Arm(sample.times, sample.values, sample.connections)
    for name in statistics:
        interval = (None, None) if arm is None else _interval(arm, name, threshold)
        rows.add(metric, group, name, found.get(name), {"count": of, "share_over": SHARE}.get(name, unit), sample.n, interval)
