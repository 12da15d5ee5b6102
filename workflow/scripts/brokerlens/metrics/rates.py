"""What went by per second of the clock: bytes, requests and records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from brokerlens.metrics.latency import COUNTED, Groups
from brokerlens.metrics.rows import ALL, Rows, describe, group
from brokerlens.metrics.traffic import Traffic, directions, of_side
from brokerlens.metrics.uncertainty import mean_of_bins

CARRY_RECORDS: Final = ("Produce", "Fetch")
_OF_TRAFFIC: Final = {"throughput": "bytes", "goodput": "acked", "goodput_captured": "new_bytes"}
_OF_RECORDS: Final = {"record_rate": ("record_count", "records/s"), "record_byte_rate": ("record_bytes", "bytes/s")}


@dataclass(frozen=True)
class Rate:
    """One rate: its amount in each second from the first to the last packet inside the window, empty seconds too; nothing where it is not known."""

    metric: str
    group: str
    unit: str
    per_second: np.ndarray


def rates(traffic: Traffic, requests: Groups) -> Iterator[Rate]:
    """`throughput`, `goodput`, `goodput_captured` by direction, `request_rate`, and by api `record_rate` and `record_byte_rate`."""
    for metric, counter in _OF_TRAFFIC.items():
        for name, side in directions():
            yield Rate(metric, name, "bytes/s", of_side(traffic.by_second[counter], side))
    yield Rate("request_rate", ALL, "requests/s", _per_second(traffic, requests.times, np.ones(requests.n, np.int8)))
    carried = requests.mask(COUNTED | (pl.col("status") == "no_response_expected"))
    apis = dict(requests.apis())
    for api in CARRY_RECORDS:
        of_api = carried & apis[group("api", api)]
        for metric, (column, unit) in _OF_RECORDS.items():
            amounts = requests.values(column).filter(of_api)
            # Where captures hid some of the records the rate is not known, and a part of it would be a wrong one.
            is_known = len(amounts) and not amounts.null_count()
            amount = _per_second(traffic, requests.times[of_api], amounts.to_numpy()) if is_known else np.zeros(0, np.int64)
            yield Rate(metric, group("api", api), unit, amount)


def _per_second(traffic: Traffic, times: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    if not traffic.bins.count:
        return np.zeros(0, np.int64)
    # Whole numbers below 2^53 add up exactly as floats.
    return np.bincount(traffic.bins.number(times), amounts, traffic.bins.count).astype(np.int64)


def add_rates(rows: Rows, traffic: Traffic, requests: Groups) -> None:
    """Of each rate the mean over all seconds (with its interval) and over those with any, the 95th percentile and the largest second."""
    for rate in rates(traffic, requests):
        active = rate.per_second[rate.per_second > 0]
        found = describe(rate.per_second, ("mean", "p95", "max"))
        n = rate.per_second.size
        rows.add(rate.metric, rate.group, "mean", found["mean"], rate.unit, n, mean_of_bins(rate.per_second))
        rows.add(rate.metric, rate.group, "mean_active", describe(active, ("mean",))["mean"], rate.unit, active.size)
        for statistic in ("p95", "max"):
            rows.add(rate.metric, rate.group, statistic, found[statistic], rate.unit, n)
