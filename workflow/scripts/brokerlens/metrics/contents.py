"""What the bodies of the requests inside the window say: records, throttling, errors, producers' retries, consumers' lag and waits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np
import polars as pl

from brokerlens.metrics.latency import FETCH_EMPTY, Groups, present
from brokerlens.metrics.rows import ALL, SHARE, Rows, describe, group

TIMER_MS = 1.0
"""A broker's timer may end a long poll this much early."""
LAG_STATISTICS = ("count", "p50", "p95", "max")
WAIT_STATISTICS = ("count", "min", "p50", "max")


def add_contents(rows: Rows, groups: Groups) -> None:
    """`records`, `record_bytes`, `throttle`, `request_errors`: what the captured bodies say."""
    apis = dict(groups.apis())
    for metric, column in (("records", "record_count"), ("record_bytes", "record_bytes")):
        carried = groups.values(column)
        for name in (group("api", "Produce"), group("api", "Fetch")):
            values = present(carried, apis[name])
            unit = "records" if metric == "records" else "bytes"
            rows.add(metric, name, "sum", describe(values, ("sum",))["sum"], unit, values.size)
    throttle = groups.values("throttle_ms")
    for name, mask in _asked(groups):
        values = present(throttle, mask)
        rows.add("throttle", name, "count", int((values > 0).sum()), "requests", values.size)
        for statistic, value in describe(values, ("sum", "max")).items():
            rows.add("throttle", name, statistic, value, "ms", values.size)
    error = groups.values("error_code")
    for name, mask in _asked(groups):
        values = present(error, mask)
        rows.add("request_errors", name, "count", int((values != 0).sum()), "requests", values.size)


def _asked(groups: Groups) -> Iterator[tuple[str, np.ndarray]]:
    """All requests, each api, each client."""
    return chain([(ALL, groups.everything())], groups.apis(), groups.clients())


def add_producers(rows: Rows, groups: Groups) -> None:
    """`producer_retries`: Produce requests with a record batch that was sent before, among those whose batches have a producer's id."""
    batches = groups.values("retried_batches")
    for name, mask in chain([(ALL, groups.everything())], groups.clients()):
        retried = present(batches, mask) > 0
        rows.add("producer_retries", name, "count", int(retried.sum()), "requests", len(retried))
        rows.add("producer_retries", name, "ratio_of_sums", float(retried.mean()) if len(retried) else None, SHARE, len(retried))


def add_consumers(rows: Rows, groups: Groups) -> None:
    """`consumer_lag`, `fetch_max_wait` and `idle_polls`, of fetches by consumers; followers' are replication."""
    of_consumers = groups.mask((pl.col("api_name") == "Fetch") & ~(pl.col("replica_id") >= 0).fill_null(value=False))
    behind = groups.values("lag_records")
    for name, mask in chain([(ALL, of_consumers)], ((name, mask & of_consumers) for name, mask in groups.clients())):
        lag = present(behind, mask)
        for statistic, value in describe(lag, LAG_STATISTICS).items():
            rows.add("consumer_lag", name, statistic, value, "records", lag.size)
    wait = present(groups.values("max_wait_ms"), of_consumers)
    for statistic, value in describe(wait, WAIT_STATISTICS).items():
        rows.add("fetch_max_wait", ALL, statistic, value, "ms", wait.size)
    answered = groups.timed & groups.mask(pl.col("record_bytes").is_not_null())
    empty = dict(groups.apis())[group("api", FETCH_EMPTY)]
    waited = groups.mask(pl.col("latency_ms") >= pl.col("max_wait_ms") - TIMER_MS)
    among = of_consumers & answered
    idle, n = int((among & empty & waited).sum()), int(among.sum())
    rows.add("idle_polls", ALL, "count", idle, "requests", n)
    rows.add("idle_polls", ALL, "ratio_of_sums", idle / n if n else None, SHARE, n)


def add_frames(rows: Rows, groups: Groups) -> None:
    """`frame_bytes_missing`: bytes of frames that were not captured, in all and by direction."""
    sums = {
        group("direction", direction): tuple(
            int(groups.values(pl.col(column).cast(pl.Int64).sum()).item() or 0) for column in (f"{side}_captured_bytes", f"{side}_bytes")
        )
        for direction, side in (("to_broker", "request"), ("from_broker", "response"))
    }
    together = tuple(map(sum, zip(*sums.values(), strict=True)))
    for name, (captured, size) in {ALL: together, **sums}.items():
        rows.add("frame_bytes_missing", name, "sum", size - captured, "bytes", size)
        rows.add("frame_bytes_missing", name, "ratio_of_sums", (size - captured) / size if size else None, SHARE, size)
