"""What the bodies of the requests inside the window say: records, throttling, errors, producers' retries, consumers' lag and waits."""

from __future__ import annotations

import numpy as np
import polars as pl

from brokerlens.metrics.latency import COUNTED, FETCH_EMPTY, Groups, sample_of
from brokerlens.metrics.rows import ALL, SHARE, Rows, describe, group

TIMER_MS = 1.0
"""A broker's timer may end a long poll this much early."""
LAG_STATISTICS = ("count", "p50", "p95", "max")
WAIT_STATISTICS = ("count", "min", "p50", "max")


def add_contents(rows: Rows, groups: Groups) -> None:
    """`records`, `record_bytes`, `throttle`, `request_errors`: what the captured bodies say."""
    requests = groups.requests
    apis = dict(groups.apis())
    for metric, column in (("records", "record_count"), ("record_bytes", "record_bytes")):
        for name in (group("api", "Produce"), group("api", "Fetch")):
            sample = sample_of(requests, requests[column], apis[name])
            rows.add(metric, name, "sum", describe(sample.values, ("sum",))["sum"], "records" if metric == "records" else "bytes", sample.n)
    asked = (ALL, np.ones(len(requests), bool)), *apis.items(), *groups.clients()
    for name, mask in asked:
        sample = sample_of(requests, requests["throttle_ms"], mask)
        rows.add("throttle", name, "count", int((sample.values > 0).sum()), "requests", sample.n)
        for statistic in ("sum", "max"):
            rows.add("throttle", name, statistic, describe(sample.values, (statistic,))[statistic], "ms", sample.n)
    for name, mask in asked:
        sample = sample_of(requests, requests["error_code"], mask)
        rows.add("request_errors", name, "count", int((sample.values != 0).sum()), "requests", sample.n)


def add_producers(rows: Rows, groups: Groups) -> None:
    """`producer_retries`: Produce requests with a record batch that was sent before, among those whose batches have a producer's id."""
    requests = groups.requests
    for name, mask in ((ALL, np.ones(len(requests), bool)), *groups.clients()):
        retried = sample_of(requests, requests["retried_batches"], mask).values > 0
        rows.add("producer_retries", name, "count", int(retried.sum()), "requests", len(retried))
        rows.add("producer_retries", name, "ratio_of_sums", float(retried.mean()) if len(retried) else None, SHARE, len(retried))


def add_consumers(rows: Rows, groups: Groups) -> None:
    """`consumer_lag`, `fetch_max_wait` and `idle_polls`, of fetches by consumers; followers' are replication."""
    requests = groups.requests
    consumes = requests.select((pl.col("api_name") == "Fetch") & ~(pl.col("replica_id") >= 0).fill_null(value=False)).to_series()
    of_consumers = consumes.fill_null(value=False).to_numpy()
    for name, mask in ((ALL, of_consumers), *((name, mask & of_consumers) for name, mask in groups.clients())):
        lag = sample_of(requests, requests["lag_records"], mask)
        for statistic, value in describe(lag.values, LAG_STATISTICS).items():
            rows.add("consumer_lag", name, statistic, value, "records", lag.n)
    wait = sample_of(requests, requests["max_wait_ms"], of_consumers)
    for statistic, value in describe(wait.values, WAIT_STATISTICS).items():
        rows.add("fetch_max_wait", ALL, statistic, value, "ms", wait.n)
    answered = requests.select(COUNTED & pl.col("record_bytes").is_not_null() & pl.col("latency_ms").is_not_null()).to_series().to_numpy()
    empty = dict(groups.apis())[group("api", FETCH_EMPTY)]
    waited = requests.select((pl.col("latency_ms") >= pl.col("max_wait_ms") - TIMER_MS).fill_null(value=False)).to_series().to_numpy()
    among = of_consumers & answered
    idle, n = int((among & empty & waited).sum()), int(among.sum())
    rows.add("idle_polls", ALL, "count", idle, "requests", n)
    rows.add("idle_polls", ALL, "ratio_of_sums", idle / n if n else None, SHARE, n)


def add_frames(rows: Rows, groups: Groups) -> None:
    """`frame_bytes_missing`: bytes of frames that were not captured, in all and by direction."""
    requests = groups.requests
    sums = {
        group("direction", direction): (int(requests[f"{side}_captured_bytes"].sum() or 0), int(requests[f"{side}_bytes"].sum() or 0))
        for direction, side in (("to_broker", "request"), ("from_broker", "response"))
    }
    together = tuple(map(sum, zip(*sums.values(), strict=True)))
    for name, (captured, size) in {ALL: together, **sums}.items():
        rows.add("frame_bytes_missing", name, "sum", size - captured, "bytes", size)
        rows.add("frame_bytes_missing", name, "ratio_of_sums", (size - captured) / size if size else None, SHARE, size)
