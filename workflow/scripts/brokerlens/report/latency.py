"""Latencies as the charts need them: points of a curve, percentiles by time, the worst minute, the parts.

All are order statistics (``inverted_cdf``) of the requests themselves: every point drawn lies exactly on the curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from brokerlens.metrics.latency import FETCH_EMPTY, FETCH_WITH_DATA, Groups
from brokerlens.report.results import Site
from brokerlens.statistics import quantiles

PRINTED = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
WORST_SECONDS = 60
WORST_LEAST = 20
MOST_BINS = 400
_STEPS = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
_SECOND = 1_000_000_000
PARTS = ("network", "broker", "queue", "transfer", "unknown")
Floats = NDArray[np.float64]


def quantile(values: Floats, q: float) -> float | None:
    """Order statistic at q of ascending values (numpy's ``inverted_cdf``); None without values."""
    if len(values) == 0:
        return None
    return float(values[min(len(values) - 1, max(0, int(np.ceil(q * len(values) - 1e-9)) - 1))])


def curve_ranks(n: int, points: int = 375) -> NDArray[np.int64]:
    """Ranks (from 1) that draw the distribution of n ascending values: even ones, geometric ones from the top, the last 20.

    At most about ``points``; the ranks of the printed percentiles are among them, so that chart and table agree.
    """
    if n <= points:
        return np.arange(1, n + 1)
    even = np.linspace(1, n, max(2, points * 200 // 375))
    top = n - np.geomspace(1, n, max(2, points * 150 // 375)) + 1
    printed = np.ceil(np.array(PRINTED) * n - 1e-9)
    last = np.arange(max(1, n - 19), n + 1)
    return np.unique(np.clip(np.round(np.concatenate([even, top, printed, last])), 1, n).astype(np.int64))


@dataclass(frozen=True)
class Bins:
    """Percentiles by time: begin of each bin that holds requests (ns), their number, p50 and p95 in ms."""

    seconds: int
    start: NDArray[np.int64]
    count: NDArray[np.int64]
    p50: Floats
    p95: Floats


def bin_seconds(span: tuple[int, int]) -> int:
    """Length of the bins: 10 s, longer where that would make more than 400."""
    length = (span[1] - span[0]) / _SECOND
    return next((step for step in _STEPS if length / step <= MOST_BINS), int(np.ceil(length / MOST_BINS)))


def by_time(site: Site, seconds: int | None = None) -> Bins | None:
    """p50 and p95 per bin of a site's requests that do not wait by design; bins begin with the window. None without requests."""
    if site.span is None or site.answered.height == 0:
        return None
    step = seconds or bin_seconds(site.span)
    binned = (
        site.answered.select(((pl.col("request_first") - site.span[0]) // (step * _SECOND)).alias("bin"), "latency_ms")
        .group_by("bin")
        .agg(
            pl.len().alias("n"),
            *(quantiles.quantile(pl.col("latency_ms"), q).alias(name) for q, name in ((0.5, "p50"), (0.95, "p95"))),
        )
        .sort("bin")
    )
    start = site.span[0] + binned["bin"].to_numpy() * (step * _SECOND)
    return Bins(step, start, binned["n"].to_numpy().astype(np.int64), binned["p50"].to_numpy(), binned["p95"].to_numpy())


@dataclass(frozen=True)
class WorstMinute:
    """The 60 s of a site with the highest p95 among those with enough requests: begin (ns), p95, requests, retransmitted ones."""

    site: Site
    start: int
    p95: float
    requests: int
    retransmitted: int

    @property
    def end(self) -> int:
        """End of the minute, or of a window that is shorter."""
        end = self.start + WORST_SECONDS * _SECOND
        return end if self.site.span is None else min(end, self.site.span[1])


def worst_minute(site: Site) -> WorstMinute | None:
    """The worst of the minutes that begin every 5 s (every 1/2000 of a long window) and of the last; None where none holds 20 requests."""
    if site.span is None or site.answered.height < WORST_LEAST:
        return None
    times = site.answered["request_first"].to_numpy()
    values = site.answered["latency_ms"].to_numpy()
    last = max(site.span[0], site.span[1] - WORST_SECONDS * _SECOND)
    step = max(5 * _SECOND, (last - site.span[0]) // 2000)
    starts = np.unique(np.append(np.arange(site.span[0], last + 1, step), last))
    first = np.searchsorted(times, starts, side="left")
    past = np.searchsorted(times, starts + WORST_SECONDS * _SECOND, side="left")
    worst: tuple[float, int] | None = None
    for i in range(len(starts)):
        n = int(past[i] - first[i])
        if n < WORST_LEAST:
            continue
        rank = max(1, int(np.ceil(0.95 * n - 1e-9))) - 1
        p95 = float(np.partition(values[first[i] : past[i]], rank)[rank])
        if worst is None or p95 > worst[0]:
            worst = (p95, i)
    if worst is None:
        return None
    p95, i = worst
    again = int(site.answered["retransmitted"].slice(int(first[i]), int(past[i] - first[i])).sum())
    return WorstMinute(site, int(starts[i]), p95, int(past[i] - first[i]), again)


def parts(site: Site, *, slowest: float | None = None) -> dict[str, float] | None:
    """Mean ms per request of each part of the time from the request's first byte to the response's last one.

    network = latency − queue − broker, waits for retransmissions included; broker; queue; transfer = total − latency: the time that request
    and response themselves took to pass. ``unknown`` is what requests without a round trip spent outside the queue. ``slowest``: only the
    requests at or above that quantile of latency.
    """
    frame = site.answered
    if slowest is not None and frame.height:
        limit = quantile(site.latencies, slowest)
        frame = frame.filter(pl.col("latency_ms") >= limit)
    if frame.height == 0:
        return None
    queue = pl.col("queue_ms").fill_null(0.0)
    # A round trip measured at another moment makes a request's time in the broker too short as often as too long. Where it comes out
    # negative the data set has null; left out, the mean would be too high, so it counts with its sign. After a loss it says nothing:
    # then the wait for the retransmission, by far the most, is the network's.
    late = pl.when(~pl.col("retransmitted")).then(pl.col("latency_ms") - pl.col("network_rtt_ms"))
    broker = pl.coalesce("broker_ms", late)
    known = broker.is_not_null() | (pl.col("retransmitted") & pl.lit(site.tap == "client"))
    outside = pl.col("latency_ms") - queue
    means = frame.select(
        pl.when(known).then(outside).otherwise(0.0).mean().alias("both"),
        broker.fill_null(0.0).mean().alias("broker"),
        queue.mean().alias("queue"),
        (pl.col("total_ms") - pl.col("latency_ms")).mean().alias("transfer"),
        pl.when(known).then(0.0).otherwise(outside).mean().alias("unknown"),
    ).row(0, named=True)
    in_broker = max(0.0, means["broker"])
    found = means | {"network": means["both"] - in_broker, "broker": in_broker}
    return {part: max(0.0, float(found[part] or 0.0)) for part in PARTS}


@dataclass(frozen=True)
class ApiSet:
    """Requests of one kind: its name, whether it waits by design, and each site's ascending latencies."""

    name: str
    group: str
    waits: bool
    values: dict[tuple[str, str], Floats]


def by_api(sites: list[Site], least: int = 20) -> list[ApiSet]:
    """The apis with at least that many answered requests at one site, those that do not wait first.

    Fetch as in the metrics: with and without data apart. ``Fetch`` itself holds the rest, whose responses were not read.
    """
    found: dict[tuple[bool, str], dict[tuple[str, str], Floats]] = {}
    for site in sites:
        answered = site.requests.filter(
            (pl.col("status") == "answered") & pl.col("latency_ms").is_not_null() & pl.col("api_name").is_not_null()
        )
        masks = {name.removeprefix("api="): mask for name, mask in Groups(answered.lazy()).apis()}
        masks["Fetch"] = masks["Fetch"] & ~masks[FETCH_WITH_DATA] & ~masks[FETCH_EMPTY]
        for api, mask in masks.items():
            for (waits,), rows in answered.filter(mask).group_by("waits_by_design"):
                found.setdefault((bool(waits), api), {})[site.key] = np.sort(rows["latency_ms"].to_numpy())
    busy = {key: values for key, values in found.items() if max(len(v) for v in values.values()) >= least}
    ranked = sorted(busy, key=lambda key: (key[0], -sum(len(v) for v in busy[key].values()), key[1]))
    return [ApiSet(api, f"api={api}", waits, busy[waits, api]) for waits, api in ranked]
