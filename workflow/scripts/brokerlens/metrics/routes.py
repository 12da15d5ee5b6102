"""How long records took from producer to consumer, by route: from the site that saw them produced to the one that saw them fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from brokerlens.metrics.rows import ALL, Rows, group
from brokerlens.metrics.uncertainty import Sample, add_sample, add_values
from brokerlens.metrics.window import Window

STATUSES: Final = ("delivered", "not_fetched", "produce_not_captured")
DELIVERY_STATISTICS: Final = ("count", "mean", "p50", "p90", "p95", "p99", "max")
PART_STATISTICS: Final = ("count", "mean", "p50", "p95")
PARTS: Final = ("produce_network", "broker", "log_wait", "fetch_network")
"""The parts of a delivery, in the order of its way."""
_COLUMNS: Final = (
    *("produce_site", "fetch_site", "fetch_connection_id", "produced_at", "fetched_at", "delivery_ms", "clock_uncertainty_ms"),
    *("status", "status_reason", "record_count", "refetches", *(f"{part}_ms" for part in PARTS)),
)


def route_group(produce_site: str, fetch_site: str) -> str:
    """The group of a route."""
    return group("route", f"{produce_site}>{fetch_site}")


def deliveries_inside(deliveries: Sequence[str | Path], site: str, window: Window) -> pl.DataFrame:
    """What was fetched at a site, or produced there and never fetched; inside the window by ``produced_at``, without it by ``fetched_at``; in order of that ``time`` (ns)."""
    time = pl.coalesce("produced_at", "fetched_at")
    words = pl.col("produce_site", "fetch_site", "fetch_connection_id", "status", "status_reason").cast(pl.String)
    scanned = pl.scan_parquet([str(path) for path in deliveries], hive_partitioning=False).select(_COLUMNS).with_columns(words)
    chosen = scanned.filter(pl.coalesce("fetch_site", "produce_site") == site, window.holds(time))
    numbered = chosen.with_columns(
        time.to_physical().alias("time"), pl.col("fetch_connection_id").rank("dense").cast(pl.Int64).alias("connection")
    )
    return numbered.sort("time", "produce_site", "connection", "delivery_ms", "record_count").collect()


def _groups(delivered: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """All deliveries, then those of each route."""
    yield ALL, delivered
    for (produce_site, fetch_site), rows in sorted(delivered.group_by("produce_site", "fetch_site", maintain_order=True)):
        yield route_group(str(produce_site), str(fetch_site)), rows


def _sample(rows: pl.DataFrame, column: str) -> Sample:
    known = rows.drop_nulls(column)
    return Sample(known["time"].to_numpy(), known[column].to_numpy(), known["connection"].to_numpy())


def add_deliveries(rows: Rows, deliveries: pl.DataFrame) -> None:
    """`delivery` and its parts by route, what became of batches that are no deliveries, and what the clocks allow to say."""
    n = deliveries.height
    for status in STATUSES:
        rows.add("deliveries", group("status", status), "count", int((deliveries["status"] == status).sum()), "batches", n)
    for reason, number in deliveries["status_reason"].drop_nulls().value_counts(sort=False).sort("status_reason").iter_rows():
        rows.add("deliveries", group("reason", reason), "count", number, "batches", n)
    for name, chosen in _groups(deliveries.filter(pl.col("status") == "delivered")):
        add_sample(rows, "delivery", name, DELIVERY_STATISTICS, _sample(chosen, "delivery_ms"), unit="ms", of="batches")
        apart = chosen.drop_nulls([f"{part}_ms" for part in PARTS])
        for metric, column in (("delivery_taken_apart", "delivery_ms"), *((f"delivery_{part}", f"{part}_ms") for part in PARTS)):
            add_values(rows, metric, name, PART_STATISTICS, apart[column].to_numpy(), unit="ms", of="batches")
        rows.add("delivered_records", name, "sum", float(chosen["record_count"].sum()), "records", chosen.height)
        rows.add("refetches", name, "sum", float(chosen["refetches"].sum()), "fetches", chosen.height)
        unrelated = (chosen["status_reason"] == "clocks_unknown").sum()
        rows.add("clocks_unknown", name, "count", float(unrelated), "batches", chosen.height)
        uncertainty = chosen["clock_uncertainty_ms"]
        bounded = None if uncertainty.null_count() or not chosen.height else float(np.max(uncertainty.to_numpy()))
        rows.add("delivery_clock_uncertainty", name, "max", bounded, "ms", chosen.height)
