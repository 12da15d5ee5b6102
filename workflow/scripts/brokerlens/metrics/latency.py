"""Kafka requests inside the window: counts, latency and its parts, records, throttling, errors, from the data set `requests`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from brokerlens.metrics.rows import ALL, Rows, group
from brokerlens.metrics.uncertainty import Sample, add_sample
from brokerlens.metrics.window import Window

STATUSES: Final = ("answered", "no_response_expected", "unanswered", "request_not_captured")
LATENCY_STATISTICS: Final = ("count", "mean", "p50", "p90", "p95", "p99", "max", "share_over")
PART_STATISTICS: Final = ("count", "mean", "p50", "p95", "p99")
BUSIEST: Final = 20
OTHER: Final = "other"
FETCH_WITH_DATA: Final = "Fetch/with_data"
FETCH_EMPTY: Final = "Fetch/empty"
ALWAYS: Final = ("Produce", "Fetch", FETCH_WITH_DATA, FETCH_EMPTY)
"""Apis that have their rows even where no request of theirs was captured."""
WAITS: Final = group("waits_by_design", "true")
_COLUMNS: Final = (
    *("connection_id", "client_id", "api_name", "correlation_id", "status", "request_first", "response_first", "latency_ms", "total_ms"),
    *("queue_ms", "service_ms", "broker_ms", "waits_by_design", "topics", "record_count", "record_bytes", "error_code", "throttle_ms"),
    *("client_software", "max_wait_ms", "lag_records", "replica_id", "retried_batches"),
    *("request_bytes", "request_captured_bytes", "response_bytes", "response_captured_bytes"),
)
PARTS: Final[Mapping[str, pl.Expr]] = {
    "kafka_queue": pl.col("queue_ms"),
    "kafka_service": pl.col("service_ms"),
    "kafka_broker": pl.col("broker_ms"),
    "kafka_network": pl.col("latency_ms") - pl.col("queue_ms") - pl.col("broker_ms"),
    "kafka_transfer": pl.col("total_ms") - pl.col("latency_ms"),
    "kafka_total": pl.col("total_ms"),
}
"""Of the time from a request's first byte to its response's last, ms."""
COUNTED: Final = pl.col("status") == "answered"


def requests_inside(requests: Sequence[str | Path], window: Window) -> pl.DataFrame:
    """The requests that began inside the window, and the responses without a request that did; by ``time`` (ns), connection and id."""
    time = pl.when(pl.col("status") == "request_not_captured").then("response_first").otherwise("request_first")
    words = pl.col("connection_id", "api_name", "status").cast(pl.String)
    scanned = pl.scan_parquet([str(path) for path in requests], hive_partitioning=False).select(_COLUMNS).with_columns(words)
    inside = scanned.with_columns(time.alias("time")).filter(window.holds(pl.col("time")))
    timed = inside.with_columns(pl.col("time").to_physical(), pl.col("connection_id").rank("dense").cast(pl.Int64).alias("connection"))
    return timed.drop("request_first", "response_first").sort("time", "connection", "correlation_id", "latency_ms").collect()


@dataclass(frozen=True)
class Groups:
    """The groups that requests are counted in. A mask is ``bool[n]`` over the rows of ``requests``."""

    requests: pl.DataFrame

    def _mask(self, condition: pl.Expr) -> np.ndarray:
        return self.requests.select(condition.fill_null(value=False)).to_series().to_numpy()

    @cached_property
    def waits(self) -> np.ndarray:
        """Requests of apis that wait by design."""
        return self._mask(pl.col("waits_by_design"))

    def apis(self) -> Iterator[tuple[str, np.ndarray]]:
        """`api=…` for each api that occurs and for those that always have rows; Fetch also by whether it brought records."""
        fetched = pl.col("api_name") == "Fetch"
        brought = (pl.col("record_count") > 0) | (pl.col("record_bytes") > 0)
        empty = (pl.col("record_bytes") == 0) & (pl.col("record_count").fill_null(0) == 0)
        parts = {FETCH_WITH_DATA: fetched & brought, FETCH_EMPTY: fetched & COUNTED & empty}
        for name in sorted({*self.requests["api_name"].drop_nulls().unique(), *ALWAYS}):
            yield group("api", name), self._mask(parts.get(name, pl.col("api_name") == name))

    def clients(self) -> Iterator[tuple[str, np.ndarray]]:
        """`client=…`, the 20 with the most requests; `other` for the rest and for requests without a client id."""
        return self._named("client", "client_id")

    def software(self) -> Iterator[tuple[str, np.ndarray]]:
        """`software=…`, the 20 with the most requests; `other` for the rest and for connections whose client did not name its software."""
        return self._named("software", "client_software")

    def _named(self, key: str, column: str) -> Iterator[tuple[str, np.ndarray]]:
        names = self.requests[column]
        busiest = _busiest(names.drop_nulls())
        for name in busiest:
            yield group(key, name), self._mask(pl.col(column) == name)
        rest = ~names.is_in(busiest).fill_null(value=False).to_numpy()
        if rest.any():
            yield group(key, OTHER), rest

    def topics(self) -> Iterator[tuple[str, np.ndarray]]:
        """`topic=…`, the 20 that most requests name; `other` for requests that name one of the rest. A request may be in several."""
        named = self.requests.select("topics").with_row_index("row").explode("topics").drop_nulls().unique()
        busiest = _busiest(named["topics"])
        groups = {name: named.filter(pl.col("topics") == name) for name in busiest}
        rest = named.filter(~pl.col("topics").is_in(busiest))
        if len(rest):
            groups[OTHER] = rest
        for name, chosen in groups.items():
            mask = np.zeros(len(self.requests), bool)
            mask[chosen["row"].to_numpy()] = True
            yield group("topic", name), mask


def _busiest(names: pl.Series) -> list[str]:
    """The most frequent names, ties by name. One that is called like the rest goes to the rest."""
    counted = names.filter(names != OTHER).value_counts(name="count")
    return counted.sort("count", names.name, descending=[True, False])[names.name].head(BUSIEST).to_list()


def sample_of(requests: pl.DataFrame, values: pl.Series, chosen: np.ndarray) -> Sample:
    """The values at ``chosen`` that are there."""
    rows = np.flatnonzero(chosen & values.is_not_null().to_numpy())
    return Sample(
        times=requests["time"].to_numpy()[rows],
        values=values.to_numpy()[rows].astype(np.float64),
        connections=requests["connection"].to_numpy()[rows],
    )


def answered_latencies(requests: pl.DataFrame) -> np.ndarray:
    """Rows with a latency that counts: answered, and both ends seen in their order."""
    return requests.select(COUNTED & pl.col("latency_ms").is_not_null()).to_series().to_numpy()


def add_requests(rows: Rows, groups: Groups) -> None:
    """`requests` in all, by status, api, client, client software and topic."""
    requests = groups.requests
    n = len(requests)
    everything = np.ones(n, bool)
    for name, mask in ((ALL, everything), *groups.apis(), (WAITS, groups.waits), *groups.clients(), *groups.software(), *groups.topics()):
        rows.add("requests", name, "count", int(mask.sum()), "requests", int(mask.sum()))
    for status in STATUSES:
        rows.add("requests", group("status", status), "count", int((requests["status"] == status).sum()), "requests", n)


def add_latency(rows: Rows, groups: Groups, threshold: float) -> None:
    """`kafka_latency` and its parts; `all`, clients and topics without the apis that wait by design."""
    requests = groups.requests
    counted = answered_latencies(requests)
    prompt = counted & ~groups.waits
    of_apis = [(name, counted & mask) for name, mask in groups.apis()]
    named = [(name, prompt & mask) for name, mask in (*groups.clients(), *groups.topics())]
    for name, mask in ((ALL, prompt), *of_apis, (WAITS, counted & groups.waits), *named):
        sample = sample_of(requests, requests["latency_ms"], mask)
        add_sample(rows, "kafka_latency", name, LATENCY_STATISTICS, sample, unit="ms", of="requests", threshold=threshold)
    for metric, part in PARTS.items():
        values = requests.select(part).to_series()
        for name, mask in ((ALL, prompt), *of_apis):
            sample = sample_of(requests, values, mask)
            add_sample(rows, metric, name, PART_STATISTICS, sample, unit="ms", of="requests", with_intervals=False)
