"""Connections that have a packet inside the window: how many, and how many of them were reset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from brokerlens.metrics.rows import ALL, SHARE, Rows, group
from brokerlens.metrics.uncertainty import ratio_by_connection


def connections_inside(connections: Sequence[str | Path], inside: Sequence[str]) -> pl.DataFrame:
    """The rows of the data set `connections` whose ids are in ``inside``, by id."""
    columns = "connection_id", "ended", "reset_by", "tap"
    scanned = pl.scan_parquet([str(path) for path in connections], hive_partitioning=False).select(pl.col(columns).cast(pl.String))
    wanted = pl.LazyFrame({"connection_id": inside}, schema={"connection_id": pl.String})
    return scanned.join(wanted, on="connection_id", how="semi").sort("connection_id").collect()


def add_connections(rows: Rows, connections: pl.DataFrame) -> None:
    """`connections`, and `connections_reset` in all and by the side that sent the first RST."""
    n = len(connections)
    rows.add("connections", ALL, "count", n, "connections", n)
    reset = connections["ended"] == "reset"
    groups = {
        ALL: reset,
        **{group("by", side): reset & (connections["reset_by"] == side).fill_null(value=False) for side in ("client", "broker")},
    }
    for name, chosen in groups.items():
        counted = chosen.to_numpy().astype(np.int64)
        rows.add("connections_reset", name, "count", int(counted.sum()), "connections", n)
        share = int(counted.sum()) / n if n else None
        rows.add("connections_reset", name, "ratio_of_sums", share, SHARE, n, ratio_by_connection(counted, np.ones(n, np.int64)))
