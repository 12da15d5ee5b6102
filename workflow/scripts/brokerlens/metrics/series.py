"""The data set `series`: what happened when, in at most 400 equal time bins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa

from brokerlens import tables
from brokerlens.metrics.latency import Groups
from brokerlens.metrics.rows import ALL, SHARE, group, quantiles_by_group
from brokerlens.metrics.traffic import Traffic, directions
from brokerlens.metrics.uncertainty import Sample
from brokerlens.metrics.window import Bins


@dataclass
class SeriesRows:
    """Rows of the data set `series`, one per bin for each metric, group and statistic added."""

    bins: Bins
    parts: list[pl.DataFrame] = field(default_factory=list)

    def add(self, metric: str, group: str, statistic: str, values: np.ndarray, unit: str, n: np.ndarray) -> None:
        """Values (nan: null) and numbers of samples, one per bin."""
        words = {"metric": metric, "group": group, "statistic": statistic, "unit": unit}
        columns = {"bin_start": self.bins.starts(), "value": np.asarray(values, np.float64), "n": np.asarray(n, np.int64)}
        self.parts.append(pl.DataFrame(columns).with_columns(pl.lit(text).alias(name) for name, text in words.items()))

    def table(self) -> pa.Table:
        """The rows with the data set's columns."""
        wanted = tables.schema("series")
        if not self.parts or not self.bins.count:
            return wanted.empty_table()
        rows = pl.concat(self.parts).with_columns(
            pl.col("bin_start").cast(pl.Datetime("ns", "UTC")),
            pl.lit(self.bins.seconds).alias("bin_seconds"),
            pl.col("value").fill_nan(None),
        )
        return tables.conform(rows.select(wanted.names).to_arrow(), "series")


def _per_bin(bins: Bins, traffic: Traffic, counter: str, side: bool | None) -> np.ndarray:
    seconds = traffic.by_second[counter]
    counts = seconds.sum(axis=1) if side is None else seconds[:, int(side)]
    summed = np.zeros(bins.count, np.int64)
    np.add.at(summed, bins.number(traffic.bins.starts()), counts)
    return summed


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0))


def add_traffic(rows: SeriesRows, traffic: Traffic) -> None:
    """`throughput`, `goodput`, `goodput_captured`, `capture_loss`, `retransmissions`, `resets`, `zero_windows`."""
    counted = {name: {counter: _per_bin(rows.bins, traffic, counter, side) for counter in traffic.by_second} for name, side in directions()}
    for metric, counter in (("throughput", "bytes"), ("goodput", "acked"), ("goodput_captured", "new_bytes")):
        for name, counts in counted.items():
            rows.add(metric, name, "mean", counts[counter] / rows.bins.seconds, "bytes/s", counts["packets"])
    for name, counts in counted.items():
        rows.add("capture_loss", name, "ratio_of_sums", _share(counts["unseen"], counts["acked"]), SHARE, counts["acked"])
    repaired = {name: (counts["retransmitted"] + counts["filled"], counts["data_segments"]) for name, counts in counted.items()}
    everything = counted[ALL]
    repaired[group("place", "before_tap")] = everything["filled"], everything["data_segments"]
    repaired[group("place", "behind_tap")] = everything["retransmitted"], everything["data_segments"]
    for name, (part, whole) in repaired.items():
        rows.add("retransmissions", name, "count", part, "segments", whole)
        rows.add("retransmissions", name, "ratio_of_sums", _share(part, whole), SHARE, whole)
    for metric, unit in (("resets", "packets"), ("zero_windows", "episodes")):
        for name, counts in counted.items():
            rows.add(metric, name, "count", counts[metric], unit, counts["packets"])


def add_round_trips(rows: SeriesRows, half: str, trips: Sample) -> None:
    """`rtt` of a half: the smallest and the median of the round trips that ended in each bin."""
    n, found = quantiles_by_group(trips.values, rows.bins.number(trips.times), rows.bins.count, {"min": 0.0, "p50": 0.5})
    for statistic, values in found.items():
        rows.add("rtt", group("half", half), statistic, values, "ms", n)


def _of_requests(groups: Groups) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Groups of requests: name, all of its requests, and those of them whose latency counts."""
    yield ALL, groups.everything(), groups.timed & ~groups.waits
    for name, mask in groups.apis():
        if mask.any():
            yield name, mask, groups.timed & mask


def add_requests(rows: SeriesRows, groups: Groups) -> None:
    """`requests` and `kafka_latency` in all and by api, at the time at which the requests began."""
    number = rows.bins.number(groups.times)
    latency = groups.values("latency_ms").to_numpy()
    for name, of_group, timed in _of_requests(groups):
        count = np.bincount(number[of_group], minlength=rows.bins.count)
        rows.add("requests", name, "count", count, "requests", count)
        n, found = quantiles_by_group(latency[timed], number[timed], rows.bins.count, {"p50": 0.5, "p95": 0.95})
        for statistic, values in found.items():
            rows.add("kafka_latency", name, statistic, values, "ms", n)
